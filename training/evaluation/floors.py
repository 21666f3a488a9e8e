"""The floors a bundle must reach to be published: a typed policy, and a verdict a program can read.

A floor that cannot be assessed is a floor that failed; one that does not apply is infinite in the policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from training.config import RunConfig


class Floors(RunConfig):
    """LFW accuracy, our FNMR over the reference embedder's at FMR 1e-3 on validation, recall at one false positive."""

    lfw_least: float = Field(0.98, ge=0, le=1)
    fnmr_ratio_most: float = Field(
        1.25, gt=0
    )  # infinite: no reference stands beside, the floor does not apply
    recall_least: float = Field(0.90, ge=0, le=1)


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


def judged(floors: Floors, lfw: float, fnmr_ratio: float | None, recall: float) -> list[Verdict]:
    """Every floor of the policy with its verdict."""
    verdicts = [
        Verdict("LFW accuracy, at least", floors.lfw_least, lfw, lfw >= floors.lfw_least),
        Verdict(
            "recall at 1 false positive a picture, at least",
            floors.recall_least,
            recall,
            recall >= floors.recall_least,
        ),
    ]
    if math.isfinite(floors.fnmr_ratio_most):
        holds = fnmr_ratio is not None and fnmr_ratio <= floors.fnmr_ratio_most
        name = "FNMR at FMR 1e-3 over the reference embedder's, at most"
        verdicts.append(Verdict(name, floors.fnmr_ratio_most, fnmr_ratio, holds))
    return verdicts
