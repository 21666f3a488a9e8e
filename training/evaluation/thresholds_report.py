"""The part of the report that is about thresholds: what is promised, how sure that is, and what new people realised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bundle.calibration import Calibration, Threshold, UnsupportedRate
from training.evaluation.markdown import NOTHING, table
from training.evaluation.recognition_report import STATED_FPIR

FMRS_SHIPPED = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_LEAST, _NOTHING = (
    1e-18,
    1e-12,
)  # a bounded tail reaches zero; logarithms must not, and what is near is told as zero


def thresholds_part(calibration: Calibration, promise: Mapping[str, Any]) -> str:
    """Markdown from `## Thresholds` up to the next part. promise: what `calibration_report` found."""
    rows = []
    for fmr in FMRS_SHIPPED:
        try:
            threshold = calibration.threshold_for_fmr(fmr)
        except UnsupportedRate as error:
            rows.append([f"{fmr:g}", NOTHING, NOTHING, f"not supported (smallest {error.supported:.2g})"])
            continue
        band = _band(calibration, promise, threshold)
        told = " to ".join(f"{bound:.2g}" for bound in band) if band else NOTHING
        rests_on = "tail fit" if threshold.extrapolated else "measured"
        rows.append([f"{fmr:g}", f"{threshold.value:.4f}", told, rests_on])
    kin = zip(calibration.kin.at, calibration.kin.rates, strict=True)
    relatives = ", ".join(f"{at:g} → {rate:.2g}" for at, rate in kin)
    return (
        f"## Thresholds\n\n{table(['FMR', 'cosine', '95 %', 'rests on'], rows)}\n\n"
        f"From {calibration.people} people of `{calibration.dataset}` who were neither trained on nor selected on: "
        f"{calibration.curves[0].comparisons:,} comparisons, one per pair of people. 95 %: where the FMR at that "
        "cosine lies when people are drawn anew, the tail fitted anew each time. Pairs of labels that an "
        f"independent embedder shows to be one person, and that are left out: {len(calibration.excluded)}. "
        + _counted_in(calibration)
        + (
            f"False match rates of members of one family at those thresholds: {relatives}. "
            if relatives
            else ""
        )
        + "The promise holds for people like these."
        + _comparisons(promise)
        + _identification(promise)
    )


def _counted_in(calibration: Calibration) -> str:
    """What the pairs that are left out would change, at the smallest rate that the comparisons carry."""
    rival, without = calibration.with_excluded, calibration.curves[0].comparisons
    if not calibration.excluded or not rival.rates:
        return ""
    at, matches = rival.at[-1], round(rival.rates[-1] * rival.comparisons)
    return (
        f"Counted in, {matches:,} of {rival.comparisons:,} comparisons would match at the threshold for FMR {at:g} "
        f"instead of {int(at * without):,} of {without:,}. "
    )


def promised_lines(promise: Mapping[str, Any]) -> list[str]:
    """What a reader who reads nothing else should know of the thresholds."""
    told = [of for of in _searches(promise) if of["promised"] == STATED_FPIR]
    if not told:
        return []
    realised = [of["realised"] for of in told]
    people = f"{told[0]['persons']} to {told[-1]['persons']}" if len(told) > 1 else f"{told[0]['persons']}"
    return [
        f"thresholds: asked for FPIR {STATED_FPIR:g}, galleries of {people} people have {min(realised):.2g} to "
        f"{max(realised):.2g} when they are searched by people who were not calibrated on"
    ]


def _band(
    calibration: Calibration, promise: Mapping[str, Any], threshold: Threshold
) -> tuple[float, float] | None:
    """The bounds of F_1 at a threshold: the curve's own, or beyond it those of the tail, None where nobody drew them.

    Logarithms of rates are nearly linear in the threshold, so between two thresholds they are taken as such.
    """
    curve, tail = calibration.curves[0], promise.get("tail", ())
    if not threshold.extrapolated:
        drawn = np.array([curve.thresholds, curve.low, curve.high])
    elif tail:
        drawn = np.array([[of[key] for of in tail] for key in ("threshold", "low", "high")])
    else:
        return None
    at, *bounds = drawn
    low, high = (np.exp(np.interp(threshold.value, at, np.log(np.maximum(of, _LEAST)))) for of in bounds)
    return float(low if low > _NOTHING else 0), float(high)


def _comparisons(promise: Mapping[str, Any]) -> str:
    """Promised and realised FMR where one half of the people calibrates and the other half tests."""
    told = promise.get("held_out_fmr", ())
    if not told:
        return ""
    rows = [
        [
            f"{of['promised']:g}",
            f"{of['realised']:.3g} ± {of['spread']:.2g}",
            "yes" if of["extrapolated"] else "no",
        ]
        for of in told
    ]
    head = ["promised FMR", "realised on other people", "extrapolated"]
    return (
        f"\n\n{table(head, rows)}\n\nFitted on half of the people, tested on comparisons of the other half."
    )


def _identification(promise: Mapping[str, Any]) -> str:
    """Asked and realised FPIR, a line for each gallery size."""
    told = _searches(promise)
    if not told:
        return ""
    rates = sorted({of["promised"] for of in told}, reverse=True)
    rows = []
    for persons in dict.fromkeys(of["persons"] for of in told):
        cells = {of["promised"]: of for of in told if of["persons"] == persons}
        some = next(iter(cells.values()))
        searches = f"{some['probes']:,}"
        name = f"{persons} †" if some["gallery_in_fit"] else str(persons)
        rows.append([name, searches, *(_realised(cells.get(rate)) for rate in rates)])
    head = ["people in the gallery", "searches", *(f"asked FPIR {rate:g}" for rate in rates)]
    return (
        f"\n\n{table(head, rows)}\n\nA simulation: people are enrolled with all but one of their pictures (ten at "
        "most) and searched by others who are not kin of anybody enrolled, at the threshold for the asked FPIR; "
        "realised FPIR over all drawings of the people, in brackets 95 % by drawing the searching people anew. "
        "Thresholds are fitted on the half of the people that is neither enrolled nor searching. †: too large for "
        "a half, so fitted on everybody who does not search; only the enrolled are not new. *: rests on the tail "
        "fit. Below the asked rate is the safe side."
    )


def _realised(of: Mapping[str, Any] | None) -> str:
    if of is None:
        return "–"
    return f"{of['realised']:.2g} ({of['low']:.2g} to {of['high']:.2g}){' *' if of['extrapolated'] else ''}"


def _searches(promise: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [of for of in promise.get("held_out_fpir", ()) if of["realised"] is not None]
