"""The simulation would notice a calibration that breaks its promise, and tests no comparison that was fitted on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bundle.calibration import Calibration, ExcludedPair
from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation import simulation
from training.evaluation.calibration_set import CalibrationSet
from training.evaluation.simulation import simulate_identification

COUNTS = np.where(np.arange(300) % 3 == 0, 6, 1 + np.arange(300) % 2)
PEOPLE = CalibrationSet(*drawn_people(300, COUNTS))


def test_a_promised_fpir_is_kept_on_people_who_were_not_in_the_fit() -> None:
    for check in simulate_identification(PEOPLE, (50,), rates=(0.3, 0.1, 0.03), repeats=8):
        assert 0.4 * check["promised"] < check["realised"]
        assert check["low"] < 1.1 * check["promised"]
        assert check["low"] <= check["realised"] <= check["high"]
        assert check["probes"] == 8 * 75
        assert not check["gallery_in_fit"]


def test_a_gallery_larger_than_a_half_is_searched_by_people_of_no_fit() -> None:
    (check,) = simulate_identification(PEOPLE, (250,), rates=(0.2,), repeats=6)
    assert check["gallery_in_fit"]
    assert check["probes"] == 6 * 50
    assert 0.3 * check["promised"] < check["realised"] < 1.5 * check["promised"]


@pytest.mark.parametrize("gallery", [50, 250])
def test_no_comparison_that_is_tested_was_fitted_on(gallery: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who searches is in the fit; and of a gallery that fits into a half, nobody who is enrolled."""
    fitted: list[set[int]] = []
    fit = CalibrationSet.fit

    def watched(self: CalibrationSet, seed: int) -> Calibration:
        fitted.append(set(self.identity.tolist()))
        return fit(self, seed)

    seen = []
    trial = simulation._trial

    def told(calibration, pool, searching, *rest):
        seen.append((fitted[-1], set(pool.identity.tolist()), set(searching.identity.tolist())))
        return trial(calibration, pool, searching, *rest)

    monkeypatch.setattr(CalibrationSet, "fit", watched)
    monkeypatch.setattr(simulation, "_trial", told)
    simulate_identification(PEOPLE, (gallery,), rates=(0.3,), repeats=4)
    assert len(seen) == 4
    for of_fit, pool, searching in seen:
        assert not of_fit & searching
        assert not pool & searching
        assert pool == of_fit if gallery == 250 else not of_fit & pool


def test_the_check_sees_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were persons with many templates counted as if they had one, the simulation would show it."""
    right = Calibration.threshold_for_fpir
    monkeypatch.setattr(
        Calibration, "threshold_for_fpir", lambda self, fpir, of: right(self, fpir, {1: sum(of.values())})
    )
    people = CalibrationSet(*drawn_people(300, 11, noise=1.2))
    check = simulate_identification(people, (50,), rates=(0.1,), repeats=4)[0]
    assert check["realised"] > 2 * check["promised"]


def test_kin_and_twins_of_enrolled_people_do_not_search_however_large_the_gallery() -> None:
    embedding, identity, family = drawn_people(60, 2)
    for child in range(100, 140, 2):
        family[(identity == child) | (identity == child + 1)] = f"F{child}"
    twins = [ExcludedPair(first=140, second=141, reason="seen")]
    faces = CalibrationSet(embedding, identity, family, twins)
    for _, persons in ((0, 15), (1, 50)):
        pool, searching = simulation._apart(faces, persons, seed=persons)
        assert len(pool.people()) >= persons
        assert len(searching.people()) == min(30, 60 - persons)
        assert set(family[family != ""]) >= set(searching.family) - {""}
        assert not (set(pool.family) - {""}) & (set(searching.family) - {""})
        assert not {140, 141} & set(pool.identity.tolist()) or not {140, 141} & set(
            searching.identity.tolist()
        )


def test_people_of_families_search_as_much_as_others_in_a_large_gallery() -> None:
    """Were kin of the enrolled left out afterwards, hardly anybody of a family of ten would be left."""
    embedding, identity, family = drawn_people(200, 2)
    for number in range(10):
        family[(identity >= 100 + 10 * number) & (identity < 110 + 10 * number)] = f"F{number}"
    faces = CalibrationSet(embedding, identity, family)
    shares = []
    for seed in range(40):
        searching = simulation._apart(faces, 150, seed)[1]
        shares.append(np.mean(np.unique(searching.identity) < 200))
    assert 0.3 < np.mean(shares) < 0.6  # half of all people are of a family


def test_what_the_calibration_does_not_reach_is_said() -> None:
    reached, beyond = simulate_identification(PEOPLE, (100,), rates=(0.1, 1e-9), repeats=2)
    assert (reached["unsupported"], beyond["unsupported"]) == (0, 2)
    assert [beyond[key] for key in ("realised", "low", "high", "spread")] == [None] * 4
    assert json.loads(json.dumps([reached, beyond])) == [reached, beyond]


def test_the_same_seed_tells_the_same() -> None:
    asked = {"galleries": (20,), "rates": (0.1,), "repeats": 2}
    assert simulate_identification(PEOPLE, **asked) == simulate_identification(PEOPLE, **asked)
    assert simulate_identification(PEOPLE, **asked) != simulate_identification(PEOPLE, **asked, seed=9)


@pytest.mark.parametrize("gallery", [300, 1000])
def test_a_gallery_of_everybody_leaves_nobody_to_search(gallery: int) -> None:
    with pytest.raises(ValueError, match="cannot fill"):
        simulate_identification(PEOPLE, (gallery,), repeats=1)
