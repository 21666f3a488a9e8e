"""The fitted curves say what the comparisons say, and keep the order that thresholds rest on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle.calibration import Calibration, ExcludedPair
from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation.calibration import (
    CARRIED,
    Models,
    TooFewPeople,
    fit_calibration,
    fit_tail,
    tail_bounds,
)
from training.evaluation.comparisons import TEMPLATES, draw_comparisons

MODELS = Models("1" * 64, "2" * 64)
PEOPLE = drawn_people(240, np.where(np.arange(240) % 4 == 0, 11, 1 + np.arange(240) % 3))


def fitted(bootstraps: int = 20, **changes: object) -> Calibration:
    return fit_calibration(*PEOPLE, dataset="drawn", models=MODELS, bootstraps=bootstraps, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return fitted()


def test_the_counts_and_digests_are_those_of_the_set(calibration: Calibration) -> None:
    assert (calibration.detector, calibration.embedder) == ("1" * 64, "2" * 64)
    assert calibration.people == 240
    assert calibration.pictures == len(PEOPLE[0])
    assert [curve.templates for curve in calibration.curves] == list(TEMPLATES)
    assert calibration.curves[0].comparisons == 240 * 239 // 2
    assert calibration.curves[-1].people == 60
    assert calibration.curves[-1].comparisons == 60 * 59 // 2 + 60 * 180


def test_each_curve_is_the_share_of_comparisons_at_or_above(calibration: Calibration) -> None:
    drawn = draw_comparisons(*PEOPLE)
    for index, curve in enumerate(calibration.curves):
        scores = drawn.scores(index, drawn.clean())[0]
        for threshold, rate in zip(curve.thresholds, curve.rates, strict=True):
            assert rate == pytest.approx((scores >= threshold - 1e-12).mean(), abs=1e-12)
        between = np.linspace(curve.thresholds[1], curve.thresholds[-1], 50)
        exact = np.array([(scores >= threshold).mean() for threshold in between])
        np.testing.assert_allclose([curve.rate(threshold) for threshold in between], exact, rtol=0.15)


def test_the_floor_rests_on_ten_false_matches(calibration: Calibration) -> None:
    for curve in calibration.curves:
        assert CARRIED <= round(curve.floor * curve.comparisons) <= CARRIED + 2
    assert calibration.floor == calibration.curves[0].floor


def test_bounds_hold_the_rate_and_widen_where_it_is_rare() -> None:
    curve = fitted(bootstraps=100).curves[0]
    low, rates, high = (np.array(of)[1:] for of in (curve.low, curve.rates, curve.high))
    assert (low <= rates).all()
    assert (rates <= high).all()
    relative = (high - low) / rates
    assert relative[-1] > 5 * relative[5] > 0
    # ten false matches among people who share comparisons: at least as uncertain as ten independent ones
    assert relative[-1] > 2 * 1.96 / CARRIED**0.5 * 0.8


def test_without_bootstraps_the_bounds_are_the_rate() -> None:
    curve = fitted(bootstraps=0).curves[0]
    assert curve.low == curve.rates == curve.high


def test_the_same_seed_gives_the_same_calibration() -> None:
    assert fitted(bootstraps=3) == fitted(bootstraps=3)
    assert fitted(bootstraps=3, seed=1).curves != fitted(bootstraps=3).curves


def test_it_survives_json_to_the_last_digit(calibration: Calibration) -> None:
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_the_tail_goes_on_where_the_curve_ends_and_predicts_rates_that_were_not_in_the_fit() -> None:
    scores = np.random.default_rng(0).normal(0, 0.1, 2_000_000)
    few = scores[:100_000]
    start = float(np.sort(few)[-CARRIED])
    tail = fit_tail(few, start, CARRIED / len(few))
    for rate in (3e-5, 1e-5):
        threshold = float(np.sort(scores)[-int(rate * len(scores))])
        assert rate / 2 < np.exp(tail.log_rate(threshold)) < rate * 2


def test_a_pair_that_is_one_person_is_excluded_recorded_and_reported_with_and_without() -> None:
    embedding, identity, family = PEOPLE
    twin = embedding.copy()
    twin[identity == 101] = embedding[np.flatnonzero(identity == 100)[0]]
    pair = ExcludedPair(first=100, second=101, reason="seen")
    plain = {"dataset": "drawn", "models": MODELS, "bootstraps": 0}
    without = fit_calibration(twin, identity, family, excluded=[pair], **plain)  # type: ignore[arg-type]
    within = fit_calibration(twin, identity, family, **plain)  # type: ignore[arg-type]
    assert without.excluded == (pair,)
    assert without.curves[0].comparisons == within.curves[0].comparisons - 1
    assert without.with_excluded.comparisons == within.curves[0].comparisons
    for at, rate in zip(without.with_excluded.at, without.with_excluded.rates, strict=True):
        assert rate > at * 0.99


def test_kin_are_in_no_curve_but_counted() -> None:
    embedding, identity, family = PEOPLE
    related, alike = family.copy(), embedding.copy()
    for child in range(100, 160, 2):  # thirty families of two, whose second member looks like the first
        related[(identity == child) | (identity == child + 1)] = f"F{child}"
        first = embedding[np.flatnonzero(identity == child)[0]]
        rows = identity == child + 1
        mixed = embedding[rows] + 0.9 * first
        alike[rows] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    of = fit_calibration(alike, identity, related, dataset="drawn", models=MODELS, bootstraps=0)
    assert of.kin.comparisons == 30
    assert of.curves[0].comparisons == 240 * 239 // 2 - 30
    at = dict(zip(of.kin.at, of.kin.rates, strict=True))
    assert at[0.1] > 0.5
    # left in, they raise the small rates
    strangers = fit_calibration(alike, identity, family, dataset="drawn", models=MODELS, bootstraps=0)
    assert strangers.threshold_for_fmr(1e-3).value > of.threshold_for_fmr(1e-3).value


def test_too_few_people_are_refused_and_rare_templates_have_no_curve() -> None:
    with pytest.raises(TooFewPeople, match="12 people"):
        fit_calibration(*drawn_people(12, 3), dataset="drawn", models=MODELS)
    few = fit_calibration(*drawn_people(60, 2), dataset="drawn", models=MODELS, bootstraps=0)
    assert [curve.templates for curve in few.curves] == [1, 2]


def test_identical_faces_everywhere_still_give_a_calibration_that_refuses_them() -> None:
    """A broken embedder must end in a stated error or a useless threshold, never in a crash or a small one."""
    embedding, identity, family = drawn_people(60, 2)
    embedding[: len(embedding) // 2] = embedding[0]
    of = fit_calibration(embedding, identity, family, dataset="drawn", models=MODELS, bootstraps=0)
    assert of.false_match_rate(0.999).value > 0.1


def test_tail_bounds_hold_the_tail_and_widen() -> None:
    calibration = fitted(bootstraps=0)
    bounds = tail_bounds(draw_comparisons(*PEOPLE), calibration, bootstraps=60)
    assert bounds[0]["rate"] == pytest.approx(calibration.floor)
    assert [of["threshold"] for of in bounds] == sorted(of["threshold"] for of in bounds)
    assert all(of["low"] < of["high"] for of in bounds)
    wide = [of["high"] / of["rate"] for of in bounds]
    assert wide[-1] > wide[0]


@pytest.mark.needs_data
@pytest.mark.slow
def test_real_faces_give_a_calibration_that_keeps_its_promise_on_held_out_people(datasets: Path) -> None:
    from training.data.identities import load_faces
    from training.embedder.distillation import ReferenceEmbedder
    from training.evaluation.calibration_set import CalibrationSet
    from training.evaluation.one_person import one_person_pairs
    from training.evaluation.promise import held_out_fmr
    from training.evaluation.simulation import simulate_identification

    faces = load_faces(datasets / "faces", "calibration")
    embedding = ReferenceEmbedder(datasets / "reference" / "MobileFaceNet.onnx").embed(faces.crops())
    excluded = one_person_pairs(embedding, faces.identity, faces.family)
    people = CalibrationSet(embedding, faces.identity, faces.family, excluded)
    for check in held_out_fmr(people, rates=(1e-2, 1e-3, 1e-4), repeats=5):
        assert check["promised"] / 2 < check["realised"] < check["promised"] * 2
    for check in simulate_identification(people, galleries=(100,), rates=(0.1, 0.03), repeats=10):
        assert check["realised"] < check["promised"] * 1.3
