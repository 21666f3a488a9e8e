"""From a promised rate to a threshold, and what is said about it (DESIGN: the decision)."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.calibration import Calibration
from bundle.folder import open_bundle
from service.errors import FpirUnsupported, InvalidParameter
from service.recognition.decision import DEFAULT_FMR, DEFAULT_FPIR, Decider

GALLERY = {1: 40, 3: 5}


@pytest.fixture(scope="module")
def calibration(synthetic_bundle: Path) -> Calibration:
    return open_bundle(synthetic_bundle).manifest.calibration


@pytest.fixture
def decider(calibration: Calibration) -> Decider:
    return Decider(calibration)


def test_without_a_rate_the_default_is_promised(decider: Decider, calibration: Calibration) -> None:
    operating = decider.identify(GALLERY, None, None)
    assert operating.fpir == DEFAULT_FPIR == 0.01
    assert operating.threshold == calibration.threshold_for_fpir(0.01, GALLERY).value
    assert operating.fmr == calibration.false_match_rate(operating.threshold).value
    verified = decider.verify(1, None, None)
    assert (verified.fmr, verified.fpir) == (DEFAULT_FMR, None)
    assert verified.threshold == pytest.approx(calibration.threshold_for_fmr(1e-4).value, abs=1e-9)


def test_the_promise_is_kept_at_the_threshold_and_at_it_a_score_matches(
    decider: Decider, calibration: Calibration
) -> None:
    for fpir in (0.1, 0.01):
        operating = decider.identify(GALLERY, fpir, None)
        assert operating.threshold is not None
        assert calibration.fpir_at(operating.threshold, GALLERY).value <= fpir
        assert operating.matches(operating.threshold)
        assert not operating.matches(operating.threshold - 1e-6)


def test_a_larger_gallery_and_a_smaller_rate_ask_for_more(decider: Decider) -> None:
    def threshold(persons: int, fpir: float) -> float:
        found = decider.identify({1: persons}, fpir, None).threshold
        assert found is not None
        return found

    assert threshold(10, 0.05) < threshold(100, 0.05) < threshold(100, 0.01)


def test_a_person_with_many_templates_is_harder_to_be(decider: Decider) -> None:
    one, five = decider.verify(1, 1e-3, None), decider.verify(5, 1e-3, None)
    assert one.threshold is not None
    assert five.threshold is not None
    assert one.threshold <= five.threshold
    assert five.fmr == 1e-3


def test_an_explicit_threshold_is_used_and_its_risk_is_told(
    decider: Decider, calibration: Calibration
) -> None:
    operating = decider.identify(GALLERY, None, 0.42)
    assert operating.threshold == 0.42
    assert operating.fpir == calibration.fpir_at(0.42, GALLERY).value
    assert operating.fmr == calibration.false_match_rate(0.42).value
    assert decider.verify(3, None, 0.42).fmr == calibration.false_match_rate(0.42, 3).value


@pytest.mark.parametrize("histogram", [{}, {1: 0}])
def test_in_an_empty_gallery_nobody_can_match(decider: Decider, histogram: dict[int, int]) -> None:
    operating = decider.identify(histogram, None, None)
    assert (operating.threshold, operating.fpir, operating.fmr, operating.extrapolated) == (
        None,
        0.01,
        None,
        False,
    )
    assert not operating.matches(1.0)
    assert decider.identify(histogram, None, 0.3).threshold is None


def test_a_rate_and_a_threshold_exclude_each_other(decider: Decider) -> None:
    for histogram in (GALLERY, {}):
        with pytest.raises(InvalidParameter) as refused:
            decider.identify(histogram, 0.01, 0.4)
        assert refused.value.details == {"parameter": "fpir"}
    with pytest.raises(InvalidParameter):
        decider.verify(1, 0.01, 0.4)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.5, float("nan"), float("inf")])
def test_a_rate_that_is_no_rate_is_refused(decider: Decider, rate: float) -> None:
    with pytest.raises(InvalidParameter, match="fpir"):
        decider.identify({}, rate, None)
    with pytest.raises(InvalidParameter, match="fmr"):
        decider.verify(1, rate, None)


@pytest.mark.parametrize("threshold", [-1.01, 1.01, float("nan"), float("inf")])
def test_a_threshold_that_is_no_cosine_is_refused(decider: Decider, threshold: float) -> None:
    with pytest.raises(InvalidParameter, match="threshold"):
        decider.identify(GALLERY, None, threshold)
    with pytest.raises(InvalidParameter, match="threshold"):
        decider.verify(1, None, threshold)


def test_a_rate_far_beyond_the_measurement_is_refused_with_the_least_supported_one(decider: Decider) -> None:
    with pytest.raises(FpirUnsupported) as refused:
        decider.identify({1: 100_000}, 1e-9, None)
    supported = refused.value.details["supported"]
    assert isinstance(supported, float)
    assert decider.identify({1: 100_000}, supported, None).extrapolated
    with pytest.raises(FpirUnsupported):
        decider.verify(1, 1e-15, None)


def test_a_conflict_is_looked_for_at_one_in_a_thousand_or_what_can_be_carried(decider: Decider) -> None:
    assert decider.conflict({1: 2}).fpir == 1e-3
    huge = decider.conflict({1: 50_000_000})
    assert huge.threshold is not None
    assert huge.fpir is not None
    assert huge.fpir > 1e-3
    assert decider.conflict({}).threshold is None
