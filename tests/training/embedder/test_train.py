"""A stopped run goes on as if it had not been, every loss is learnt, and bad beginnings are refused by name."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.embedder.tiny import STILL, Colours, Tiny, know_tiny, tiny
from tests.training.ranks import FOLDER, on_ranks
from training.config import REPOSITORY, BadConfig
from training.data.identities import BadData, Faces, load_faces
from training.data.sampling import PK
from training.data.shards import write_shards
from training.embedder import train as run
from training.embedder.backbones import BACKBONES
from training.embedder.config import EmbedderConfig
from training.embedder.margins import MARGINS
from training.embedder.objective import Batch, batch_of
from training.embedder.partial_fc import PartialFC
from training.embedder.train import Training, find_rate, main, prepare, sampler_of, train, train_step
from training.evaluation.verification import NotUnitVectors
from training.loop import checkpoint, tracking
from training.loop.diagnosis import Diverged
from training.loop.distributed import ALONE, World, start

pytestmark = [
    pytest.mark.usefixtures("tiny_backbone", "quick_tracking"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
PK_FOUR = {"name": "pk", "people": 2, "pictures": 2}
TENSORBOARD = tracking._tensorboard  # before the fixture's
ONLY_COSINE = {"head": {"weight": 0}, "distillation": {"weight": 1.0}}


def flat(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a checkpoint, with the way to it."""
    if isinstance(state, (dict, list, tuple)):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from flat(value, f"{name}.{key}")
    else:
        yield name, state


def assert_equal(found: Path, expected: Path) -> None:
    ours, theirs = dict(flat(checkpoint.load(found))), dict(flat(checkpoint.load(expected)))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value) if isinstance(value, Tensor) else ours[name] == value, name


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Any) -> None:
    """Let `act()` happen before that step is taken, once."""
    taken, done = run.train_step, []

    def watched(training: Training, batch: Batch, rate: float) -> Any:
        if training.student.step == step and not done:
            done.append(step)
            act()
        return taken(training, batch, rate)

    monkeypatch.setattr(run, "train_step", watched)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# a stopped run goes on

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


# what it leaves behind


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


def test_rates_are_of_the_average_and_of_the_rates_that_the_pairs_carry() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 120, 120, 3), np.uint8)
    identity = np.repeat(np.arange(12), 4)  # each person's four pictures are one: 1,056 impostor pairs
    faces = Faces(
        pictures=noise[identity],
        identity=identity,
        label=identity,
        family=np.full(48, ""),
        similarity=np.ones(48, np.float32),
        source=np.full(48, "noise"),
    )
    model = Tiny(16)
    assert run.validate(model, faces) == {"fnmr@0.01": 0.0}
    embedding = run.embed(model, faces.crops(), batch=5)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)
    with torch.inference_mode():
        alone = model((torch.from_numpy(faces.crops()[7:8].copy()).permute(0, 3, 1, 2) - 127.5) / 127.5)
    np.testing.assert_allclose(embedding[7], (alone / alone.norm()).numpy()[0], atol=1e-6)


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


