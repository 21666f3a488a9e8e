"""The checks on held-out people would notice a calibration that does not keep its promise."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.calibration import ExcludedPair
from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation.calibration import Models, fit_calibration
from training.evaluation.one_person import one_person_pairs
from training.evaluation.promise import (
    CalibrationSet,
    calibration_report,
    held_out_fmr,
    simulate_identification,
)

COUNTS = np.where(np.arange(300) % 3 == 0, 6, 1 + np.arange(300) % 2)
PEOPLE = CalibrationSet(*drawn_people(300, COUNTS))


def test_halves_share_nobody_and_keep_families_and_twins_together() -> None:
    embedding, identity, family = drawn_people(40, 2)
    family[(identity >= 100) & (identity < 104)] = "A"
    family[np.flatnonzero(identity == 104)[0]] = "A"
    family[np.flatnonzero(identity == 104)[1]] = "B"
    family[identity == 105] = "B"
    pair = ExcludedPair(first=105, second=110, reason="seen")
    for seed in range(10):
        halves = CalibrationSet(embedding, identity, family, [pair]).halves(seed)
        people = [set(half.identity.tolist()) for half in halves]
        assert not people[0] & people[1]
        assert people[0] | people[1] == set(identity.tolist())
        together = {100, 101, 102, 103, 104, 105, 110}
        assert together <= people[0] or together <= people[1]
        assert min(map(len, people)) >= 10
        assert sum(len(half.excluded) for half in halves) == 1


def test_a_promised_fmr_is_kept_on_people_who_were_not_in_the_fit() -> None:
    for check in held_out_fmr(PEOPLE, rates=(1e-1, 1e-2, 1e-3), repeats=4):
        assert check["realised"] == pytest.approx(check["promised"], rel=0.3)
        assert check["tests"] == 8
        assert not check["extrapolated"]


def test_a_promised_fpir_is_kept_on_people_who_were_not_in_the_fit() -> None:
    for check in simulate_identification(PEOPLE, persons=50, rates=(0.3, 0.1, 0.03), repeats=8):
        assert 0.4 * check["promised"] < check["realised"] < 1.4 * check["promised"]
        assert check["probes"] == 8 * 100


def test_the_check_sees_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were persons with many templates counted as if they had one, the simulation would show it."""
    from bundle.calibration import Calibration

    right = Calibration.threshold_for_fpir
    monkeypatch.setattr(
        Calibration, "threshold_for_fpir", lambda self, fpir, of: right(self, fpir, {1: sum(of.values())})
    )
    people = CalibrationSet(*drawn_people(300, 11, noise=1.2))
    check = simulate_identification(people, persons=50, rates=(0.1,), repeats=4)[0]
    assert check["realised"] > 2 * check["promised"]


def test_kin_and_twins_of_enrolled_people_are_not_searched() -> None:
    embedding, identity, family = drawn_people(60, 2)
    for child in range(100, 160, 2):
        family[(identity == child) | (identity == child + 1)] = f"F{child}"
    of = CalibrationSet(embedding, identity, family)
    check = simulate_identification(of, persons=10, rates=(0.3,), repeats=1)[0]
    assert check["probes"] <= 30 - 10


def test_a_gallery_of_everybody_leaves_nobody_to_search() -> None:
    with pytest.raises(ValueError, match="cannot fill"):
        simulate_identification(PEOPLE, persons=200, repeats=1)


def test_two_labels_of_one_person_are_found_and_look_alikes_are_not() -> None:
    embedding, identity, family = drawn_people(80, 4)
    assert one_person_pairs(embedding, identity, family) == ()
    rows = np.flatnonzero(identity == 100)
    embedding[rows] = embedding[rows[0]] + 0.05 * embedding[rows]  # one session, under two names
    embedding[rows] /= np.linalg.norm(embedding[rows], axis=1, keepdims=True)
    identity[rows[:2]] = 7
    (found,) = one_person_pairs(embedding, identity, family)
    assert (found.first, found.second) == (7, 100)
    assert "mean similarity" in found.reason
    family[(identity == 7) | (identity == 100)] = "A"
    assert one_person_pairs(embedding, identity, family) == ()


def test_one_picture_each_tells_nothing_about_one_person() -> None:
    with pytest.raises(ValueError, match="two pictures"):
        one_person_pairs(*drawn_people(10, 1))


def test_the_report_is_plain_values_with_every_part(recwarn: pytest.WarningsRecorder) -> None:
    import json

    calibration = fit_calibration(
        PEOPLE.embedding,
        PEOPLE.identity,
        PEOPLE.family,
        dataset="drawn",
        models=Models("0" * 64, "0" * 64),
        bootstraps=0,
    )
    report = calibration_report(PEOPLE, calibration, repeats=2)
    assert json.loads(json.dumps(report)) == report
    assert {of["promised"] for of in report["held_out_fmr"]} >= {1e-2, 1e-3}
    assert report["curves"][0]["comparisons"] == 300 * 299 // 2
    assert report["excluded_pairs"] == 0
    assert not recwarn.list
