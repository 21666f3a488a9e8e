"""A run that was stopped goes on as if it had not been, and bad beginnings are refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training.config import BadConfig, read_config
from training.data.identities import BadData, Faces
from training.embedder import train as run
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.embedder.config import EmbedderConfig
from training.loop import checkpoint
from training.loop.decay import parameter_groups

TINY = EmbedderConfig(
    dimension=16,
    batch=4,
    epochs=1.5,  # six steps
    decay_epochs=0.5,
    warmup_steps=2,
    checkpoint_steps=2,
    evaluate_steps=100,
    distillation_weight=0,
    arcface_weight=1.0,
    compile=False,
)


class Stopped(Exception):
    """Somebody pressed the button."""


def weights(file: Path) -> dict[str, Any]:
    state = checkpoint.load(file)
    assert state["step"] == 6
    return {f"{part}.{name}": of for part in ("model", "average", "head") for name, of in state[part].items()}


def test_a_run_stopped_between_checkpoints_ends_bit_for_bit_like_one_that_was_not(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run.train(TINY, tmp_path / "whole", drawn_faces, drawn_faces, None)
    step = run.train_step

    def interrupted(student: run.Student, *rest: Any) -> dict[str, float]:
        if student.step == 3:  # one step beyond the checkpoint at two: it is lost and taken again
            raise Stopped
        return step(student, *rest)

    monkeypatch.setattr(run, "train_step", interrupted)
    with pytest.raises(Stopped):
        run.train(TINY, tmp_path / "stopped", drawn_faces, drawn_faces, None)
    monkeypatch.setattr(run, "train_step", step)
    resumed = run.train(TINY, tmp_path / "stopped", drawn_faces, drawn_faces, None)
    expected, got = weights(whole), weights(resumed)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_the_steps_change_the_model_and_its_average_follows(tmp_path: Path, drawn_faces: Faces) -> None:
    state = checkpoint.load(run.train(TINY, tmp_path, drawn_faces, drawn_faces, None))
    before = run.build(TINY, drawn_faces, None)
    name = "stem.0.0.weight"
    begun, ended, average = before.model.state_dict()[name], state["model"][name], state["average"][name]
    assert not torch.equal(begun, ended)
    assert (average - ended).abs().max() < (begun - ended).abs().max()


def test_every_epoch_sees_every_face_once_whatever_was_before(drawn_faces: Faces) -> None:
    steps = [run.batch_of(drawn_faces, step, TINY)[0] for step in range(8)]
    for epoch in (steps[:4], steps[4:]):
        assert sorted(np.concatenate(epoch)) == list(range(16))
    assert not np.array_equal(np.concatenate(steps[:4]), np.concatenate(steps[4:]))


def test_one_identity_is_refused(tmp_path: Path, drawn_faces: Faces) -> None:
    alone = replace(drawn_faces, label=np.zeros(16, np.int64))
    with pytest.raises(BadData, match="at least two identities"):
        run.train(TINY, tmp_path, alone, drawn_faces, None)


def test_fewer_faces_than_a_batch_are_refused_with_the_way_out(tmp_path: Path, drawn_faces: Faces) -> None:
    with pytest.raises(BadData, match="lower `batch`"):
        run.train(TINY.model_copy(update={"batch": 64}), tmp_path, drawn_faces, drawn_faces, None)


def test_a_loss_that_is_not_a_number_stops_the_run_at_its_step(tmp_path: Path, drawn_faces: Faces) -> None:
    student = run.build(TINY, drawn_faces, None)
    with torch.no_grad():
        student.head.weight.fill_(float("nan"))
    with pytest.raises(run.Diverged, match="step 0: loss nan"):
        run.train_step(student, student.model.train(), drawn_faces, None, TINY)


def test_a_checkpoint_of_another_model_is_refused_and_kept(tmp_path: Path, drawn_faces: Faces) -> None:
    file = tmp_path / "last.pt"
    other = run.build(TINY.model_copy(update={"dimension": 32}), drawn_faces, None)
    checkpoint.save(file, other.state(TINY))
    before = file.read_bytes()
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="another model"):
        run.train(TINY, tmp_path, drawn_faces, drawn_faces, None)
    assert file.read_bytes() == before


def test_a_detector_s_checkpoint_is_refused(tmp_path: Path, drawn_faces: Faces) -> None:
    checkpoint.save(tmp_path / "last.pt", {"kind": "detector"})
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="not an embedder's checkpoint"):
        run.train(TINY, tmp_path, drawn_faces, drawn_faces, None)


def test_probably_wrong_labels_take_no_part_in_the_margin(drawn_faces: Faces) -> None:
    doubted = replace(drawn_faces, similarity=np.full(16, 0.1, np.float32))
    student = run.build(TINY, doubted, None)
    targets = torch.nn.functional.normalize(torch.randn(16, 16))
    config = TINY.model_copy(update={"distillation_weight": 1.0})
    parts = run.train_step(student, student.model.train(), doubted, targets, config)
    assert "arcface" not in parts
    assert "distillation" in parts


def test_slopes_and_scales_are_not_decayed() -> None:
    groups = parameter_groups(0.02, MobileFaceNet(16), torch.nn.Linear(2, 2))
    assert [group["weight_decay"] for group in groups] == [0.02, 0.0]
    assert all(p.ndim >= 2 for p in groups[0]["params"])
    assert all(p.ndim < 2 for p in groups[1]["params"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epochs = 'many'", "epochs"),
        ("epochs = 0", "epochs"),
        ("learning_rat = 0.1", "learning_rat"),
        ("ema = 1.0\nbatch = 1", "ema.*batch|batch.*ema"),
        ("epochs =", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_names_every_wrong_key(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(BadConfig, match=named):
        read_config(EmbedderConfig, tmp_path / "wrong.toml")
