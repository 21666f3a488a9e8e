"""From embeddings of the calibration split to the curves the service's thresholds come from.

The people here must be neither trained on nor selected on nor LFW. Kin and pairs that turned out to be one
person are in no curve, but counted and reported; every bound comes from resampling people, because scores
that share a person are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bundle.calibration import Calibration, Curve, ExcludedPair, Rival, Tail
from training.evaluation.comparisons import TEMPLATES, Comparisons, draw_comparisons
from training.evaluation.pareto import fit_pareto

CARRIED = 10  # false matches that a measured rate rests on; fewer is a guess
TAIL_SHARE, TAIL_LEAST, TAIL_MOST_SHARE = 0.002, 100, 0.2  # of the comparisons, in the tail's fit
POINTS = 72  # of a curve
PEOPLE_LEAST = 8  # with k templates, for a curve of that k
COMPARISONS_LEAST = 20 * CARRIED
REPORTED = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


class TooFewPeople(Exception):
    """The set cannot carry a calibration."""


@dataclass(frozen=True)
class Models:
    """sha256 of the detector that found the faces and of the canonical embedder."""

    detector: str
    embedder: str


def fit_calibration(
    embedding: np.ndarray,
    identity: np.ndarray,
    family: np.ndarray,
    *,
    dataset: str,
    models: Models,
    excluded: Sequence[ExcludedPair] = (),
    seed: int = 0,
    bootstraps: int = 200,
) -> Calibration:
    """embedding: float32 [n, d] unit vectors; identity: int [n]; family: str [n], empty where unknown.

    Raises TooFewPeople below about 20 people, ValueError for arrays that do not fit together.
    """
    named = [(pair.first, pair.second) for pair in excluded]
    drawn = draw_comparisons(embedding, identity, family, named, seed)
    return Calibration(
        dataset=dataset,
        detector=models.detector,
        embedder=models.embedder,
        people=len(drawn.identity),
        pictures=len(embedding),
        seed=seed,
        curves=fit_curves(drawn, bootstraps, seed),
        excluded=tuple(excluded),
        with_excluded=_rival(drawn, drawn.clean() | drawn.excluded),
        kin=_rival(drawn, drawn.kin & ~drawn.excluded),
        bootstraps=bootstraps,
    )


def fit_curves(drawn: Comparisons, bootstraps: int, seed: int) -> tuple[Curve, ...]:
    """One curve for each k that enough people serve. Raises TooFewPeople if not even k = 1 is."""
    weights = _resampled(len(drawn.identity), bootstraps, seed)
    curves = []
    for index, k in enumerate(TEMPLATES):
        scores, probe, gallery = drawn.scores(index, drawn.clean())
        people = len(np.unique(gallery))
        if people >= PEOPLE_LEAST and len(scores) >= COMPARISONS_LEAST:
            pairs = (weight[probe] * weight[gallery] for weight in weights)  # one at a time: they are large
            curves.append(_curve(k, people, scores, pairs))
    if not curves or curves[0].templates != 1:
        raise TooFewPeople(f"{len(drawn.identity)} people give too few comparisons for a calibration")
    return tuple(curves)


def _resampled(people: int, bootstraps: int, seed: int) -> np.ndarray:
    """float32 [bootstraps, people]: how often each person was drawn, with replacement."""
    random = np.random.default_rng([seed, 1])
    if not bootstraps:
        return np.ones((1, people), np.float32)
    drawn = random.integers(0, people, (bootstraps, people))
    return np.stack([np.bincount(row, minlength=people) for row in drawn]).astype(np.float32)


def _curve(k: int, people: int, scores: np.ndarray, weights: Iterable[np.ndarray]) -> Curve:
    thresholds, rates = _points(np.sort(scores)[::-1])
    low, high = _bounds(scores, weights, thresholds, rates)
    return Curve(
        templates=k,
        comparisons=len(scores),
        people=people,
        thresholds=tuple(thresholds.tolist()),
        rates=tuple(rates.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        tail=fit_tail(scores, float(thresholds[-1]), float(rates[-1])),
    )


def _points(falling: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds at which the share of scores at or above falls, in even steps of its logarithm, to the
    floor."""
    counts = np.unique(np.geomspace(len(falling) - 1, CARRIED, POINTS).round().astype(int))[::-1]
    thresholds = np.unique(
        np.floor(falling[counts - 1] * 1e6) / 1e6
    )  # down, so as not to lose the score itself
    rates = np.searchsorted(-falling, -thresholds + 1e-12, side="right") / len(falling)
    keep = np.concatenate([[True], np.diff(rates) < 0]) & (thresholds > -1) & (rates < 1)
    return np.concatenate([[-1], thresholds[keep]]), np.concatenate([[1], rates[keep]])


