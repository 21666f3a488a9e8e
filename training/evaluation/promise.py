"""Does the calibration keep its promise on people that it has not seen? Realised rates against the promised
ones.

No comparison that is tested was fitted on, and members of one family are on the same side: a check on the people of the
fit would only show that the fit fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.calibration import Calibration
from training.evaluation.calibration import tail_bounds
from training.evaluation.calibration_set import CalibrationSet
from training.evaluation.simulation import GALLERIES, simulate_identification


def held_out_fmr(
    faces: CalibrationSet, rates: Sequence[float] = (1e-2, 1e-3, 1e-4), repeats: int = 10, seed: int = 0
) -> list[dict[str, Any]]:
    """For each promised FMR the realised one on the other half of the people, over `repeats` splits.

    Both halves take a turn. `spread` is the standard deviation over the splits' halves (which overlap).
    """
    realised: dict[float, list[float]] = {rate: [] for rate in rates}
    extrapolated = dict.fromkeys(rates, False)
    comparisons = 0
    for repeat in range(repeats):
        halves = faces.halves(seed + repeat)
        for fitted, tested in (halves, halves[::-1]):
            calibration, drawn = fitted.fit(seed + repeat), tested.draw(seed + repeat)
            scores = drawn.scores(0, drawn.clean())[0]
            comparisons = len(scores)
            for rate in rates:
                threshold = calibration.threshold_for_fmr(rate)
                realised[rate].append(float((scores >= threshold.value).mean()))
                extrapolated[rate] |= threshold.extrapolated
    return [
        {
            "promised": rate,
            "realised": float(np.mean(realised[rate])),
            "spread": float(np.std(realised[rate])),
            "extrapolated": extrapolated[rate],
            "comparisons_per_test": comparisons,
            "tests": len(realised[rate]),
        }
        for rate in rates
    ]


def calibration_report(
    faces: CalibrationSet, calibration: Calibration, repeats: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Everything that a person should see of a calibration, in plain values for the manifest's metrics and
    REPORT.md.

    The simulation enrols galleries of GALLERIES, those that leave somebody to be searched.
    """
    galleries = [persons for persons in GALLERIES if persons < len(faces.people())]
    carried = [rate for rate in (1e-2, 1e-3, 1e-4) if rate * 100 > 4 * calibration.floor]
    return {
        "thresholds": {f"{rate:g}": calibration.threshold_for_fmr(rate).value for rate in carried},
        "floor": calibration.floor,
        "curves": [
            {
                "templates": curve.templates,
                "comparisons": curve.comparisons,
                "people": curve.people,
                "floor": curve.floor,
            }
            for curve in calibration.curves
        ],
        "tail": tail_bounds(faces.draw(calibration.seed), calibration, seed=calibration.seed),
        "kin": calibration.kin.model_dump(mode="json"),
        "with_excluded": calibration.with_excluded.model_dump(mode="json"),
        "excluded_pairs": len(calibration.excluded),
        "held_out_fmr": held_out_fmr(faces, carried, repeats, seed),
        "held_out_fpir": simulate_identification(faces, galleries, repeats=2 * repeats, seed=seed),
    }
