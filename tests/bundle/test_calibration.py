"""Thresholds keep their promise's shape: monotone in every direction, inverses of each other, refused beyond reach."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from bundle.calibration import REACH, Calibration, Rate, Threshold, UnsupportedRate
from tests.bundle.small_manifest import calibration, curve

STEP = 1e-12  # the bisection's, with room


def made(**changes: Any) -> Calibration:
    return Calibration.model_validate_json(json.dumps(calibration(**changes)))


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    """Curves that cross each other and the union bound, with tails of either sign, as noise can make them."""
    curves = []
    for k in (1, 2, 3, 5, 10):
        if k > 1 and draw(st.booleans()):
            continue
        points = draw(st.integers(3, 12))
        falls = draw(st.lists(st.floats(0.1, 1.5), min_size=points, max_size=points))
        steps = draw(st.lists(st.floats(0.01, 0.08), min_size=points, max_size=points))
        thresholds = [-1.0, *(draw(st.floats(-0.4, 0.1)) + np.cumsum(steps)).tolist()]
        rates = [1.0, *np.exp(-np.cumsum(falls)).tolist()]
        assume(thresholds[-1] < 0.9)
        tail = {
            "start": thresholds[-1],
            "rate": rates[-1],
            "shape": draw(st.floats(-0.5, 0.5)),
            "scale": draw(st.floats(0.01, 0.08)),
            "excesses": 100,
            "fitted_above": thresholds[-2],
        }
        plain = {"templates": k, "thresholds": thresholds, "rates": rates, "low": rates, "high": rates}
        curves.append({**curve(), **plain, "tail": tail})
    return made(curves=curves)


cosines = st.floats(-1, 1)
templates = st.dictionaries(st.integers(1, 40), st.integers(0, 2000), min_size=1, max_size=5).filter(
    lambda of: any(of.values())
)
rates = st.floats(1e-9, 1).filter(lambda rate: rate > 0)


def fpir_or_none(of: Calibration, fpir: float, persons: dict[int, int]) -> float | None:
    try:
        return of.threshold_for_fpir(fpir, persons).value
    except UnsupportedRate:
        return None


@given(calibrations(), cosines, cosines, st.integers(1, 40))
def test_a_rate_never_rises_with_the_threshold(of: Calibration, one: float, other: float, k: int) -> None:
    low, high = sorted((one, other))
    assert of.false_match_rate(low, k).value >= of.false_match_rate(high, k).value * (1 - 1e-12)


@given(calibrations(), cosines, st.integers(1, 40))
def test_a_rate_never_falls_with_templates_and_never_exceeds_k_times_the_single_one(
    of: Calibration, threshold: float, k: int
) -> None:
    single, here, more = (of.false_match_rate(threshold, of_k).value for of_k in (1, k, k + 1))
    assert here <= more * (1 + 1e-12)
    assert here <= k * single * (1 + 1e-12)
    assert 0 < here <= 1


@given(calibrations(), rates)
def test_the_rate_at_the_threshold_for_a_rate_is_that_rate(of: Calibration, fmr: float) -> None:
    if fmr < of.floor / REACH * 1.001 or fmr < of.false_match_rate(1).value:
        return  # refused: another test's business
    threshold = of.threshold_for_fmr(fmr)
    rate = of.false_match_rate(threshold.value)
    assert rate.value <= fmr * (1 + 1e-12)
    assert rate.value == pytest.approx(fmr, rel=1e-6)
    assert rate.extrapolated == threshold.extrapolated == (not of.curves[0].carries(rate.value))


@given(calibrations(), rates, templates)
def test_the_threshold_is_the_smallest_that_keeps_the_fpir(
    of: Calibration, fpir: float, persons: dict[int, int]
) -> None:
    supported = of.fpir_at(1, persons).value
    if fpir < supported:
        with pytest.raises(UnsupportedRate) as refused:
            of.threshold_for_fpir(fpir, persons)
        assert (refused.value.asked, refused.value.supported) == (fpir, supported)
        return
    threshold = of.threshold_for_fpir(fpir, persons)
    assert product(of, threshold.value, persons) <= fpir * (1 + 1e-9)
    assert of.fpir_at(threshold.value, persons).value <= fpir * (1 + 1e-9)
    if threshold.value > -1:
        assert product(of, threshold.value - 2 * STEP, persons) > fpir * (1 - 1e-9)


def product(of: Calibration, threshold: float, persons: dict[int, int]) -> float:
    """1 − Π (1 − F_k)^n, as it is written."""
    spared = math.prod((1 - of.false_match_rate(threshold, k).value) ** n for k, n in persons.items() if n)
    return (
        1 - spared
        if spared < 0.9
        else -math.expm1(
            sum(n * math.log1p(-of.false_match_rate(threshold, k).value) for k, n in persons.items() if n)
        )
    )


@given(calibrations(), rates, rates, templates)
def test_a_smaller_fpir_never_lowers_the_threshold(
    of: Calibration, one: float, other: float, persons: dict[int, int]
) -> None:
    strict, lax = sorted((one, other))
    above, below = fpir_or_none(of, strict, persons), fpir_or_none(of, lax, persons)
    assert above is None or (below is not None and above >= below)


@given(calibrations(), rates, templates, st.integers(1, 40), st.integers(1, 500))
def test_more_people_never_lower_the_threshold(
    of: Calibration, fpir: float, persons: dict[int, int], k: int, more: int
) -> None:
    larger = {**persons, k: persons.get(k, 0) + more}
    above, below = fpir_or_none(of, fpir, larger), fpir_or_none(of, fpir, persons)
    assert above is None or (below is not None and above >= below - STEP)


@given(calibrations(), rates, st.integers(1, 500), st.integers(1, 39), st.integers(1, 20))
def test_more_templates_never_lower_the_threshold(
    of: Calibration, fpir: float, persons: int, k: int, more: int
) -> None:
    above, below = fpir_or_none(of, fpir, {k + more: persons}), fpir_or_none(of, fpir, {k: persons})
    assert above is None or (below is not None and above >= below - STEP)


@given(calibrations(), rates)
def test_a_gallery_of_one_person_with_one_template_is_a_verification(of: Calibration, rate: float) -> None:
    try:
        alone = of.threshold_for_fpir(rate, {1: 1})
    except UnsupportedRate:
        with pytest.raises(UnsupportedRate):
            of.threshold_for_fmr(rate * (1 - 1e-9))
        return
    assert alone.value == pytest.approx(of.threshold_for_fmr(min(1, rate * (1 + 1e-9))).value, abs=1e-6)


def test_known_curves_give_known_thresholds() -> None:
    of = made()
    # rates are e^(−20 (t + 0.2)): 1e-2 at t = ln(100) / 20 − 0.2
    assert of.threshold_for_fmr(1e-2).value == pytest.approx(math.log(100) / 20 - 0.2, abs=1e-6)
    # 100 people with one template: 1 − (1 − F)^100 = 0.05
    wanted = 1 - 0.95 ** (1 / 100)
    threshold = of.threshold_for_fpir(0.05, {1: 100})
    assert of.false_match_rate(threshold.value).value == pytest.approx(wanted, rel=1e-6)
    # the tail goes on at the same pace: exponential, scale 0.05
    last = of.curves[0].thresholds[-1]
    beyond = of.false_match_rate(last + 0.05)
    assert beyond == Rate(pytest.approx(of.floor / math.e, rel=1e-6), True)


def test_far_beyond_what_is_measured_is_refused_and_the_limit_itself_is_not() -> None:
    of = made()
    limit = of.floor / REACH
    assert of.threshold_for_fmr(limit * 1.000001).extrapolated
    with pytest.raises(UnsupportedRate) as refused:
        of.threshold_for_fmr(limit * 0.99)
    assert refused.value.supported == pytest.approx(limit, rel=1e-6)
    with pytest.raises(UnsupportedRate) as refused:
        of.threshold_for_fpir(1e-5, {1: 1000})
    assert refused.value.supported == pytest.approx(1 - (1 - limit) ** 1000, rel=1e-6)


def test_a_reported_rate_never_claims_more_than_is_supported() -> None:
    of = made()
    assert of.false_match_rate(1.0) == Rate(of.floor / REACH, True)
    assert of.fpir_at(1.0, {1: 1000}).value == pytest.approx(1 - (1 - of.floor / REACH) ** 1000, rel=1e-6)


def test_measured_is_not_extrapolated() -> None:
    of = made()
    assert not of.threshold_for_fmr(of.floor).extrapolated
    assert of.threshold_for_fmr(of.floor * 0.999).extrapolated
    assert of.threshold_for_fmr(1.0) == Threshold(-1.0, False)


def test_an_empty_gallery_hits_nobody_and_has_no_threshold() -> None:
    assert made().fpir_at(0.1, {}) == made().fpir_at(0.1, {3: 0}) == Rate(0.0, False)
    with pytest.raises(ValueError, match="persons"):
        made().threshold_for_fpir(0.01, {})


@pytest.mark.parametrize("rate", [0, -1, 1.1, math.nan, math.inf])
def test_what_is_no_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        made().threshold_for_fmr(rate)
    with pytest.raises(ValueError, match="rate"):
        made().threshold_for_fpir(rate, {1: 1})


@pytest.mark.parametrize("persons", [{0: 1}, {-1: 1}, {1: -1}])
def test_what_is_no_gallery_is_refused(persons: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="persons"):
        made().threshold_for_fpir(0.1, persons)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"thresholds": [-1.0, 0.1, 0.1]}, "must rise"),
        ({"rates": [1.0, 0.1, 0.2]}, "rates fall"),
        ({"rates": [0.9, 0.1, 0.01]}, "begins at"),
        ({"thresholds": [-0.5, 0.1, 0.2]}, "begins at"),
        ({"rates": [1.0, 0.1, 0.0]}, "greater than 0"),
        ({"low": [1.0, 0.2, 0.01], "high": [1.0, 0.1, 0.1]}, "bound"),
        ({"low": [1.0]}, "one length"),
        ({"templates": 0}, "greater than or equal to 1"),
        ({"tail": {**curve()["tail"], "start": 0.15, "rate": 0.01}}, "tail must begin"),
        ({"tail": {**curve()["tail"], "scale": 0.0}}, "greater than 0"),
    ],
)
def test_a_curve_that_contradicts_itself_is_refused(change: dict[str, Any], complaint: str) -> None:
    short = {
        **curve(),
        **{"thresholds": [-1.0, 0.1, 0.2], "rates": [1.0, 0.1, 0.01]},
        **{"low": [1.0, 0.1, 0.01], "high": [1.0, 0.1, 0.01]},
        "tail": {**curve()["tail"], "start": 0.2, "rate": 0.01},
    }
    assert made(curves=[short]).floor == 0.01
    with pytest.raises(ValidationError, match=complaint):
        made(curves=[{**short, **change}])


@pytest.mark.parametrize("ks", [[2], [1, 1], [1, 5, 2], []])
def test_curves_begin_with_one_template_and_rise(ks: list[int]) -> None:
    with pytest.raises(ValidationError):
        made(curves=[curve(k) for k in ks])