def _bounds(
    scores: np.ndarray, weights: Iterable[np.ndarray], thresholds: np.ndarray, rates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """95 % of the bootstrapped rates at each threshold, widened to hold the rate itself."""
    bins = np.searchsorted(thresholds, scores, side="right") - 1
    shares = []
    for weight in weights:
        held = np.bincount(bins, weights=weight, minlength=len(thresholds))
        shares.append(held[::-1].cumsum()[::-1] / held.sum())
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    return np.minimum(low, rates).clip(0, 1), np.maximum(high, rates).clip(0, 1)


def fit_tail(scores: np.ndarray, start: float, rate: float) -> Tail:
    """The tail beyond `start`, where the share of scores has fallen to `rate`.

    Fitted on more scores than lie beyond `start`: a Pareto tail above a lower threshold is one above every
    higher one, with scale + shape · (distance).
    """
    used = int(np.clip(TAIL_SHARE * len(scores), TAIL_LEAST, TAIL_MOST_SHARE * len(scores)))
    highest = np.partition(scores, len(scores) - used - 1)[len(scores) - used - 1 :]
    above = float(highest[0])
    shape, scale = fit_pareto(highest[1:] - above) if highest[-1] > above else (0.0, 1e-6)
    moved = scale + shape * (start - above)
    if moved <= 0:  # `start` lies beyond the fitted end: keep the spread, give up the bound
        shape, moved = 0.0, max(float(np.mean(scores[scores >= start] - start)), 1e-6)
    return Tail(start=start, rate=rate, shape=shape, scale=moved, excesses=used, fitted_above=above)


def tail_bounds(
    drawn: Comparisons, calibration: Calibration, bootstraps: int = 200, seed: int = 0
) -> list[dict[str, float]]:
    """95 % of the bootstrapped F_1, tail refitted each time, at thresholds where the tail promises less and
    less.

    People are resampled. Answers [{threshold, rate, low, high}, …] from the floor to a hundredth of it.
    """
    scores, probe, gallery = drawn.scores(0, drawn.clean())
    tail = calibration.curves[0].tail
    asked = [calibration.floor * part for part in (1, 0.3, 0.1, 0.03, 0.0101)]
    thresholds = [calibration.threshold_for_fmr(rate).value for rate in asked]
    within = scores > tail.fitted_above
    refits = []
    for weight in _resampled(len(drawn.identity), bootstraps, seed):
        pairs = weight[probe] * weight[gallery]
        above = float(pairs[within].sum() / pairs.sum())
        shape, scale = fit_pareto(scores[within] - tail.fitted_above, pairs[within])
        refit = Tail(
            start=tail.fitted_above,
            rate=above,
            shape=shape,
            scale=scale,
            excesses=1,
            fitted_above=tail.fitted_above,
        )
        refits.append([np.exp(refit.log_rate(threshold)) for threshold in thresholds])
    low, high = np.quantile(refits, [0.025, 0.975], axis=0)
    return [
        {"threshold": threshold, "rate": rate, "low": float(a), "high": float(b)}
        for threshold, rate, a, b in zip(thresholds, asked, low, high, strict=True)
    ]


def _rival(drawn: Comparisons, pairs: np.ndarray) -> Rival:
    """How often `pairs` match falsely at the thresholds of the curve's REPORTED rates."""
    reference = np.sort(drawn.scores(0, drawn.clean())[0])[::-1]
    scores = drawn.scores(0, pairs)[0]
    at = [rate for rate in REPORTED if rate * len(reference) >= CARRIED]
    if not len(scores):
        return Rival(comparisons=0)
    rates = [float((scores >= reference[int(rate * len(reference)) - 1]).mean()) for rate in at]
    return Rival(comparisons=len(scores), at=tuple(at), rates=tuple(rates))
