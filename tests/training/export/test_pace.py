"""Processor time, side by side: what is measured is the calls, each as often as the others, in turns."""

from __future__ import annotations

import time

import pytest

from training.export import pace
from training.export.pace import WARM_UP, milliseconds


def test_every_contender_runs_once_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in "abc"}
    assert set(milliseconds(calls, rounds=4)) == set("abc")
    assert called[3 * WARM_UP :] == list("abc") * 4
    assert called[: 3 * WARM_UP] == list("abc") * WARM_UP


def test_it_is_the_median_of_processor_time_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.002, 1.0, 1.004, 2.0, 2.5])
    monkeypatch.setattr(pace.time, "process_time", lambda: next(clock))
    assert milliseconds({"one": lambda: None}, rounds=3) == {"one": 4.0}


def test_waiting_costs_no_processor_time() -> None:
    taken = milliseconds({"idle": lambda: time.sleep(0.03)}, rounds=3)
    assert taken["idle"] < 15
