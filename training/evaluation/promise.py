"""Does the calibration keep its promise on people that it has not seen? Realised rates against the promised
ones.

Always fitted on one half of the people and tested on the other, members of one family on the same side: a
check on the people of the fit would only show that the fit fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.calibration import Calibration, ExcludedPair, UnsupportedRate
from training.evaluation.calibration import Models, fit_calibration, tail_bounds
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

    def halves(self, seed: int) -> tuple[CalibrationSet, CalibrationSet]:
        """Two halves of the people; families, and pairs that are one person, stay together."""
        people, label = np.unique(self.identity, return_inverse=True)
        together = related(label, self.family)
        place = {int(person): index for index, person in enumerate(people)}
        for pair in self.excluded:
            together[place[pair.first], place[pair.second]] = True
        groups = _connected(together | together.T)
        chosen = np.random.default_rng([seed, 2]).permutation(groups.max() + 1)[: (groups.max() + 1) // 2]
        side = np.isin(groups, chosen)
        return self.part(people[side]), self.part(people[~side])

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


def simulate_identification(
    faces: CalibrationSet,
    persons: int = 100,
    rates: Sequence[float] = (0.1, 0.03, 0.01),
    repeats: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Enrol `persons` people of one half with all but one of their pictures (ten at most), search the
    others' faces.

    The threshold comes from the other half's calibration and the gallery's templates; kin of enrolled
    people and pairs that are one person are not searched. Answers for each promised FPIR the realised one.
    Raises ValueError if a half has too few people for the gallery.
    """
    hits: dict[float, list[float]] = {rate: [] for rate in rates}
    extrapolated, unsupported, probes = dict.fromkeys(rates, False), dict.fromkeys(rates, 0), 0
    for repeat in range(repeats):
        halves = faces.halves(seed + repeat)
        fitted, tested = halves if repeat % 2 else halves[::-1]
        calibration = fitted.fit(seed + repeat)
        best, templates = _search(tested, persons, np.random.default_rng([seed, 3, repeat]))
        probes += len(best)
        for rate in rates:
            try:
                threshold = calibration.threshold_for_fpir(rate, templates)
            except UnsupportedRate:
                unsupported[rate] += 1
                continue
            hits[rate].append(float((best >= threshold.value).mean()))
            extrapolated[rate] |= threshold.extrapolated
    return [
        {
            "promised": rate,
            "realised": float(np.mean(hits[rate])) if hits[rate] else None,
            "spread": float(np.std(hits[rate])) if hits[rate] else None,
            "extrapolated": extrapolated[rate],
            "unsupported": unsupported[rate],
            "persons": persons,
            "probes": probes,
        }
        for rate in rates
    ]


def _search(
    faces: CalibrationSet, persons: int, random: np.random.Generator
) -> tuple[np.ndarray, dict[int, int]]:
    """The best score of one picture of everybody who is not enrolled, float [probes]; and persons by
    templates."""
    people = np.unique(faces.identity)
    if persons >= len(people):
        raise ValueError(f"{len(people)} people cannot fill a gallery of {persons} and be searched in it")
    enrolled = random.permutation(people)[:persons]
    templates: dict[int, int] = {}
    gallery = []
    for person in enrolled:
        rows = random.permutation(np.flatnonzero(faces.identity == person))
        kept = rows[: min(max(1, len(rows) - 1), 10)]
        templates[len(kept)] = templates.get(len(kept), 0) + 1
        gallery.append(kept)
    probes = _probes(faces, enrolled, random)
    if not len(probes):
        raise ValueError("nobody is left to be searched")
    return (faces.embedding[probes] @ faces.embedding[np.concatenate(gallery)].T).max(1), templates


def _probes(faces: CalibrationSet, enrolled: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """int [probes]: a drawn picture of each person who is not in the gallery, nor kin, nor one person with
    it."""
    people, label = np.unique(faces.identity, return_inverse=True)
    near = np.any(related(label, faces.family)[np.isin(people, enrolled)], axis=0)
    for pair in faces.excluded:
        ends = np.isin(people, [pair.first, pair.second])
        near |= ends & bool((near & ends).any())
    free = ~np.asarray(near)[label]
    chosen = random.permutation(np.flatnonzero(free))
    return chosen[np.unique(faces.identity[chosen], return_index=True)[1]]


def calibration_report(
    faces: CalibrationSet, calibration: Calibration, repeats: int = 10, seed: int = 0
) -> dict[str, Any]:
    """Everything that a person should see of a calibration, in plain values for the manifest's metrics and
    REPORT.md.

    A gallery of the simulation is a third of the smaller half's people.
    """
    people = min(len(np.unique(half.identity)) for half in faces.halves(seed))
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
        "held_out_fpir": simulate_identification(faces, max(1, people // 3), repeats=2 * repeats, seed=seed),
    }
