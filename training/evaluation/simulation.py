"""A simulation of identification: galleries of people, searched by others, at the thresholds that the service would
use.

A gallery of up to three quarters of half of the people is enrolled and searched within one half, and calibrated on
the other: nobody in it was fitted on. A larger one needs people of the fit. It is then calibrated on everybody except
those who search it, so that still no comparison that is tested was fitted on; only the enrolled people are not new
(`gallery_in_fit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundle.calibration import Calibration, Threshold, UnsupportedRate
from training.evaluation.bootstrap import Interval, drawn_people
from training.evaluation.calibration_set import CalibrationSet

GALLERIES = (10, 30, 100, 300, 800)
FPIRS = (0.1, 0.03, 0.01)
TEMPLATES_MOST = 10
HELD_OUT_MOST = 3 / 8  # of all people in a gallery of one half: a quarter of the half is left to search it
_DRAWS = 300


@dataclass(frozen=True)
class _Trial:
    """One gallery, searched: who searched, int [p] identities, and the best score of each, float [p]; thresholds by
    FPIR, None where the calibration does not reach so far."""

    who: np.ndarray
    best: np.ndarray
    thresholds: dict[float, Threshold | None]


def simulate_identification(
    faces: CalibrationSet,
    galleries: Sequence[int] = GALLERIES,
    rates: Sequence[float] = FPIRS,
    repeats: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Enrol people with all but one of their pictures (ten at most), search a picture of each of some others.

    The threshold comes from the calibration and the gallery's templates, as in the service. Kin of people who may be
    enrolled, and pairs that are one person, do not search. Answers for each gallery size and promised FPIR the realised
    one over all repeats, with 95 % by drawing the searching people anew; `spread` is the standard deviation over the
    repeats. Raises ValueError if a gallery leaves nobody to search it, TooFewPeople if nothing is left to calibrate on.
    """
    trials: dict[int, list[_Trial]] = {persons: [] for persons in galleries}
    within = HELD_OUT_MOST * len(faces.people())
    for repeat in range(repeats):
        fitted, tested = faces.halves(seed + repeat)[:: 1 if repeat % 2 else -1]
        held_out = fitted.fit(seed + repeat)
        for persons in galleries:
            pool, searching = _apart(tested if persons <= within else faces, persons, seed + repeat)
            calibration = held_out if persons <= within else pool.fit(seed + repeat)
            random = np.random.default_rng([seed, 3, repeat, persons])
            trials[persons].append(_trial(calibration, pool, searching, persons, rates, random))
    return [
        {"persons": n, "gallery_in_fit": n > within, **_realised(trials[n], rate, seed)}
        for n in galleries
        for rate in rates
    ]


def _apart(faces: CalibrationSet, persons: int, seed: int) -> tuple[CalibrationSet, CalibrationSet]:
    """Who may be enrolled, and who searches: half of the people, or fewer where the gallery needs more.

    Fixed before anybody is enrolled: were those left out who turn out to be kin of a large gallery, people of known
    families would hardly search at all.
    """
    people = len(faces.people())
    pool, searching = faces.apart(min(people // 2, people - persons), seed)
    if persons >= people or not len(searching.identity):
        raise ValueError(f"{people} people cannot fill a gallery of {persons} and search it")
    return pool, searching


def _trial(
    calibration: Calibration,
    pool: CalibrationSet,
    searching: CalibrationSet,
    persons: int,
    rates: Sequence[float],
    random: np.random.Generator,
) -> _Trial:
    rows: list[np.ndarray] = []
    templates: dict[int, int] = {}
    for person in random.permutation(pool.people())[:persons]:
        shuffled = random.permutation(np.flatnonzero(pool.identity == person))
        rows.append(shuffled[: min(max(1, len(shuffled) - 1), TEMPLATES_MOST)])
        templates[len(rows[-1])] = templates.get(len(rows[-1]), 0) + 1
    chosen = random.permutation(len(searching.identity))
    who, first = np.unique(searching.identity[chosen], return_index=True)
    best = (searching.embedding[chosen[first]] @ pool.embedding[np.concatenate(rows)].T).max(1)
    return _Trial(who, best, {rate: _threshold(calibration, rate, templates) for rate in rates})


def _threshold(calibration: Calibration, fpir: float, templates: dict[int, int]) -> Threshold | None:
    try:
        return calibration.threshold_for_fpir(fpir, templates)
    except UnsupportedRate:
        return None


def _realised(trials: Sequence[_Trial], rate: float, seed: int) -> dict[str, Any]:
    """One row of the answer, in plain values; without a realised rate where no trial's calibration reached so far."""
    tested = [(of, threshold) for of in trials if (threshold := of.thresholds[rate])]
    told = {
        "promised": rate,
        "unsupported": len(trials) - len(tested),
        "probes": sum(len(of.best) for of in trials),
        "extrapolated": any(threshold.extrapolated for _, threshold in tested),
    }
    if not tested:
        return {**told, "realised": None, "low": None, "high": None, "spread": None}
    hit = [of.best >= threshold.value for of, threshold in tested]
    people, place = np.unique(np.concatenate([of.who for of, _ in tested]), return_inverse=True)
    searches, hits = np.bincount(place), np.bincount(place, np.concatenate(hit))
    weights = drawn_people(len(people), _DRAWS, seed)
    interval = Interval.of((weights @ hits) / (weights @ searches))
    spread = float(np.std([of.mean() for of in hit]))
    return {**told, "realised": interval.value, "low": interval.low, "high": interval.high, "spread": spread}
