"""The schedule rises, stays, falls, and only its end moves when a run is made longer."""

from __future__ import annotations

import pytest

from training.loop.schedule import warmup_stable_decay


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
