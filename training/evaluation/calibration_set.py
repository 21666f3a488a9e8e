"""The faces that a calibration is fitted or checked on, and how their people are parted without parting kin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bundle.calibration import Calibration, ExcludedPair
from training.evaluation.calibration import Models, fit_calibration
from training.evaluation.comparisons import Comparisons, draw_comparisons
from training.evaluation.verification import related

_NO_MODELS = Models("0" * 64, "0" * 64)  # a calibration of a check is never published


@dataclass(frozen=True)
class CalibrationSet:
    """Faces of people for the fit or for a check.

    embedding: float32 [n, d] unit vectors; identity: int [n]; family: str [n], empty where unknown;
    excluded: pairs of identities that are one person.
    """

    embedding: np.ndarray
    identity: np.ndarray
    family: np.ndarray
    excluded: Sequence[ExcludedPair] = ()

    def part(self, chosen: np.ndarray) -> CalibrationSet:
        """The faces of the identities in `chosen`."""
        rows = np.isin(self.identity, chosen)
        there = set(self.identity[rows].tolist())
        excluded = [pair for pair in self.excluded if pair.first in there and pair.second in there]
        return CalibrationSet(self.embedding[rows], self.identity[rows], self.family[rows], excluded)

    def people(self) -> np.ndarray:
        """int [people]: the identities, each once."""
        return np.unique(self.identity)

    def halves(self, seed: int) -> tuple[CalibrationSet, CalibrationSet]:
        """Two halves of the people; families, and pairs that are one person, stay together."""
        people, groups = self.people(), self._groups()
        chosen = np.random.default_rng([seed, 2]).permutation(groups.max() + 1)[: (groups.max() + 1) // 2]
        side = np.isin(groups, chosen)
        return self.part(people[side]), self.part(people[~side])

    def apart(self, most: int, seed: int) -> tuple[CalibrationSet, CalibrationSet]:
        """Everybody else, and `most` people at most; families, and pairs that are one person, stay together."""
        people, groups = self.people(), self._groups()
        sizes = np.bincount(groups)
        side = np.zeros(len(people), bool)
        for group in np.random.default_rng([seed, 4]).permutation(len(sizes)):
            if side.sum() + sizes[group] <= most:
                side |= groups == group
        return self.part(people[~side]), self.part(people[side])

    def _groups(self) -> np.ndarray:
        """int [people], 0 … groups − 1: who stays together."""
        people, label = np.unique(self.identity, return_inverse=True)
        together = related(label, self.family)
        place = {int(person): index for index, person in enumerate(people)}
        for pair in self.excluded:
            together[place[pair.first], place[pair.second]] = True
        return _connected(together | together.T)

    def draw(self, seed: int) -> Comparisons:
        named = [(pair.first, pair.second) for pair in self.excluded]
        return draw_comparisons(self.embedding, self.identity, self.family, named, seed)

    def fit(self, seed: int) -> Calibration:
        """A calibration for a check: without bounds, of no model."""
        return fit_calibration(
            self.embedding,
            self.identity,
            self.family,
            dataset="half",
            models=_NO_MODELS,
            excluded=self.excluded,
            seed=seed,
            bootstraps=0,
        )


def _connected(together: np.ndarray) -> np.ndarray:
    """int [people], 0 … groups − 1: who hangs together through any chain of pairs. together: bool,
    symmetric."""
    group = np.arange(len(together))
    while True:  # everyone takes the least number among those beside him, until nothing changes
        least = np.where(together, group[None, :], len(group)).min(1)
        if (least == group).all():
            return np.asarray(np.unique(group, return_inverse=True)[1])
        group = least
