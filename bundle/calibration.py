"""Cosine similarity ↔ false match rate: how the service turns a promised error rate into a threshold.

F_k(t) is the probability that the best of k templates of somebody else scores at least t. Whatever is
changed here, F_k(t) must never rise with t nor fall with k, and never exceed k · F_1(t): thresholds rest
on it. Fitting lives in training; here is only the closed form.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rates = tuple[Annotated[float, Field(gt=0, le=1)], ...]

REACH = 100  # how far below the measured floor the tail may be asked
_SMALLEST = 1e-18  # a bounded tail reaches zero; logarithms must not
_BISECTIONS = 44  # 2 / 2^44 is far below the distance of two float32 similarities


class UnsupportedRate(Exception):
    """A rate was asked for that lies too far beyond what was measured. `supported` is the smallest that is
    not."""

    def __init__(self, asked: float, supported: float) -> None:
        super().__init__(f"a rate of {asked:g} is not supported, the smallest is {supported:.3g}")
        self.asked = asked
        self.supported = supported


@dataclass(frozen=True, slots=True)
class Rate:
    """`value` in 0–1; never below what the calibration supports. `extrapolated`: a tail fit, not a
    measurement."""

    value: float
    extrapolated: bool


@dataclass(frozen=True, slots=True)
class Threshold:
    """A cosine similarity: scores at or above it match."""

    value: float
    extrapolated: bool


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Tail(_Strict):
    """Generalised Pareto tail: P(s ≥ t) = rate · (1 + shape · (t − start) / scale)^(−1/shape) for t ≥
    start."""

    start: Cosine
    rate: float = Field(gt=0, le=1)
    shape: float
    scale: float = Field(gt=0)
    excesses: int = Field(ge=1)  # scores that the fit rests on, above `fitted_above`
    fitted_above: Cosine

    def log_rate(self, threshold: float) -> float:
        """log P(s ≥ threshold) for a threshold at or above `start`; −inf beyond a bounded tail's end."""
        along = (threshold - self.start) / self.scale
        if abs(self.shape) < 1e-9:
            return math.log(self.rate) - along
        inside = self.shape * along
        return math.log(self.rate) - math.log1p(inside) / self.shape if inside > -1 else -math.inf


class Curve(_Strict):
    """One F_k as measured: `rates[i]` is the share of comparisons at or above `thresholds[i]`, with 95 %
    bounds.

    Between the points log F is linear; above the last one, whose rate is the floor, the tail holds.
    """

    templates: int = Field(ge=1)  # k
    comparisons: int = Field(ge=1)
    people: int = Field(ge=2)  # whose k templates were compared against
    thresholds: tuple[Cosine, ...] = Field(min_length=2)
    rates: Rates
    low: tuple[Share, ...]
    high: tuple[Share, ...]
    tail: Tail

    @model_validator(mode="after")
    def _consistent(self) -> Curve:
        length = {len(self.thresholds), len(self.rates), len(self.low), len(self.high)}
        if len(length) != 1:
            raise ValueError("thresholds, rates and bounds must have one length")
        if self.thresholds[0] != -1 or self.rates[0] != 1:
            raise ValueError("a curve begins at threshold −1 with rate 1")
        if any(next <= last for last, next in pairwise(self.thresholds)) or any(
            next >= last for last, next in pairwise(self.rates)
        ):
            raise ValueError("thresholds must rise and rates fall")
        if self.tail.start != self.thresholds[-1] or self.tail.rate != self.rates[-1]:
            raise ValueError("the tail must begin at the last point")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("a lower bound lies above the upper one")
        return self

    @property
    def floor(self) -> float:
        """The smallest rate that the comparisons carry."""
        return self.rates[-1]

    def carries(self, rate: float) -> bool:
        """Whether a rate was measured; a rounding below the floor still was."""
        return rate >= self.floor * (1 - 1e-9)

    def rate(self, threshold: float) -> float:
        """F_k(threshold), at least 1e-18."""
        if threshold >= self.thresholds[-1]:
            logarithm = self.tail.log_rate(threshold)
        else:
            right = bisect_right(self.thresholds, threshold)
            if right == 0:
                return 1.0
            (start, end), (high, low) = (
                self.thresholds[right - 1 : right + 1],
                self.rates[right - 1 : right + 1],
            )
            logarithm = math.log(high) + math.log(low / high) * (threshold - start) / (end - start)
        return max(math.exp(logarithm), _SMALLEST)


class ExcludedPair(_Strict):
    """Two labels of the calibration set that turned out to be one person."""

    first: int
    second: int
    reason: str


class Rival(_Strict):
    """False match rates of some group, at the thresholds where the whole set has `rates`."""

    comparisons: int = Field(ge=0)
    at: tuple[float, ...] = ()  # F_1 of the whole set
    rates: tuple[Share, ...] = ()  # of this group


