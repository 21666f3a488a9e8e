"""A checkpoint is whole or absent, sound, and reading one runs no code from it."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from training.config import BadConfig
from training.loop import checkpoint
from training.loop.checkpoint import Best, UnreadableCheckpoint, UnsoundState


def names(folder: Path) -> list[str]:
    return sorted(of.name for of in folder.iterdir())


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """A disk with room for `size` bytes a file, as the kernel enforces it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "run" / "last.pt", {"step": 3, "model": {"weight": torch.arange(4.0)}})
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    assert state["step"] == 3
    assert torch.equal(state["model"]["weight"], torch.arange(4.0))
    assert names(tmp_path / "run") == ["last.pt"]


def test_a_sync_that_fails_keeps_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1})

    def full_disk(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save(file, {"step": 2})
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert checkpoint.load(file) == {"step": 1}
    assert names(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("room", [0, 300, 100_000])
def test_a_disk_that_is_full_in_the_middle_of_a_write_is_named_and_loses_nothing(
    tmp_path: Path, room: int
) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1})
    with (
        no_file_beyond(room),
        pytest.raises(OSError, match=r"last\.pt was not written, the one before is kept"),
    ):
        checkpoint.save(file, {"step": 2, "model": torch.zeros(100_000)})
    assert checkpoint.load(file) == {"step": 1}
    assert names(tmp_path) == ["last.pt"]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_state_that_is_not_finite_never_replaces_a_good_one(tmp_path: Path, broken: float) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1})
    state = {"step": 2, "optimiser": {"state": [{"sum": torch.tensor([0.0, broken])}]}}
    with pytest.raises(UnsoundState, match=r"optimiser\.state\.0\.sum holds values that are not finite"):
        checkpoint.save(file, state)
    assert checkpoint.load(file) == {"step": 1}


@pytest.mark.parametrize("kept", [0, 10, 200, 1000])
def test_a_truncated_file_is_named_with_what_to_do(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1, "model": torch.zeros(1000)})
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UnreadableCheckpoint, match=r"last\.pt cannot be read .* delete it"):
        checkpoint.load(file)


def test_a_flipped_bit_is_found_or_harmless(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": 1, "model": torch.arange(1000.0)})
    whole = file.read_bytes()
    draw = random.Random(7)
    found = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        try:
            state = checkpoint.load(file)
        except UnreadableCheckpoint:
            found += 1
        else:  # padding between the archive's entries
            assert state["step"] == 1
            assert torch.equal(state["model"], torch.arange(1000.0))
    assert found > 40


def test_another_s_file_is_refused_in_one_line_with_the_remedy_that_is_asked_for(tmp_path: Path) -> None:
    """torch's own message has many lines, and advises to read the file all the same."""
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UnreadableCheckpoint) as raised:
        checkpoint.load(tmp_path / "module.pt", remedy="name another")
    told = f"{tmp_path}/module.pt cannot be read (it holds more than tensors and plain values); name another"
    assert str(raised.value) == told
    with pytest.raises(UnreadableCheckpoint, match=r"a checkpoint of None, not of 'x'; name another"):
        checkpoint.restore({"weight": torch.zeros(2)}, Path("plain.pt"), "x", {}, "name another")


def test_another_model_is_told_by_what_differs_in_one_line() -> None:
    state = {"kind": "x", "model": nn.Linear(2, 3).state_dict()}
    with pytest.raises(UnreadableCheckpoint) as raised:
        checkpoint.restore(state, Path("last.pt"), "x", {"model": nn.Linear(2, 4)})
    told = str(raised.value)
    assert told.startswith("last.pt is of another model: model: size mismatch for weight: copying a param")
    assert told.endswith("torch.Size([4]); use another --run")
    assert "\n" not in told


def test_what_cannot_be_written_for_another_reason_is_not_told_to_make_room(tmp_path: Path) -> None:
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"last\.pt was not written, .*; choose another place"):
        checkpoint.save(tmp_path / "last.pt", {"step": 1})
    assert names(tmp_path) == ["last.pt"]


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"step": Harmful()}, tmp_path / "last.pt")
    with pytest.raises(UnreadableCheckpoint):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "harm").exists()


def test_a_file_that_holds_no_state_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "last.pt")
    with pytest.raises(UnreadableCheckpoint, match="no training state"):
        checkpoint.load(tmp_path / "last.pt")


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "last.pt")


def _save_for_ever(file: Path) -> None:
    for step in range(1_000_000):
        checkpoint.save(file, {"step": step, "model": torch.full((5_000,), float(step))})


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of threads that the child never needs
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    checkpoint.save(file, {"step": -1, "model": torch.full((5_000,), -1.0)})
    for after in (0.005, 0.011, 0.017, 0.023, 0.031):
        process = multiprocessing.get_context("fork").Process(target=_save_for_ever, args=(file,))
        process.start()
        time.sleep(after)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        state = checkpoint.load(file)
        assert torch.equal(state["model"], torch.full((5_000,), float(state["step"])))
        checkpoint.clear_partials(tmp_path)
        assert names(tmp_path) == ["last.pt"]


