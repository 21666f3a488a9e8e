"""A run that was stopped or killed goes on as if it had not been, and loses nothing that was finished."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.embedder.runs import assert_equal, at_step, interrupt, records
from tests.training.embedder.tiny import PK_FOUR, Colours, tiny
from training.data.identities import Faces
from training.embedder import train as run
from training.embedder.objective import Batch
from training.embedder.train import train
from training.loop import checkpoint

pytestmark = [
    pytest.mark.usefixtures("tiny_backbone", "quick_tracking"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


RUNS: dict[str, dict[str, Any]] = {
    "plain": {"backbone": "tiny-normalised"},
    "workers": {"workers": 2},
    "sampled classes": {"head": {"weight": 1.0, "sample_rate": 0.5}},
    "sampled classes, micro-batches, sgd": {
        "head": {"weight": 1.0, "sample_rate": 0.5},
        "micro_batch": 2,
        "optimiser": {"name": "sgd", "learning_rate": 0.1},
    },
    "micro-batches in bf16": {"micro_batch": 2, "precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "buffers of a head and of centres": {
        "head": {"name": "adaface", "weight": 1.0},
        "metric": {"centre": 0.1},
    },
    "triplets and a teacher": {
        "metric": {"triplet": 1.0},
        "sampling": PK_FOUR,
        "distillation": {"weight": 5.0, "relational": 0.5},
        "epochs": 3.0,
    },
}


@pytest.mark.parametrize("changed", RUNS.values(), ids=RUNS.keys())
def test_a_run_that_was_killed_between_checkpoints_ends_bit_for_bit_like_one_that_was_not(
    changed: dict[str, Any], tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(**changed)

    def go(folder: str) -> Path:
        return train(config, tmp_path / folder, drawn_faces, drawn_faces, Colours())

    whole = go("whole")
    at_step(
        monkeypatch, 3, lambda: 1 / 0
    )  # one step beyond the checkpoint at two: it is lost and taken again
    with pytest.raises(ZeroDivisionError):
        go("killed")
    assert checkpoint.load(tmp_path / "killed" / "last.pt")["step"] == 2
    assert_equal(go("killed"), whole)
    assert checkpoint.load(whole)["step"] == 6


def test_a_run_from_before_options_were_recorded_whole_goes_on(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(), tmp_path / "whole", drawn_faces, drawn_faces)
    folder = tmp_path / "older"
    at_step(monkeypatch, 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), folder, drawn_faces, drawn_faces)
    state = checkpoint.load(folder / "last.pt")
    assert state["config"]["head"]["options"].pop("gradient") == "exact"
    checkpoint.save(folder / "last.pt", state)
    assert_equal(train(tiny(), folder, drawn_faces, drawn_faces), whole)
    recorded = json.loads((folder / "config.json").read_text())["config"]
    assert recorded["head"]["options"] == {"scale": 16.0, "margin": 0.2, "gradient": "exact"}


def test_ctrl_c_ends_with_a_checkpoint_after_the_step(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(), tmp_path / "whole", drawn_faces, drawn_faces)
    at_step(monkeypatch, 2, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), tmp_path / "stopped", drawn_faces, drawn_faces)
    assert checkpoint.load(tmp_path / "stopped" / "last.pt")["step"] == 3
    assert_equal(train(tiny(), tmp_path / "stopped", drawn_faces, drawn_faces), whole)


def test_ctrl_c_during_a_validation_ends_it_first_and_loses_nothing(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validate(model: nn.Module, validation: Faces) -> dict[str, float]:
        interrupt()
        return {"fnmr@0.001": 0.5}

    monkeypatch.setattr(run, "validate", validate)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(evaluate_steps=3), tmp_path, drawn_faces, drawn_faces)
    assert {"step": 3, "fnmr@0.001": 0.5} in records(tmp_path)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3
    assert checkpoint.load(tmp_path / "best.pt")["best"] == {"metric": "fnmr@0.001", "value": 0.5}


def test_a_finished_run_is_left_as_it_is_and_a_shorter_one_says_so(
    tmp_path: Path, drawn_faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    last = train(tiny(), tmp_path, drawn_faces, drawn_faces)
    before = last.read_bytes()
    assert train(tiny(), tmp_path, drawn_faces, drawn_faces) == last
    train(tiny(epochs=1.25), tmp_path, drawn_faces, drawn_faces)
    assert "6 steps are done already, the configuration asks for 5" in capsys.readouterr().err
    assert last.read_bytes() == before


def test_what_a_resumed_run_is_asked_for_wins_over_what_it_was_begun_with(
    tmp_path: Path, drawn_faces: Faces
) -> None:
    train(tiny(), tmp_path, drawn_faces, drawn_faces)
    longer = tiny(epochs=1.75, optimiser={"weight_decay": 0.3})
    state = checkpoint.load(train(longer, tmp_path, drawn_faces, drawn_faces))
    assert state["step"] == 7
    assert [group["weight_decay"] for group in state["optimiser"]["param_groups"]] == [0.3, 0.0]
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["config"]["epochs"] == 1.75
    assert [of["config"]["epochs"] for of in told["earlier"]] == [1.5]


def test_a_full_disk_keeps_the_last_checkpoint_and_says_what_to_do(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny(), tmp_path / "whole", drawn_faces, drawn_faces)
    real, saves = torch.save, []

    def full(state: Any, file: Any) -> None:
        saves.append(file)
        if len(saves) > 1:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        OSError, match=r"No space left on device.*the one before is kept; make room"
    ) as raised:
        train(tiny(), tmp_path / "full", drawn_faces, drawn_faces)
    assert raised.value.errno == errno.ENOSPC
    assert checkpoint.load(tmp_path / "full" / "last.pt")["step"] == 2
    monkeypatch.setattr(torch, "save", real)
    assert_equal(train(tiny(), tmp_path / "full", drawn_faces, drawn_faces), whole)


def under_a_service_manager(folder: Path, faces: Faces) -> None:
    """A process group of its own, whose every process gets SIGTERM while the training waits for step 3's batch."""
    os.setsid()
    with (folder / "said.log").open("wb") as log:
        os.dup2(log.fileno(), 2)
    made = run.batch_of

    def batch_of(*asked: Any) -> Batch:
        if asked[2] == 3:
            while not (folder / "last.pt").is_file():
                time.sleep(0.01)
            time.sleep(0.1)
            os.killpg(0, signal.SIGTERM)
        return made(*asked)

    run.batch_of = batch_of
    train(tiny(workers=2), folder, faces, faces)


