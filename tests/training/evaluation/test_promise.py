"""The checks on held-out people would notice a calibration that does not keep its promise."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation.calibration import Models, fit_calibration
from training.evaluation.calibration_set import CalibrationSet
from training.evaluation.one_person import one_person_pairs
from training.evaluation.promise import calibration_report, held_out_fmr

COUNTS = np.where(np.arange(300) % 3 == 0, 6, 1 + np.arange(300) % 2)
PEOPLE = CalibrationSet(*drawn_people(300, COUNTS))


def test_a_promised_fmr_is_kept_on_people_who_were_not_in_the_fit() -> None:
    for check in held_out_fmr(PEOPLE, rates=(1e-1, 1e-2, 1e-3), repeats=4):
        assert check["realised"] == pytest.approx(check["promised"], rel=0.3)
        assert check["tests"] == 8
        assert not check["extrapolated"]


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

    people = PEOPLE.part(np.arange(100, 220))
    calibration = fit_calibration(
        people.embedding,
        people.identity,
        people.family,
        dataset="drawn",
        models=Models("0" * 64, "0" * 64),
        bootstraps=0,
    )
    report = calibration_report(people, calibration, repeats=2)
    assert json.loads(json.dumps(report)) == report
    assert {of["promised"] for of in report["held_out_fmr"]} >= {1e-2}
    assert report["curves"][0]["comparisons"] == 120 * 119 // 2
    assert report["excluded_pairs"] == 0
    assert {of["persons"] for of in report["held_out_fpir"]} == {10, 30, 100}  # more leave nobody to search
    assert not recwarn.list