def test_what_a_kill_left_half_written_is_cleared_and_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "last.pt", {"step": 1})
    (tmp_path / "last.pt.partial").write_bytes(b"half")
    assert checkpoint.clear_partials(tmp_path) == [tmp_path / "last.pt.partial"]
    assert names(tmp_path) == ["last.pt"]


def line(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(width, 2)


def test_parts_get_their_own_entries_back() -> None:
    of, into = line(), nn.Linear(3, 2)
    checkpoint.restore({"kind": "line", "model": of.state_dict()}, Path("last.pt"), "line", {"model": into})
    assert torch.equal(of.weight, into.weight)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"kind": "detector", "model": {}}, "a checkpoint of 'detector', not of 'line'"),
        ({"model": {}}, "a checkpoint of None"),
        ({"kind": "line"}, "holds no 'model'"),
        (
            {"kind": "line", "model": line(4).state_dict()},
            "of another model: model: .*size mismatch for weight",
        ),
        ({"kind": "line", "model": {"bias": torch.zeros(2)}}, "of another model: model: .*Missing key"),
        ({"kind": "line", "model": 3}, "of another model: model: "),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_with_the_way_out(state: dict[str, Any], said: str) -> None:
    with pytest.raises(UnreadableCheckpoint, match=rf"run/last\.pt .*{said}.*; use another --run"):
        checkpoint.restore(state, Path("run/last.pt"), "line", {"model": nn.Linear(3, 2)})


def test_an_optimiser_of_other_groups_is_refused() -> None:
    state = torch.optim.SGD(line().parameters(), 0.1).state_dict()
    other = torch.optim.SGD([{"params": [of]} for of in line().parameters()], 0.1)
    with pytest.raises(UnreadableCheckpoint, match=r"of another model: optimiser: .*parameter groups"):
        checkpoint.restore({"kind": "x", "optimiser": state}, Path("last.pt"), "x", {"optimiser": other})


@pytest.mark.parametrize(("lower", "kept"), [(True, [0.3, 0.2]), (False, [0.3, 0.4])])
def test_the_best_is_kept_and_a_resumed_run_compares_with_it(
    tmp_path: Path, lower: bool, kept: list[float]
) -> None:
    file = tmp_path / "best.pt"
    for step, value in enumerate((0.3, math.nan, 0.2, 0.4, 0.25)):
        best = Best(file, "fnmr@0.001", lower=lower)  # as after a resume
        assert best.offer({"fnmr@0.001": value, "fnmr@0.01": 0.0}, {"step": step}) == (value in kept)
    assert checkpoint.load(file)["best"] == {"metric": "fnmr@0.001", "value": kept[-1]}
    assert checkpoint.load(file)["step"] == (2 if lower else 3)


def test_a_best_that_cannot_be_read_is_not_the_run_s_end(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    checkpoint.save(file, {"best": 3})
    assert Best(file, "fnmr@0.001").value is None
    file.write_bytes(b"half")
    with pytest.raises(
        UnreadableCheckpoint, match=r"best\.pt cannot be read .*delete it, and the best is chosen"
    ):
        Best(file, "fnmr@0.001")


def test_a_metric_that_was_not_measured_is_refused_with_those_that_were(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"fnmr@0\.001.*measured: fnmr@0\.01$"):
        Best(tmp_path / "best.pt", "fnmr@0.001").offer({"fnmr@0.01": 0.5}, {})


def draws() -> list[float]:
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.standard_normal()),
        torch.rand(()).item(),
        torch.randn(()).item(),
    ]


def test_generators_go_on_where_the_checkpoint_found_them(tmp_path: Path) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    draws()  # odd numbers of normals: both generators hold a second one back
    checkpoint.save(tmp_path / "last.pt", {"rng": checkpoint.rng_state()})
    expected = [draws() for _ in range(3)]
    checkpoint.restore_rng(checkpoint.load(tmp_path / "last.pt")["rng"])
    assert [draws() for _ in range(3)] == expected


def trained_state() -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.PReLU(32))
    model[1].running_var.fill_(1e-9)  # which fp16 would take for 0
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimiser.step()
    return {"kind": "x", "step": 7, "model": model.state_dict(), "optimiser": optimiser.state_dict()}


def test_a_compact_state_loads_as_the_same_model_in_half_the_room(tmp_path: Path) -> None:
    state = trained_state()
    small = checkpoint.compact(state)
    assert small.keys() == {"kind", "step", "model"}
    assert small["model"]["0.weight"].dtype == torch.float16
    assert small["model"]["1.running_var"].dtype == torch.float32
    checkpoint.save(tmp_path / "small.pt", small)
    into = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.PReLU(32))
    checkpoint.restore(checkpoint.load(tmp_path / "small.pt"), tmp_path / "small.pt", "x", {"model": into})
    for name, tensor in state["model"].items():
        assert torch.allclose(tensor, into.state_dict()[name], rtol=1e-3, atol=1e-6)
    assert into[1].running_var[0] > 0
    assert state["model"]["0.weight"].dtype == torch.float32  # the run's own state stays as it was


def test_a_weight_beyond_half_precision_is_refused() -> None:
    with pytest.raises(UnsoundState, match=r"model\.weight reaches 70000"):
        checkpoint.compact({"model": {"weight": torch.full((2, 2), 70_000.0)}})