# the steps


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "polynomial", "warmup": 2}, [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ({"name": "polynomial", "power": 2.0}, [(1 - n / 6) ** 2 for n in range(6)]),
        ({"name": "cosine"}, [(1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)]),
        ({"name": "cosine_restarts", "cycles": 2, "multiply": 1}, [1, 0.75, 0.25] * 2),
        ({"name": "steps", "milestones": [0.5], "gamma": 0.1}, [1, 1, 1, 0.1, 0.1, 0.1]),
        ({"name": "warmup_stable_decay", "warmup": 2, "decay": 0.5}, [0.5, 1, 1, 1, 2 / 3, 1 / 3]),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("sampled", [1.0, 0.5])
def test_the_schedule_drives_the_rate_of_every_optimiser(
    schedule: dict[str, Any],
    expected: list[float],
    sampled: float,
    tmp_path: Path,
    drawn_faces: Faces,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates = []

    def watched(training: Training, batch: Batch, rate: float) -> Any:
        answer = train_step(training, batch, rate)
        groups = [group for of in training.student.optimisers for group in of.param_groups]
        rates.append({group["lr"] for group in groups})
        return answer

    monkeypatch.setattr(run, "train_step", watched)
    config = tiny(
        schedule=schedule, optimiser={"learning_rate": 0.01}, head={"weight": 1.0, "sample_rate": sampled}
    )
    train(config, tmp_path, drawn_faces, drawn_faces)
    assert [len(of) for of in rates] == [1] * 6
    np.testing.assert_allclose([of.pop() for of in rates], 0.01 * np.array(expected))


@pytest.mark.parametrize("sampled", [1.0, 0.5])
def test_the_margin_grows_from_nothing(sampled: float, tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(head={"weight": 1.0, "ramp_steps": 4, "sample_rate": sampled})
    training = prepare(config, tmp_path, drawn_faces, None, ALONE)
    strengths = []
    for step in range(6):
        train_step(training, batch_of(drawn_faces, np.arange(4), step, 0, config), 0.01)
        strengths.append(training.student.head.margin.strength)
    assert strengths == [0, 0.25, 0.5, 0.75, 1, 1]


def steps_of(
    config: EmbedderConfig, faces: Faces, folder: Path, micro_batch: int | None
) -> tuple[Training, dict[str, float]]:
    """What two steps made, and the losses of the second."""
    config = config.model_copy(update={"micro_batch": micro_batch})
    training = prepare(config, folder, faces, Colours(), ALONE)
    for step in range(2):
        index = np.random.default_rng(step).permutation(len(faces))[: config.batch]
        losses, _ = train_step(training, batch_of(faces, index, step, 0, config), 0.1)
    return training, losses


@pytest.mark.parametrize("micro_batch", [2, 3, 4])
@pytest.mark.parametrize("sampled", [False, True])
def test_micro_batches_take_the_step_of_the_whole_batch_though_some_labels_do_not_count(
    micro_batch: int, sampled: bool, tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampled:  # every class in every sample, so that chance has no part in it
        monkeypatch.setattr(PartialFC, "sample", lambda self, positive, draw: torch.arange(len(self.weight)))
    doubted = replace(drawn_faces, similarity=np.where(np.arange(16) % 5 < 2, 0.1, 0.9).astype(np.float32))
    config = tiny(
        batch=8,
        optimiser={"name": "sgd", "learning_rate": 0.1},
        head={"weight": 1.0, "sample_rate": 0.5 if sampled else 1.0},
        distillation={"weight": 2.0},
        metric={
            "centre": 0.1,
            "centre_rate": 0,
        },  # a centre that moves sees micro-batches one after the other
    )
    whole, losses = steps_of(config, doubted, tmp_path, None)
    parts, added = steps_of(config, doubted, tmp_path, micro_batch)
    for name, value in losses.items():
        if name != "spread":
            assert added[name] == pytest.approx(value, rel=1e-4), name
    for of in ("model", "head"):
        for name, value in getattr(whole.student, of).state_dict().items():
            torch.testing.assert_close(
                getattr(parts.student, of).state_dict()[name], value, rtol=1e-4, atol=1e-6
            )


def test_probably_wrong_labels_take_no_part_in_the_margin(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(head={"weight": 1.0}, distillation={"weight": 1.0}, augmentation=STILL)
    doubted = replace(drawn_faces, similarity=np.full(16, 0.1, np.float32))
    training = prepare(config, tmp_path, doubted, Colours(), ALONE)
    centres = training.student.head.weight.clone()
    losses, _ = train_step(training, batch_of(doubted, np.arange(4), 0, 0, config), 0.01)
    assert losses["arcface"] == 0
    assert losses["loss"] == losses["distillation"] > 0
    torch.testing.assert_close(training.student.head.weight, centres * (1 - 0.01 * 0.02))  # decay alone


def test_what_takes_no_part_is_counted(
    tmp_path: Path, drawn_faces: Faces, capsys: pytest.CaptureFixture[str]
) -> None:
    doubted = replace(drawn_faces, similarity=np.where(np.arange(16) < 3, 0.1, 0.9).astype(np.float32))
    train(tiny(sampling=PK_FOUR, epochs=6.0), tmp_path, doubted, doubted)
    told = capsys.readouterr().err
    assert "3 of 16 faces are unlike their own person" in told
    assert "1 people have a single picture" in told


def test_triplets_are_made_of_faces_whose_labels_can_be_believed(drawn_faces: Faces) -> None:
    doubted = replace(drawn_faces, similarity=np.where(np.arange(16) % 4 == 1, 0.1, 0.9).astype(np.float32))
    sampler = sampler_of(tiny(sampling=PK_FOUR), doubted, ALONE)
    drawn = np.concatenate([sampler.batch(step) for step in range(20)])
    assert set(drawn) == {n for n in range(16) if n % 4 != 1}
    assert sampler.batches_per_epoch == PK(drawn_faces.label, 2, 2, 7).batches_per_epoch


def test_every_epoch_sees_every_face_once_whatever_was_before(drawn_faces: Faces) -> None:
    sampler = sampler_of(tiny(), drawn_faces, ALONE)
    steps = [sampler.batch(step) for step in range(8)]
    for epoch in (steps[:4], steps[4:]):
        assert sorted(np.concatenate(epoch)) == list(range(16))
    assert not np.array_equal(np.concatenate(steps[:4]), np.concatenate(steps[4:]))


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


# every loss is learnt

LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {"head": {"name": name, "weight": 1.0, "options": {"scale": 16.0}}}) for name in MARGINS},
    "smoothed softmax": (
        "softmax",
        {"head": {"name": "softmax", "weight": 1.0, "options": {"scale": 16.0, "label_smoothing": 0.1}}},
    ),
    "straight-through arcface": (
        "arcface",
        {
            "head": {
                "weight": 1.0,
                "options": {"scale": 16.0, "margin": 0.5, "gradient": "straight_through"},
            }
        },
    ),
    "arcface on sampled classes": (
        "arcface",
        {"head": {"weight": 1.0, "options": {"scale": 16.0}, "sample_rate": 0.5}},
    ),
    "triplets": (
        "triplet",
        {"head": {"weight": 0}, "metric": {"triplet": 1.0}, "sampling": {**PK_FOUR, "people": 4}, "batch": 8},
    ),
    "centres beside softmax": (
        "centre",
        {"head": {"name": "softmax", "weight": 1.0}, "metric": {"centre": 1.0}},
    ),
    "cosine distillation": ("distillation", ONLY_COSINE),
    "relational distillation": (
        "relations",
        {"head": {"weight": 0}, "distillation": {"weight": 0, "relational": 1.0}},
    ),
    "all of them": (
        "loss",
        {
            "metric": {"triplet": 0.5, "centre": 0.1},
            "distillation": {"weight": 2.0, "relational": 1.0},
            "sampling": {**PK_FOUR, "people": 4},
            "batch": 8,
        },
    ),
}


@pytest.mark.parametrize(("part", "changed"), LOSSES.values(), ids=LOSSES.keys())
def test_every_loss_falls(part: str, changed: dict[str, Any], tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(**{"batch": 16, "augmentation": STILL, **changed})
    training = prepare(config, tmp_path, drawn_faces, Colours(), ALONE)
    sampler = sampler_of(config, drawn_faces, ALONE)
    losses = [
        train_step(training, batch_of(drawn_faces, sampler.batch(step), step, 0, config), 0.01)[0][part]
        for step in range(40)
    ]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


# many processes


def on_two(config: EmbedderConfig, **changed: Any) -> EmbedderConfig:
    return config.model_copy(update={"batch": config.batch // 2, **changed})


def comparable(**changed: Any) -> EmbedderConfig:
    """Of which two ranks with half the batch make the same: no statistics of a batch, no chance of a rank's own."""
    return tiny(
        **{
            "batch": 8,
            "epochs": 2.0,
            "augmentation": STILL,
            "optimiser": {"name": "sgd", "learning_rate": 0.1},
            "metric": {"centre": 0.1},
            "distillation": {"weight": 2.0},
            "ema": 0.5,
            "checkpoint_steps": 3,
            "schedule": {"warmup": 0, "decay": 0.0},
            **changed,
        }
    )


STILL_CENTRES = {"metric": {"centre": 0.1, "centre_rate": 0}}  # micro-batches meet moved ones


def some_faces() -> Faces:
    """Four people in flat colours with four pictures each, a few of which have doubtful labels."""
    rng = np.random.default_rng(1)
    colour = rng.integers(40, 216, (4, 1, 15, 15, 3)) + rng.integers(-40, 40, (4, 4, 15, 15, 3))
    pictures = colour.reshape(16, 15, 15, 3).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    label = np.repeat(np.arange(4), 4)
    return Faces(
        pictures=pictures,
        identity=label,
        label=label,
        family=np.full(16, ""),
        similarity=np.where(np.arange(16) % 7 == 3, 0.1, 0.9).astype(np.float32),
        source=np.full(16, "drawn"),
    )


def train_on_ranks() -> dict[str, Any]:
    """What a rank does in the test below; its folder is the working folder of the test."""
    folder = Path(os.environ[FOLDER])
    know_tiny()
    run.peak_flops = lambda device, dtype: 1e9
    tracking._tensorboard = lambda run, initial: None
    told: dict[str, Any] = {}
    faces, config = some_faces(), on_two(comparable())
    with start("cpu") as world:
        train(config, folder / "two", faces, faces, Colours(), world)
        train(
            on_two(comparable(**STILL_CENTRES), micro_batch=2),
            folder / "two in parts",
            faces,
            faces,
            Colours(),
            world,
        )
        train(on_two(comparable(epochs=3.0)), folder / "one, then two", faces, faces, Colours(), world)
        told["stopped"] = stopped_by_the_other(config, folder / "stopped", faces, world)
        told["failed"] = failed_by_the_first(config, folder / "failed", faces, world)
    return told


def stopped_by_the_other(config: EmbedderConfig, folder: Path, faces: Faces, world: World) -> str:
    taken = run.train_step

    def watched(training: Training, batch: Batch, rate: float) -> Any:
        if not world.first and training.student.step == 1:
            interrupt()
        return taken(training, batch, rate)

    run.train_step = watched
    try:
        train(config, folder, faces, faces, Colours(), world)
    except KeyboardInterrupt:
        return f"stopped at {checkpoint.load(folder / 'last.pt')['step']}"
    finally:
        run.train_step = taken
    return "not stopped"


def failed_by_the_first(config: EmbedderConfig, folder: Path, faces: Faces, world: World) -> str:
    def refuse(path: Path, state: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save, kept = refuse, checkpoint.save
    try:
        train(config, folder, faces, faces, Colours(), world)
    except Exception as error:
        return type(error).__name__
    finally:
        checkpoint.save = kept
    return "not failed"


def test_two_processes_are_together_what_one_is_with_twice_the_batch(tmp_path: Path) -> None:
    faces = some_faces()
    one = checkpoint.load(train(comparable(), tmp_path / "one", faces, faces, Colours()))
    train(comparable(), tmp_path / "one, then two", faces, faces, Colours())
    parted = checkpoint.load(train(comparable(**STILL_CENTRES), tmp_path / "parted", faces, faces, Colours()))
    longer = train(comparable(epochs=3.0), tmp_path / "longer", faces, faces, Colours())
    told = on_ranks(train_on_ranks, 2, tmp_path)
    assert [of["stopped"] for of in told] == ["stopped at 2"] * 2
    assert [of["failed"] for of in told] == ["OSError", "FirstFailed"]

    def assert_close(found: Path, expected: dict[str, Any]) -> dict[str, Any]:
        state = checkpoint.load(found)
        assert state["step"] == expected["step"]
        for part in ("model", "average", "centres"):
            torch.testing.assert_close(state[part], expected[part], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(state["head"]["weight"], expected["head"]["weight"], rtol=1e-4, atol=1e-5)
        return state

    two = assert_close(tmp_path / "two" / "last.pt", one)
    assert two["head"]["moments"]["momentum"].shape == (4, 16)
    assert_close(tmp_path / "one, then two" / "last.pt", checkpoint.load(longer))
    train(comparable(epochs=3.0), tmp_path / "two", faces, faces, Colours())  # and on one process again
    assert_close(tmp_path / "two" / "last.pt", checkpoint.load(longer))
    assert_close(tmp_path / "two in parts" / "last.pt", parted)


# the learning rate by experiment


def test_the_sweep_suggests_a_rate_and_leaves_the_run_alone(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(batch=16, augmentation=STILL)
    rate = find_rate(config, tmp_path / "run", drawn_faces, steps=40)
    assert 1e-5 <= rate <= 0.1
    assert (tmp_path / "run" / "learning-rate.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_sweep_ends_where_the_loss_is_no_number(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = []

    def step(training: Training, batch: Batch, rate: float) -> Any:
        training.student.step += 1
        swept.append(rate)
        if rate > 1e-2:
            raise Diverged("step 9")
        return {"loss": 3 - rate * 100}, []

    monkeypatch.setattr(run, "train_step", step)
    assert find_rate(tiny(), tmp_path, drawn_faces) < 1e-2
    assert swept == sorted(swept)
    assert sum(rate > 1e-2 for rate in swept) == 1


# what cannot be trained


def test_one_identity_is_refused(tmp_path: Path, drawn_faces: Faces) -> None:
    alone = replace(drawn_faces, label=np.zeros(16, np.int64))
    with pytest.raises(BadData, match="at least two identities"):
        train(tiny(), tmp_path, alone, drawn_faces)


def test_a_label_out_of_range_is_refused(tmp_path: Path, drawn_faces: Faces) -> None:
    with pytest.raises(BadData, match="a label is -1: number the identities from 0"):
        train(tiny(), tmp_path, replace(drawn_faces, label=drawn_faces.label - 1), drawn_faces)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": 64}, "lower `batch`"),
        ({"batch": 8, "sampling": {"name": "pk", "people": 4, "pictures": 2}}, None),
        ({"batch": 10, "sampling": {"name": "pk", "people": 5, "pictures": 2}}, "lower `people`"),
    ],
)
def test_fewer_faces_than_a_batch_are_refused_with_the_way_out(
    changed: dict[str, Any], message: str | None, drawn_faces: Faces
) -> None:
    if message is None:
        assert sampler_of(tiny(**changed), drawn_faces, ALONE).batches_per_epoch == 1
    else:
        with pytest.raises(BadData, match=message):
            sampler_of(tiny(**changed), drawn_faces, ALONE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 0.1}, "less than a step: train longer"),
        ({"schedule": {"warmup": 7}}, "no room for a warm-up of 7"),
        ({"distillation": {"weight": 1.0}}, "distils, but there is no teacher"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_it_begins(
    changed: dict[str, Any], message: str, tmp_path: Path, drawn_faces: Faces
) -> None:
    with pytest.raises(BadConfig, match=message):
        train(tiny(**changed), tmp_path / "run", drawn_faces, drawn_faces)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_dimension_can_teach_relations_alone(tmp_path: Path, drawn_faces: Faces) -> None:
    with pytest.raises(BadConfig, match="have 16 numbers, the student's 32: make them equal"):
        train(tiny(dimension=32, distillation={"weight": 1.0}), tmp_path, drawn_faces, drawn_faces, Colours())
    relations = tiny(dimension=32, distillation={"weight": 0, "relational": 1.0})
    train(relations, tmp_path, drawn_faces, drawn_faces, Colours())


def test_hints_are_the_reference_s(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(backbone="mobilefacenet", distillation={"weight": 1.0, "hint_steps": 2})
    with pytest.raises(BadConfig, match="hint_steps: only the reference embedder's layers are known"):
        prepare(config, tmp_path, drawn_faces, Colours(), ALONE)


def test_without_a_compiler_the_way_out_is_named(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++ -O2")
    with pytest.raises(
        BadConfig, match=r"needs a C\+\+ compiler, and /nowhere/g\+\+ is not .* compile = false"
    ):
        prepare(tiny(compile=True), tmp_path, drawn_faces, None, ALONE)


@pytest.mark.parametrize("sampled", [1.0, 0.5])
def test_a_loss_that_is_no_number_stops_the_run_before_a_weight_moves_and_nothing_is_saved(
    sampled: float, tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(head={"weight": 1.0, "sample_rate": sampled}, checkpoint_steps=1)
    kept: list[Any] = []
    taken = run.train_step

    def poisoned(training: Training, batch: Batch, rate: float) -> Any:
        if training.student.step == 3:
            kept.append((training, {k: v.clone() for k, v in training.student.model.state_dict().items()}))
            with torch.no_grad():
                training.student.head.weight[:] = math.nan
        return taken(training, batch, rate)

    monkeypatch.setattr(run, "train_step", poisoned)
    with pytest.raises(Diverged, match=r"step 3: loss loss is nan; first not finite: head\.weight"):
        train(config, tmp_path, drawn_faces, drawn_faces)
    (training, before), *_ = kept
    assert training.student.step == 3
    assert all(torch.equal(training.student.model.state_dict()[k], v) for k, v in before.items())
    assert checkpoint.load(tmp_path / "last.pt")["step"] == 3


def test_a_gradient_of_the_head_alone_that_is_no_number_is_seen(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny()
    training = prepare(config, tmp_path, drawn_faces, None, ALONE)
    training.student.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(Diverged, match="the gradient's length is"):
        train_step(training, batch_of(drawn_faces, np.arange(4), 0, 0, config), 0.01)


def test_fp16_leaves_a_step_out_whose_gradients_overflowed(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(precision="fp16", head={"weight": 1.0, "sample_rate": 0.5})
    training = prepare(config, tmp_path, drawn_faces, None, ALONE)
    student = training.student
    hook = student.head.weight.register_hook(lambda gradient: gradient * math.inf)
    before = {k: v.clone() for k, v in student.model.state_dict().items()}
    scale = student.precision.scale
    train_step(training, batch_of(drawn_faces, np.arange(4), 0, 0, config), 0.01)
    assert all(torch.equal(student.model.state_dict()[k], v) for k, v in before.items())
    assert student.precision.scale == scale / 2
    hook.remove()
    for step in range(1, 20):  # the scale is halved until nothing overflows
        train_step(training, batch_of(drawn_faces, np.arange(4), step, 0, config), 0.01)
    assert not torch.equal(student.model.state_dict()["hidden.weight"], before["hidden.weight"])


def test_fp16_takes_the_steps_in_which_the_head_waits(tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(
        precision="fp16", head={"weight": 0, "sample_rate": 0.5}, distillation={"weight": 1.0}, epochs=0.75
    )
    assert train(config, tmp_path, drawn_faces, drawn_faces, Colours()).is_file()


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


# the command


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face set of six people with two pictures each for training, and of two for validation."""
    root = tmp_path_factory.mktemp("set") / "faces"
    colour = np.random.default_rng(2).integers(0, 256, (8, 2, 3), np.uint8)
    flat = [
        (np.full((120, 120, 3), colour[who, n]), f"p{who}", "drawn") for who in range(8) for n in range(2)
    ]
    write_shards(root, flat)
    rows = [f"{who},{'train' if who < 6 else 'validation'},2" for who in range(8)]
    (root / "split.csv").write_text("\n".join(["identity,split,faces", *rows]))
    return root


def write_toml(folder: Path, distilled: bool = False, **changed: Any) -> Path:
    """A tiny run, without a teacher unless asked."""
    values = {
        "backbone": "tiny",
        "dimension": 16,
        "batch": 6,
        "epochs": 1,
        "precision": "fp32",
        "device": "cpu",
        "compile": False,
        **changed,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    lines += ["schedule = { warmup = 1 }", f"distillation = {{ weight = {20 * distilled} }}"]
    (folder / "tiny.toml").write_text("\n".join(lines))
    return folder / "tiny.toml"


def test_the_command_trains_or_looks_for_a_rate(
    tmp_path: Path, drawn_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--config", str(write_toml(tmp_path)), "--run", str(tmp_path / "run"), "--faces", str(drawn_set)]
    monkeypatch.setattr(run, "find_rate", lambda *asked: 0.0123)
    assert main([*asked, "--find-rate"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("suggested learning_rate: 0.012;")
    assert not (tmp_path / "run").exists()
    assert main(asked) == 0
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 2


def test_the_command_explains_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for argument in ("--config", "--run", "--faces", "--teacher", "--find-rate", "the same command goes on"):
        assert argument in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "{}/none.toml"], "none.toml: no such file"),
        (["--config", "{}/wrong.toml"], "epoch"),
        (["--config", "{config}", "--faces", "{}/nowhere"], "nowhere: no such file or folder"),
        (["--config", "{config}", "--faces", "{}/empty"], "an empty folder; a set of faces is"),
        (["--config", "{config}", "--run", "{}/other"], "a checkpoint of 'detector', not of 'embedder'"),
        (["--config", "{config}", "--run", "{}/damaged"], "last.pt cannot be read"),
        (["--config", "{distils}", "--teacher", "{}/none.onnx"], "none.onnx: no such teacher"),
        (["--config", "{distils}", "--teacher", "{}/wrong.toml"], "wrong.toml takes nothing: a teacher is"),
    ],
)
def test_bad_input_ends_in_one_line_of_the_first_rank(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    drawn_set: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.toml").write_text("epoch = 3")
    (tmp_path / "distils").mkdir()
    checkpoint.save(tmp_path / "other" / "last.pt", {"kind": "detector"})
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "last.pt").write_bytes(b"half")
    places = {
        "{config}": str(write_toml(tmp_path)),
        "{distils}": str(write_toml(tmp_path / "distils", distilled=True)),
        "{}": str(tmp_path),
    }
    asked = ["--faces", str(drawn_set), "--run", str(tmp_path / "run"), *arguments]
    for place, path in places.items():
        asked = [of.replace(place, path) for of in asked]
    assert main(asked) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(told) == 1
    assert message in told[0]
    for rank in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(rank, "1")
    monkeypatch.setattr(run, "start", lambda device: nullcontext(World(1, 1)))
    monkeypatch.setattr(run, "SPEAKING_S", 0)
    assert main(asked) == 1
    assert "failed" not in capsys.readouterr().err


@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_says_how_to_go_on(
    begun: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if begun:
        checkpoint.save(tmp_path / "last.pt", {"kind": "embedder"})

    def stop(asked: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_run", stop)
    assert main(["--run", str(tmp_path)]) == 130
    how = f"goes on from {tmp_path}/last.pt" if begun else "begins anew: there is no checkpoint yet"
    assert capsys.readouterr().err == f"stopped; the same command {how}\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_takes_a_step_as_the_command_line_asks_for_it(
    name: str, tmp_path: Path, drawn_set: Path
) -> None:
    file = write_toml(tmp_path, backbone=name, batch=2, epochs=0.34, evaluate_steps=1)
    command = [
        sys.executable, "-m", "training.embedder.train",
        "--config", str(file), "--run", str(tmp_path / "run"), "--faces", str(drawn_set)
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 2