class Calibration(_Strict):
    """The curves, and on what they rest. Belongs to one detector and one embedder together."""

    dataset: str
    detector: Digest
    embedder: Digest
    people: int = Field(ge=2)
    pictures: int = Field(ge=2)
    seed: int
    curves: tuple[Curve, ...] = Field(min_length=1)
    excluded: tuple[ExcludedPair, ...] = ()
    with_excluded: Rival = Rival(comparisons=0)  # the same set, the excluded pairs left in
    kin: Rival = Rival(comparisons=0)  # comparisons between members of one family, in no curve
    bootstraps: int = Field(ge=0)

    @model_validator(mode="after")
    def _curves_rise(self) -> Calibration:
        measured = [curve.templates for curve in self.curves]
        if measured[0] != 1 or sorted(set(measured)) != measured:
            raise ValueError("curves must begin with k = 1 and k must rise")
        return self

    @property
    def floor(self) -> float:
        """The smallest false match rate of one comparison that the measured pairs carry."""
        return self.curves[0].floor

    def false_match_rate(self, threshold: float, k: int = 1) -> Rate:
        """F_k(threshold). Below the supported rates: the smallest supported one, as an upper bound."""
        rate, extrapolated = self._rate(threshold, k)
        return Rate(max(rate, self.floor / REACH), extrapolated)

    def threshold_for_fmr(self, fmr: float) -> Threshold:
        """The smallest threshold with F_1 ≤ fmr. Raises UnsupportedRate, ValueError unless 0 < fmr ≤ 1."""
        return self._solve(fmr, lambda threshold: self._rate(threshold, 1))

    def threshold_for_fpir(self, fpir: float, templates: Mapping[int, int]) -> Threshold:
        """The smallest t with 1 − Π (1 − F_k(t))^n ≤ fpir, for n = templates[k] persons with k templates
        each.

        Raises UnsupportedRate; ValueError unless 0 < fpir ≤ 1 and somebody is in the gallery.
        """
        return self._solve(fpir, self._gallery(templates))

    def fpir_at(self, threshold: float, templates: Mapping[int, int]) -> Rate:
        """The false positive identification rate of one searched face at `threshold`; 0 for an empty
        gallery."""
        if not any(templates.values()):
            return Rate(0.0, False)
        of = self._gallery(templates)
        value, extrapolated = of(threshold)
        return Rate(max(value, of(self._last_supported())[0]), extrapolated)

    def _gallery(self, templates: Mapping[int, int]) -> Callable[[float], tuple[float, bool]]:
        persons = {k: n for k, n in templates.items() if n}
        if not persons or min(persons) < 1 or min(persons.values()) < 0:
            raise ValueError(f"expected persons by number of templates, got {dict(templates)}")

        def fpir(threshold: float) -> tuple[float, bool]:
            measured = self._measured(threshold)
            spared, extrapolated = 0.0, False  # log of the chance that nobody is hit
            for k, n in persons.items():
                rate, beyond = _between(measured, k)
                spared += n * math.log1p(-rate) if rate < 1 else -math.inf
                extrapolated = extrapolated or beyond
            return -math.expm1(spared), extrapolated

        return fpir

    def _solve(self, asked: float, rate_at: Callable[[float], tuple[float, bool]]) -> Threshold:
        if not 0 < asked <= 1:
            raise ValueError(f"a rate must lie in 0 < rate ≤ 1, got {asked}")
        low, high = -1.0, self._last_supported()
        supported = rate_at(high)[0]
        if asked < supported:
            raise UnsupportedRate(asked, supported)
        if rate_at(low)[0] <= asked:
            return Threshold(low, False)
        for _ in range(_BISECTIONS):  # rate_at(low) > asked ≥ rate_at(high) throughout
            middle = (low + high) / 2
            if rate_at(middle)[0] <= asked:
                high = middle
            else:
                low = middle
        return Threshold(high, rate_at(high)[1])

    def _last_supported(self) -> float:
        """The threshold at which F_1 has fallen to the smallest supported rate (or 1, the largest cosine)."""
        tail = self.curves[0].tail
        if abs(tail.shape) < 1e-9:
            return min(1.0, tail.start + tail.scale * math.log(REACH))
        return min(1.0, tail.start + tail.scale * math.expm1(tail.shape * math.log(REACH)) / tail.shape)

    def _rate(self, threshold: float, k: int) -> tuple[float, bool]:
        if k < 1:
            raise ValueError(f"a person has at least one template, got {k}")
        return _between(self._measured(threshold), k)

    def _measured(self, threshold: float) -> list[tuple[int, float, bool]]:
        """(k, F_k, whether a tail had a part in it) of every curve.

        Curves of larger k rest on fewer, other people: order and union bound are imposed, not measured.
        """
        single = below = self.curves[0].rate(threshold)
        beyond = not self.curves[0].carries(single)
        found = [(1, single, beyond)]
        for curve in self.curves[1:]:
            own = curve.rate(threshold)
            below = min(max(own, below), curve.templates * single, 1.0)
            beyond = beyond or not curve.carries(own)
            found.append((curve.templates, below, beyond))
        return found


def _between(measured: list[tuple[int, float, bool]], k: int) -> tuple[float, bool]:
    """F_k: between two measured k log F is linear in log k; above the last K it is F_K · k / K, by the
    union bound."""
    if k == 1:
        return measured[0][1:]
    for (place, below, _), (next_place, above, beyond) in pairwise(measured):
        if k <= next_place:
            weight = math.log(k / place) / math.log(next_place / place)
            return below * (above / below) ** weight, beyond
    last, rate, beyond = measured[-1]
    return min(rate * k / last, 1.0), beyond