def test_sigterm_to_the_whole_process_group_ends_with_a_checkpoint_and_without_a_traceback(
    tmp_path: Path, drawn_faces: Faces
) -> None:
    folder = tmp_path / "stopped"
    folder.mkdir()
    service = multiprocessing.get_context("fork").Process(
        target=under_a_service_manager, args=(folder, drawn_faces)
    )
    service.start()
    service.join(60)
    assert service.exitcode == 128 + signal.SIGTERM
    assert checkpoint.load(folder / "last.pt")["step"] in (3, 4)
    said = (folder / "said.log").read_text()
    assert said.count("stopping with a checkpoint") == 1
    assert "Traceback" not in said
    whole = train(tiny(), tmp_path / "whole", drawn_faces, drawn_faces)
    resumed = checkpoint.load(train(tiny(workers=2), folder, drawn_faces, drawn_faces))
    expected = checkpoint.load(whole)
    for part in ("step", "model", "average", "optimiser"):
        torch.testing.assert_close(resumed[part], expected[part], rtol=0, atol=0)


def test_a_run_begun_with_another_s_weights_remembers_it_when_it_goes_on(
    tmp_path: Path, drawn_faces: Faces
) -> None:
    first = train(tiny(), tmp_path / "first", drawn_faces, drawn_faces)
    second = tmp_path / "second"
    train(tiny(epochs=1.0), second, drawn_faces, drawn_faces, begin=first)
    (begun,) = checkpoint.load(second / "last.pt")["lineage"]
    assert begun == {
        "backbone": "tiny",
        "steps": 6,
        "sha256": hashlib.sha256(first.read_bytes()).hexdigest(),
    }
    train(tiny(), second, drawn_faces, drawn_faces)
    state = checkpoint.load(second / "last.pt")
    assert (state["step"], state["lineage"]) == (6, [begun])


def test_a_full_disk_under_the_records_ends_in_their_name_and_keeps_the_checkpoint(
    tmp_path: Path, drawn_faces: Faces
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    train(tiny(), tmp_path, drawn_faces, drawn_faces)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        OSError, match=r"metrics\.jsonl cannot be written; make room and start the same command"
    ):
        train(tiny(epochs=2.0), tmp_path, drawn_faces, drawn_faces)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 6
