"""A run's records are those that its figures are drawn from, and say honestly how fast it was."""

from __future__ import annotations

import errno
import json
import math
import platform
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from training.evaluation.plots import read_metrics, training_figure
from training.loop import tracking
from training.loop.tracking import Tracker, listed_peak, peak_flops


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "tensorboard" not in request.fixturenames:
        monkeypatch.setattr(tracking, "_tensorboard", lambda run, initial: None)


@pytest.fixture
def tensorboard() -> None:
    """For tests of the writer itself, installed or not."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


def tracker(run: Path, clock: Clock | None = None, **changed: Any) -> Tracker:
    values: dict[str, Any] = {
        "total": 40,
        "initial": 0,
        "unit": "img",
        "flops_per_sample": None,
        "config": {"batch": 8},
        "clock": clock or Clock(),
        **changed,
    }
    return Tracker(run, **values)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_twenty_steps_the_means_over_them_are_recorded(tmp_path: Path, clock: Clock) -> None:
    with tracker(tmp_path, clock) as of:
        for step in range(40):
            clock.now += 0.5
            of.step(8, {"loss": float(step), "arcface": torch.tensor(2.0)}, rate=0.1)
    first, second = records(tmp_path)
    assert first == {"step": 20, "rate": 0.1, "img/s": 16, "wait": 0, "loss": 9.5, "arcface": 2}
    assert (second["step"], second["loss"]) == (40, 29.5)


def test_a_part_that_some_steps_lack_is_averaged_over_those_that_have_it(tmp_path: Path) -> None:
    with tracker(tmp_path) as of:
        for step in range(20):
            of.step(8, {"loss": 1.0, **({"arcface": 4.0} if step < 5 else {})}, rate=0.1)
    assert records(tmp_path)[0]["arcface"] == 4


@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_what_is_not_finite_takes_no_part_in_a_mean_and_stands_in_no_record(
    kind: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracker(tmp_path) as of:
        for step in range(40):
            gradient = [math.nan, math.inf, -math.inf][step % 3] if step < 3 or step >= 20 else 2.0
            of.step(8, {"loss": kind(1.0), "gradient": kind(gradient)}, rate=0.1)
        of.validation({"fnmr@0.01": 0.5, "fnmr@0.001": math.nan})
    text = (tmp_path / "metrics.jsonl").read_text()
    first, second, third = (json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())
    assert (first["loss"], first["gradient"]) == (1, 2)
    assert second["loss"] == 1
    assert "gradient" not in second
    assert third == {"step": 40, "fnmr@0.01": 0.5}
    assert "fnmr@0.001 nan" in capsys.readouterr().err


def test_waiting_is_a_share_of_the_time_and_validation_is_no_part_of_the_pace(
    tmp_path: Path, clock: Clock
) -> None:
    with tracker(tmp_path, clock) as of:
        for _ in range(20):
            with of.waiting():
                clock.now += 0.25
            clock.now += 0.75
            with of.aside():
                clock.now += 60
            of.step(8, {"loss": 1.0}, rate=0.1)
    assert records(tmp_path)[0]["wait"] == pytest.approx(0.25)
    assert records(tmp_path)[0]["img/s"] == pytest.approx(8)


def test_the_share_of_the_peak_is_flops_a_sample_times_samples_a_second_over_it(
    tmp_path: Path, clock: Clock
) -> None:
    with tracker(tmp_path, clock, flops_per_sample=2e9, peak=64e9) as of:
        for _ in range(20):
            clock.now += 1
            of.step(8, {"loss": 1.0}, rate=0.1)
    assert records(tmp_path)[0]["peak"] == pytest.approx(0.25)


def test_steps_since_the_last_record_are_not_lost_when_a_run_is_stopped(tmp_path: Path) -> None:
    def stopped() -> None:
        with tracker(tmp_path) as of:
            for step in range(23):
                of.step(8, {"loss": float(step)}, rate=0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert [(record["step"], record["loss"]) for record in records(tmp_path)] == [(20, 9.5), (23, 21)]


def test_the_report_s_figure_is_drawn_from_the_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracker(tmp_path) as of:
        for _ in range(40):
            of.step(8, {"loss": 2.0, "arcface": 1.0}, rate=0.1)
        of.validation({"fnmr@0.001": 0.25})
    read = read_metrics(tmp_path / "metrics.jsonl")
    assert [(record["step"], "loss" in record) for record in read] == [(20, True), (40, False), (40, True)]
    assert read[1] == {"step": 40, "fnmr@0.001": 0.25}
    assert training_figure({"run": tmp_path / "metrics.jsonl"}).startswith(b"\x89PNG")
    assert "step 40: fnmr@0.001 0.2500" in capsys.readouterr().err


def test_a_line_that_a_kill_cut_short_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 20, "loss": 1.0}\n{"step": 40, "lo')
    with tracker(tmp_path, initial=20) as of:
        for _ in range(20):
            of.step(8, {"loss": 2.0}, rate=0.1)
    assert [(record["step"], record["loss"]) for record in read_metrics(tmp_path / "metrics.jsonl")] == [
        (20, 1),
        (40, 2),
    ]


def test_the_bar_shows_the_pace_the_shares_and_the_losses(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracker(tmp_path / "embedder", clock, flops_per_sample=2e9, peak=64e9) as of:
        for _ in range(40):
            with of.waiting():
                clock.now += 0.1
            clock.now += 0.9
            of.step(8, {"loss": 1.5}, rate=0.1)
    shown = capsys.readouterr().err
    assert "embedder: 100%" in shown
    assert "loss 1.500, 8 img/s, wait 10%, peak 25%" in shown


def test_a_rank_other_than_the_first_writes_and_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracker(tmp_path, quiet=True) as of:
        for _ in range(20):
            of.step(8, {"loss": 1.0}, rate=0.1)
        of.validation({"fnmr@0.001": 0.25})
        of.say("hello")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def evidence(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text())


def test_a_run_says_with_what_it_was_made_but_not_on_whose_machine(tmp_path: Path) -> None:
    with tracker(tmp_path, config={"batch": 8, "data": Path("faces")}):
        pass
    said = evidence(tmp_path)
    assert said["config"] == {"batch": 8, "data": "faces"}
    assert said["step"] == 0
    environment = said["environment"]
    assert environment["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert environment["numpy"]
    assert environment["python"] == platform.python_version()
    assert environment["processor"]
    assert environment["commit"] is None or len(environment["commit"].rstrip("+")) == 40
    assert "node" not in environment
    assert "host" not in json.dumps(environment).lower()


def test_what_a_run_was_begun_with_stays_beside_what_it_goes_on_with(tmp_path: Path) -> None:
    for initial, batch in ((0, 8), (100, 8), (200, 16), (300, 16)):
        with tracker(tmp_path, initial=initial, config={"batch": batch}):
            pass
    said = evidence(tmp_path)
    assert (said["config"], said["step"]) == ({"batch": 16}, 200)
    assert [(of["config"], of["step"]) for of in said["earlier"]] == [({"batch": 8}, 0)]


def test_a_plain_configuration_of_a_run_that_goes_on_is_kept_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"batch": 4}')
    with tracker(tmp_path, initial=7):
        pass
    assert [of["config"] for of in evidence(tmp_path)["earlier"]] == [{"batch": 4}]


def test_outside_a_clone_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert tracking.environment()["commit"] is None


def test_without_tensorboard_the_run_says_so_once_and_goes_on(
    tensorboard: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with tracker(tmp_path) as of:
        for _ in range(40):
            of.step(8, {"loss": 1.0}, rate=0.1)
    assert capsys.readouterr().err.count("TensorBoard is not installed") == 1
    assert len(records(tmp_path)) == 2


@pytest.fixture
def full() -> Path:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    return Path("/dev/full")


def test_a_full_disk_is_named_and_the_bar_ends(
    tmp_path: Path, full: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run() -> None:
        with tracker(tmp_path) as of:
            of.step(8, {"loss": 1.0}, rate=0.1)

    (tmp_path / "metrics.jsonl").symlink_to(full)
    with pytest.raises(
        OSError, match=r"metrics\.jsonl cannot be written; make room and start the same command"
    ):
        run()
    assert capsys.readouterr().err.endswith("\n")


def test_what_failed_first_is_told_though_the_records_fail_too(tmp_path: Path, full: Path) -> None:
    def run() -> None:
        with tracker(tmp_path) as of:
            of.step(8, {"loss": 1.0}, rate=0.1)
            raise ValueError("first")

    (tmp_path / "metrics.jsonl").symlink_to(full)
    with pytest.raises(ValueError, match="first"):
        run()


def test_what_tensorboard_cannot_write_is_told_once(
    tensorboard: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own thread fails first and would print a traceback; what it fails with is raised here."""
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.summary.writer.record_writer import RecordWriter

    unsaid: list[object] = []
    monkeypatch.setattr(threading, "excepthook", unsaid.append)

    def refuse(writer: RecordWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", refuse)
    with pytest.raises(OSError, match=r"tensorboard cannot be written; make room"):
        tracker(tmp_path)
    assert unsaid == []


def test_tensorboard_shows_the_same_numbers(tensorboard: None, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracker(tmp_path, initial=20) as of:
        for _ in range(20):
            of.step(8, {"loss": 3.0}, rate=0.1)
        of.validation({"fnmr@0.001": 0.25})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(40, 3.0)]
    assert [(event.step, event.value) for event in events.Scalars("validation/fnmr@0.001")] == [(40, 0.25)]


@pytest.mark.parametrize(
    ("name", "half", "full"),
    [
        ("NVIDIA H200", 989e12, 495e12),
        ("NVIDIA H100 80GB HBM3", 989e12, 495e12),
        ("NVIDIA H100 PCIe", 756e12, 378e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 156e12),
        ("NVIDIA A10", 125e12, 62.5e12),
        ("NVIDIA L40S", 362e12, 183e12),
        ("NVIDIA L4", 121e12, 60e12),
        ("Tesla V100-SXM2-16GB", 125e12, 15.7e12),
        ("Tesla T4", 65e12, 8.1e12),
    ],
)
def test_a_known_gpu_is_found_by_its_driver_s_name(name: str, half: float, full: float) -> None:
    assert listed_peak(name, torch.bfloat16) == half
    assert listed_peak(name, torch.float16) == half
    assert listed_peak(name, torch.float32) == full


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A10G", "NVIDIA B1000"])
def test_an_unknown_gpu_is_not_taken_for_its_neighbour(name: str) -> None:
    assert listed_peak(name, torch.float16) is None


def test_a_processor_s_peak_is_at_least_what_a_product_reaches() -> None:
    assert 1e8 < peak_flops("cpu", torch.float32) < 1e15
