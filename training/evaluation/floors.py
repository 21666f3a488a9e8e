"""The floors a bundle must reach to be published: a typed policy, and a verdict a program can read.

A floor that cannot be assessed is a floor that failed; one that does not apply is infinite in the policy, whether it is
a least or a most, and then there is no verdict.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from training.config import RunConfig


def _share(value: float) -> float:
    if not (0 <= value <= 1 or math.isinf(value)):
        raise ValueError("a share of 0 to 1 is expected, or inf, which switches the floor off")
    return value


def _difference(value: float) -> float:
    if not (-1 <= value <= 1 or math.isinf(value)):
        raise ValueError("a difference of -1 to 1 is expected, or inf, which switches the floor off")
    return value


Least = Annotated[float, AfterValidator(_share)]
LeastDifference = Annotated[float, AfterValidator(_difference)]


class Floors(RunConfig, allow_inf_nan=True):
    """LFW accuracy, our FNMR over the reference embedder's at FMR 1e-3 on validation, recall at one false positive, and
    WIDER's AP less the reference detector's at VGA, of easy, medium and hard the smallest. `inf` switches a floor
    off."""

    lfw_least: Least = 0.98  # infinite: there are no verification pairs
    fnmr_ratio_most: float = Field(1.25, gt=0)  # infinite: no reference stands beside
    recall_least: Least = 0.90
    ap_over_yunet_least: LeastDifference = 0.0  # infinite: no reference stands beside, or no WIDER lists


@dataclass(frozen=True)
class Verdict:
    """One floor: what was asked, what was measured (None: could not be), and whether it holds."""

    floor: str
    asked: float
    measured: float | None
    holds: bool

    def __str__(self) -> str:
        got = "not assessed" if self.measured is None else f"{self.measured:.4g}"
        return f"{self.floor}: {got}, floor {self.asked:g}: {'holds' if self.holds else 'FAILS'}"


def judged(
    floors: Floors,
    lfw: float | None,
    fnmr_ratio: float | None,
    recall: float,
    ap_over_yunet: float | None = None,
) -> list[Verdict]:
    """Every floor of the policy that applies, with its verdict. None: not measured."""
    less = "smallest difference of AP to YuNet's at VGA with one view, at least"
    ratio = "FNMR at FMR 1e-3 over the reference embedder's, at most"
    asked = (
        ("LFW accuracy, at least", floors.lfw_least, lfw, operator.ge),
        ("recall at 1 false positive a picture, at least", floors.recall_least, recall, operator.ge),
        (ratio, floors.fnmr_ratio_most, fnmr_ratio, operator.le),
        (less, floors.ap_over_yunet_least, ap_over_yunet, operator.ge),
    )
    return [
        Verdict(floor, limit, measured, measured is not None and reaches(measured, limit))
        for floor, limit, measured, reaches in asked
        if math.isfinite(limit)
    ]
