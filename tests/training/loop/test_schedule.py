"""Schedules rise, stay and fall where they say, and a configuration means the same on more data."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from training.config import BadConfig
from training.loop.schedule import (
    Schedule,
    cosine,
    cosine_restarts,
    polynomial,
    ramp,
    steps,
    warmup_stable_decay,
)

CHOICES: list[dict[str, Any]] = [
    {"name": "warmup_stable_decay", "decay": 0.3},
    {"name": "polynomial", "power": 2.0},
    {"name": "cosine", "floor": 0.01},
    {"name": "cosine_restarts", "cycles": 3, "multiply": 2, "floor": 0.02},
    {"name": "cosine_restarts", "cycles": 4, "multiply": 1},
    {"name": "steps", "milestones": (0.5, 0.75), "gamma": 0.1},
]


def factors(total: int = 100, warmup: int = 10, decay: int = 30) -> list[float]:
    return [warmup_stable_decay(step, total, warmup, decay) for step in range(total)]


def test_it_warms_up_to_one_without_starting_at_nothing() -> None:
    rising = factors()[:10]
    assert rising[0] == pytest.approx(0.1)
    assert rising[-1] == 1.0
    assert rising == sorted(rising)


def test_it_is_one_until_the_decay() -> None:
    assert set(factors()[10:71]) == {1.0}


def test_it_falls_in_a_line_and_never_below_zero() -> None:
    falling = factors()[70:]
    assert falling == sorted(falling, reverse=True)
    assert falling[15] == pytest.approx(0.5)
    assert warmup_stable_decay(100, 100, 10, 30) == 0.0
    assert warmup_stable_decay(500, 100, 10, 30) == 0.0


def test_a_longer_run_shares_the_plateau_of_a_shorter_one() -> None:
    assert factors(200)[:70] == factors(100)[:70]


def test_without_a_decay_the_plateau_lasts_to_the_end() -> None:
    assert factors(decay=0)[10:] == [1.0] * 90


@given(choice=st.sampled_from(CHOICES), warmup=st.integers(0, 40), total=st.integers(100, 900))
def test_every_schedule_stays_in_its_range_and_begins_as_it_warms_up(
    choice: dict[str, Any], warmup: int, total: int
) -> None:
    schedule = Schedule(warmup=warmup, **choice)
    curve = [schedule.factor(step, total) for step in range(total + 1)]
    assert all(0 <= factor <= 1 for factor in curve)
    assert curve[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])
    assert curve[warmup] == pytest.approx(1.0)  # the first step after the warm-up: no jump


@pytest.mark.parametrize(
    ("curve", "middle", "end"),
    [
        (lambda step: polynomial(step, 110, 10), 0.5, 0.0),
        (lambda step: polynomial(step, 110, 10, power=2), 0.25, 0.0),
        (lambda step: cosine(step, 110, 10), 0.5, 0.0),
        (lambda step: cosine(step, 110, 10, floor=0.2), 0.6, 0.2),
    ],
)
def test_a_descent_goes_through_its_middle_to_its_end_and_stays_there(
    curve: Callable[[int], float], middle: float, end: float
) -> None:
    descent = [curve(step) for step in range(10, 111)]
    assert descent[0] == 1.0
    assert descent[50] == pytest.approx(middle)
    assert descent[-1] == pytest.approx(end)
    assert curve(500) == pytest.approx(end)
    assert descent == sorted(descent, reverse=True)


@pytest.mark.parametrize(
    ("multiply", "starts"), [(1, [5, 15, 25, 35]), (2, [5, 15, 35, 75]), (3, [5, 15, 45, 135])]
)
def test_a_cosine_restarts_at_the_end_of_each_cycle_and_nowhere_else(
    multiply: int, starts: list[int]
) -> None:
    curve = [cosine_restarts(step, 10, multiply, warmup=5, floor=0.1) for step in range(starts[-1] + 1)]
    rises = [step for step in range(5, len(curve)) if step == 5 or curve[step] > curve[step - 1]]
    assert rises == starts
    assert [curve[step] for step in starts] == pytest.approx([1.0] * 4)
    assert min(curve[5:]) >= 0.1  # the floor is passed on, not forgotten


@pytest.mark.parametrize(("cycles", "multiply"), [(1, 2), (3, 2), (4, 1), (5, 3)])
@pytest.mark.parametrize("total", [997, 1000, 1234])
def test_the_cycles_fill_the_run_and_it_ends_at_the_floor(cycles: int, multiply: int, total: int) -> None:
    schedule = Schedule(name="cosine_restarts", cycles=cycles, multiply=multiply, floor=0.05)
    curve = [schedule.factor(step, total) for step in range(total + 1)]
    assert sum(late > early for early, late in pairwise(curve)) == cycles - 1
    assert curve[-1] == 0.05
    assert curve[-2] < 0.1


def test_steps_fall_at_their_milestones() -> None:
    curve = [steps(step, (4, 8), gamma=0.1, warmup=2) for step in range(10)]
    assert curve == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_a_ramp_leads_from_nothing_to_the_whole_and_stays() -> None:
    assert [ramp(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]
    assert ramp(0, 0) == 1.0


@pytest.mark.parametrize("choice", CHOICES)
def test_a_configuration_means_the_same_on_ten_times_the_data(choice: dict[str, Any]) -> None:
    schedule = Schedule(**choice)
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 0.99):
        assert schedule.factor(int(share * 7_000), 7_000) == pytest.approx(
            schedule.factor(int(share * 70_000), 70_000), abs=1e-6
        )


@pytest.mark.parametrize("choice", CHOICES)
def test_a_schedule_survives_being_saved_with_the_run(choice: dict[str, Any]) -> None:
    schedule = Schedule(warmup=5, **choice)
    assert Schedule.model_validate(schedule.model_dump(mode="json")) == schedule


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "linear"}, "warmup_stable_decay"),
        ({"name": "cosine", "milestones": (0.5,)}, "cosine takes no `milestones`, only warmup, floor"),
        ({"name": "polynomial", "floor": 0.1}, "polynomial takes no `floor`"),
        ({"name": "steps"}, "steps needs `milestones`"),
        ({"name": "steps", "milestones": (0.75, 0.5)}, "rising shares"),
        ({"name": "steps", "milestones": (12, 20)}, "rising shares"),
        ({"name": "cosine", "floor": 1.0}, "less than 1"),
        ({"name": "cosine", "warmup": -1}, "greater than or equal to 0"),
        ({"name": "cosine", "total": 1000}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Schedule(**wrong)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_too_short_for_its_schedule_is_refused(choice: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=r"100 steps has no room for a warm-up of 100 .* lower `warmup`"):
        Schedule(warmup=100, **choice).factor(0, 100)
