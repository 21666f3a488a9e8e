"""What a detector might have been measured to do, made up: no picture is needed to write a report of it."""

from __future__ import annotations

import numpy as np

from training.evaluation.bootstrap import Interval
from training.evaluation.detection import Recall
from training.evaluation.detectors import BANDS, ONE_VIEW, OURS, REFERENCE, DetectorResults
from training.evaluation.faceless import FalseFinds
from training.evaluation.finding import Band, Finding
from training.evaluation.landmark_error import LandmarkError
from training.evaluation.scales import ORIGINAL, VGA


def drawn_finding(name: str, scale: str = VGA.name) -> Finding:
    curve = np.linspace(0, 1, 20)
    return Finding(
        name=name,
        scale=scale,
        at_one=Recall(0.954, 0.31, 830, 394),
        at_tenth=Recall(0.9, 0.6, 830, 394),
        by_height={"8–16 px": Band(0.2, 0.15, 900), "≥ 256 px": Band(float("nan"), float("nan"), 0)},
        precision=1 - curve / 2,
        recall=curve,
        average_precision={"easy": 0.91, "medium": 0.88, "hard": 0.6},
        whole={"easy": 0.911, "medium": 0.881, "hard": 0.601},
    )


def drawn_results() -> DetectorResults:
    """Ours and the reference, at VGA and at original size."""
    names = (OURS, ONE_VIEW, REFERENCE)
    less = {
        "easy": Interval(-0.03, -0.04, -0.02),
        "medium": Interval(0, -0.01, 0.01),
        "hard": Interval(0.1, 0, 0.2),
    }
    return DetectorResults(
        [
            *(drawn_finding(name) for name in names),
            *(drawn_finding(name, ORIGINAL.name) for name in names[1:]),
        ],
        {VGA.name: less, ORIGINAL.name: less},
        near={name: {band: Band(0.75, 0.7, 40) for band in BANDS.values()} for name in names},
        points={
            name: LandmarkError(VGA.name, "YuNet, original size", 500, 520, 0.061, 0.143) for name in names
        },
        faceless={
            name: [FalseFinds("drawn", 40, 0.25, 0.025), FalseFinds("scikit-image", 14, 0.5, 0)]
            for name in names
        },
    )
