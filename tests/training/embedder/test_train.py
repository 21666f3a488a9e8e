"""A run leaves behind its models, its best, its figures and its configuration."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.embedder.runs import assert_equal, records
from tests.training.embedder.tiny import Colours, tiny
from training.data.identities import Faces, load_faces
from training.data.shards import write_shards
from training.embedder import train as run
from training.embedder.config import EmbedderConfig
from training.embedder.train import prepare, train
from training.evaluation.verification import NotUnitVectors
from training.loop import checkpoint, tracking
from training.loop.distributed import ALONE

pytestmark = [
    pytest.mark.usefixtures("tiny_backbone", "quick_tracking"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


TENSORBOARD = tracking._tensorboard  # before the fixture's


def test_the_steps_change_the_model_and_its_average_follows(tmp_path: Path, drawn_faces: Faces) -> None:
    begun = prepare(tiny(), tmp_path, drawn_faces, None, ALONE).student.model.state_dict()
    state = checkpoint.load(train(tiny(), tmp_path, drawn_faces, drawn_faces))
    name = "hidden.weight"
    begun, ended, average = begun[name], state["model"][name], state["average"][name]
    assert not torch.equal(begun, ended)
    assert (average - ended).abs().max() < (begun - ended).abs().max()


def test_validation_is_recorded_and_the_best_step_kept(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([0.5, 0.2, 0.3])
    monkeypatch.setattr(run, "validate", lambda model, faces: {"fnmr@0.001": next(rates)})
    train(tiny(evaluate_steps=2), tmp_path, drawn_faces, drawn_faces)
    measured = [(of["step"], of["fnmr@0.001"]) for of in records(tmp_path) if "fnmr@0.001" in of]
    assert measured == [(2, 0.5), (4, 0.2), (6, 0.3)]
    best = checkpoint.load(tmp_path / "best.pt")
    assert (best["step"], best["best"]["value"]) == (4, 0.2)
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 6


def test_the_best_is_a_whole_checkpoint_to_go_on_from(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "validate", lambda model, faces: {"fnmr@0.001": next(rates)})
    rates = iter([0.2, 0.5])
    whole = train(tiny(evaluate_steps=3), tmp_path / "whole", drawn_faces, drawn_faces)
    again = tmp_path / "again"
    again.mkdir()
    (tmp_path / "whole" / "best.pt").rename(again / "last.pt")
    rates = iter([0.5])
    resumed = train(tiny(evaluate_steps=3), again, drawn_faces, drawn_faces)
    assert_equal(resumed, whole)


def test_a_validation_set_that_carries_no_rate_is_said_to(
    tmp_path: Path, drawn_faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(), tmp_path, drawn_faces, drawn_faces)
    assert "too few impostor pairs for fnmr@0.001" in capsys.readouterr().err
    assert not (tmp_path / "best.pt").exists()


def test_an_average_that_cannot_be_validated_yet_does_not_end_the_run(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overflow(model: nn.Module, validation: Faces) -> dict[str, float]:
        raise NotUnitVectors("lengths are 0 to 0")

    monkeypatch.setattr(run, "validate", overflow)
    assert checkpoint.load(train(tiny(), tmp_path, drawn_faces, drawn_faces))["step"] == 6
    assert "no validation: lengths are 0 to 0" in capsys.readouterr().err


def test_losses_pace_and_configuration_are_written_down(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(metric={"centre": 0.1}, distillation={"weight": 1.0}, epochs=5.0)
    train(config, tmp_path, drawn_faces, drawn_faces, Colours())
    record = records(tmp_path)[0]
    assert record["step"] == 20
    named = {"loss", "arcface", "centre", "distillation", "gradient", "spread", "cosine"}
    assert named | {"rate", "img/s", "wait", "peak"} <= record.keys()
    assert all(math.isfinite(value) for value in record.values())
    assert record["loss"] == pytest.approx(
        record["arcface"] + 0.1 * record["centre"] + record["distillation"], rel=1e-5
    )
    told = json.loads((tmp_path / "config.json").read_text())
    assert EmbedderConfig.model_validate(told["config"]) == config


def test_tensorboard_gets_its_events(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(tracking, "_tensorboard", TENSORBOARD)
    train(tiny(), tmp_path, drawn_faces, drawn_faces)
    (events,) = (tmp_path / "tensorboard").glob("events.out.tfevents.*")
    assert b"train/arcface" in events.read_bytes()


def test_pictures_that_stay_in_their_files_are_trained_on_alike(tmp_path: Path, drawn_faces: Faces) -> None:
    rows = [
        (picture, f"p{who}", "drawn")
        for picture, who in zip(drawn_faces.pictures, drawn_faces.label, strict=True)
    ]
    write_shards(tmp_path / "set", rows)
    config = tiny(distillation={"weight": 1.0}, workers=1)
    ended = []
    for decoded in (0, 100):
        faces = load_faces(tmp_path / "set", decoded=decoded)
        assert isinstance(faces.pictures, np.ndarray) == (decoded > 0)
        ended.append(train(config, tmp_path / str(decoded), faces, faces, Colours()))
    assert_equal(*ended)
