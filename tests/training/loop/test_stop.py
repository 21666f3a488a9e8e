"""Ctrl-C ends a run with a checkpoint, a second one at once, and one before the run in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from training.config import REPOSITORY
from training.loop.stop import Stop


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Each test leaves the signals as it found them, even where it fails."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    changed = {number for number, handler in before.items() if signal.getsignal(number) != handler}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert not changed


def press(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "passed_on"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_the_step_in_progress_ends_what_follows_the_loop_is_done_and_then_the_signal_is_passed_on(
    number: int, passed_on: type[BaseException], capfd: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def run() -> None:
        with Stop() as stop:
            for step in range(5):
                if step == 2:
                    press(number)
                done.append(f"step {step}")
                if stop.requested:
                    break
            done.append("saved")

    with pytest.raises(passed_on):
        run()
    assert done == ["step 0", "step 1", "step 2", "saved"]
    assert "once more to stop at once" in capfd.readouterr().err


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_one_ends_at_once(second: int) -> None:
    reached: list[str] = []
    times = iter([10.0, 11.0])

    def run() -> None:
        with Stop(clock=lambda: next(times)):
            press(signal.SIGINT)
            reached.append("after the first")
            press(second)
            reached.append("after the second")

    with pytest.raises(KeyboardInterrupt if second == signal.SIGINT else SystemExit):
        run()
    assert reached == ["after the first"]


def test_what_comes_in_the_same_breath_is_one_request(capfd: pytest.CaptureFixture[str]) -> None:
    """A service manager tells torchrun and its ranks, and torchrun tells its ranks again."""
    reached: list[str] = []

    def run() -> None:
        with Stop(clock=lambda: 10.0):
            press(signal.SIGTERM)
            press(signal.SIGTERM)
            reached.append("the checkpoint")

    with pytest.raises(SystemExit):
        run()
    assert reached == ["the checkpoint"]
    assert capfd.readouterr().err.count("stopping with a checkpoint") == 1


def test_a_terminated_run_ends_with_the_status_of_one() -> None:
    with pytest.raises(SystemExit) as ended, Stop():
        press(signal.SIGTERM)
    assert ended.value.code == 143


def test_nothing_happens_to_a_run_that_nobody_stops() -> None:
    with Stop() as stop:
        pass
    assert not stop.requested


def test_the_run_s_own_failure_is_not_hidden_behind_the_signal() -> None:
    def run() -> None:
        with Stop():
            press(signal.SIGINT)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run()


def test_in_a_thread_signals_are_left_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with Stop() as stop:
            seen.append(signal.getsignal(signal.SIGINT))
            seen.append(stop.requested)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT), False]


def with_torch(text: str, module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m module --help`, where importing torch does what `text` says."""
    (folder / "torch.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", module, "--help"]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("module", ["training", "training.embedder.train", "training.detector.train"])
def test_a_command_that_is_stopped_while_torch_is_imported_ends_in_one_line(
    module: str, tmp_path: Path
) -> None:
    done = with_torch("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", module, tmp_path)
    assert done.returncode == 130
    assert done.stderr == "stopped; the same command goes on from what is finished\n"


def test_what_else_goes_wrong_there_keeps_its_traceback(tmp_path: Path) -> None:
    done = with_torch("raise ImportError('no such library')\n", "training.embedder.train", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "no such library" in done.stderr
