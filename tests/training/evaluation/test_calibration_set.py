"""Parting people keeps together who belongs together, on sides that share nobody."""

from __future__ import annotations

import numpy as np

from bundle.calibration import ExcludedPair
from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation.calibration_set import CalibrationSet

TOGETHER = {100, 101, 102, 103, 104, 105, 110}


def a_family_and_a_twin() -> CalibrationSet:
    """A family that a person of two families joins to another, one of which has a second label."""
    embedding, identity, family = drawn_people(40, 2)
    family[(identity >= 100) & (identity < 104)] = "A"
    family[np.flatnonzero(identity == 104)[0]] = "A"
    family[np.flatnonzero(identity == 104)[1]] = "B"
    family[identity == 105] = "B"
    return CalibrationSet(embedding, identity, family, [ExcludedPair(first=105, second=110, reason="seen")])


def people_of(sides: tuple[CalibrationSet, CalibrationSet]) -> list[set[int]]:
    return [set(side.identity.tolist()) for side in sides]


def test_halves_share_nobody_and_keep_families_and_twins_together() -> None:
    faces = a_family_and_a_twin()
    for seed in range(10):
        halves = faces.halves(seed)
        people = people_of(halves)
        assert not people[0] & people[1]
        assert people[0] | people[1] == set(faces.identity.tolist())
        assert people[0] >= TOGETHER or people[1] >= TOGETHER
        assert min(map(len, people)) >= 10
        assert sum(len(half.excluded) for half in halves) == 1


def test_apart_are_as_many_as_asked_at_most_and_nobody_s_kin() -> None:
    faces = a_family_and_a_twin()
    for seed in range(10):
        for most in (0, 1, 5, 20):
            rest, few = people_of(faces.apart(most, seed))
            assert not rest & few
            assert rest | few == set(faces.identity.tolist())
            assert len(few) <= most
            assert len(few) == most or most < len(TOGETHER)
            assert rest >= TOGETHER or few >= TOGETHER
