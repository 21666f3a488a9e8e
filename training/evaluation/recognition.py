"""What an embedder can do, measured on validation people and on LFW, beside the reference embedder in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.identities import Faces
from training.data.pairs import Pairs
from training.evaluation.bootstrap import Interval, fnmr_intervals
from training.evaluation.verification import PairScores, all_pairs, ten_folds

FMRS = (1e-2, 1e-3)


@dataclass(frozen=True)
class Recognition:
    """One embedder's results: LFW accuracy in 0–1 with its standard error, FNMR by FMR, and the scores behind them."""

    name: str
    lfw: float
    lfw_error: float
    fnmr: dict[float, Interval]
    scores: PairScores

    def metrics(self) -> dict[str, object]:
        """As the manifest keeps it."""
        rates = {
            f"fnmr@fmr={fmr:g}": {"value": of.value, "low": of.low, "high": of.high}
            for fmr, of in self.fnmr.items()
        }
        pairs = {"mated": len(self.scores.genuine), "non_mated": len(self.scores.impostor)}
        return {
            "lfw": {"accuracy": self.lfw, "standard_error": self.lfw_error},
            "validation": {**rates, **pairs},
        }


@dataclass(frozen=True)
class Embedded:
    """One embedder's unit vectors: float32 [n, d] of the validation faces, float32 [m, d] of LFW's pictures."""

    name: str
    validation: np.ndarray
    lfw: np.ndarray


def recognition(
    embedded: Sequence[Embedded], validation: Faces, lfw: Pairs, draws: int = 300
) -> tuple[list[Recognition], dict[float, Interval]]:
    """Results of each embedder, ours first, and the ratio of our FNMR to the last one's, by FMR."""
    vectors = [of.validation for of in embedded]
    rates, ratio = fnmr_intervals(vectors, validation.identity, validation.family, FMRS, draws)
    results = []
    for of, fnmr in zip(embedded, rates, strict=True):
        accuracy, error = ten_folds(lfw.similarity(of.lfw), lfw.same, lfw.folds)
        scores = all_pairs(of.validation, validation.identity, validation.family)
        results.append(Recognition(of.name, accuracy, error, fnmr, scores))
    return results, ratio
