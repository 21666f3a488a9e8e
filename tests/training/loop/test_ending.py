"""A command ends in one line and a status; of many ranks the first has the word, unless it cannot know."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from training.config import BadConfig
from training.loop import checkpoint, ending
from training.loop.diagnosis import Diverged
from training.loop.ending import ended
from training.loop.loader import LoaderFailed


class BadSet(Exception):
    """What a training's own data may be."""


def raising(error: BaseException) -> int:
    def act() -> None:
        raise error

    return ended(act, Path("last.pt"), (BadSet,))


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(("stopped", "status"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_a_stop_says_how_to_go_on(
    begun: bool, stopped: BaseException, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "last.pt"
    if begun:
        checkpoint.save(last, {"kind": "embedder"})

    def stop() -> None:
        raise stopped

    assert ended(stop, last, ()) == status
    how = f"goes on from {last}" if begun else "begins anew: there is no checkpoint yet"
    assert capsys.readouterr().err == f"stopped; the same command {how}\n"


@pytest.mark.parametrize("error", [BadConfig("no such key"), BadSet("no such set"), OSError("disk full")])
def test_what_is_wrong_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(error) == 1
    assert capsys.readouterr().err == f"failed: {error}\n"


@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_diverged_names_its_last_checkpoint_where_there_is_one(
    begun: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = tmp_path / "last.pt"
    if begun:
        checkpoint.save(last, {"kind": "embedder"})

    def diverge() -> None:
        raise Diverged("step 3: loss is nan")

    assert ended(diverge, last, ()) == 1
    kept = f". The last checkpoint, {last}, is from before this step" if begun else ""
    assert capsys.readouterr().err == f"failed: step 3: loss is nan{kept}\n"


def test_a_full_disk_says_what_to_do_once(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "set/train-000.tar")
    assert raising(full) == 1
    told = capsys.readouterr().err
    assert "train-000.tar" in told
    assert told.endswith("; make room and start the same command again\n")
    assert raising(OSError(errno.ENOSPC, f"last.pt; {checkpoint.REMEDY}")) == 1
    assert capsys.readouterr().err.count("make room") == 1


def test_what_is_a_fault_of_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError())


def test_all_is_well_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(lambda: "whatever", Path("last.pt"), ()) == 0
    assert capsys.readouterr().err == ""


def test_another_rank_speaks_only_of_what_it_alone_may_meet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(ending, "SPEAKING_S", 0)
    assert raising(BadSet("seen by all")) == 1
    assert capsys.readouterr().err == ""
    assert raising(LoaderFailed("a worker died")) == 1
    assert capsys.readouterr().err == "failed: a worker died\n"
