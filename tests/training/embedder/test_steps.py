"""A step does what its configuration says, the same in parts as in one, and every loss is learnt."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.embedder.tiny import PK_FOUR, STILL, Colours, tiny
from training.data.identities import Faces
from training.embedder import train as run
from training.embedder.backbones import BACKBONES
from training.embedder.config import EmbedderConfig
from training.embedder.margins import MARGINS
from training.embedder.objective import Batch, batch_of
from training.embedder.partial_fc import PartialFC
from training.embedder.sampling import sampler_of
from training.embedder.train import Training, prepare, train, train_step
from training.loop import checkpoint
from training.loop.diagnosis import Diverged
from training.loop.distributed import ALONE

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


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
@pytest.mark.parametrize(("sampled", "micro_batch"), [(1.0, None), (0.5, None), (1.0, 2)])
def test_the_schedule_drives_the_rate_of_every_optimiser(
    schedule: dict[str, Any],
    expected: list[float],
    sampled: float,
    micro_batch: int | None,
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
        schedule=schedule,
        optimiser={"learning_rate": 0.01},
        head={"weight": 1.0, "sample_rate": sampled},
        micro_batch=micro_batch,
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


# every loss is learnt

ONLY_COSINE = {"head": {"weight": 0}, "distillation": {"weight": 1.0}}
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


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_takes_a_step(name: str, tmp_path: Path, drawn_faces: Faces) -> None:
    config = tiny(
        backbone=name, batch=2, precision="bf16", optimiser={"name": "sgd", "learning_rate": 0.01}
    )  # bf16: half the time of fp32, and the default
    training = prepare(config, tmp_path, drawn_faces, None, ALONE)
    first = next(weight for weight in training.student.model.parameters() if weight.ndim == 4)
    before, average = first.detach().clone(), next(iter(training.student.average.parameters())).clone()
    losses, _ = train_step(training, batch_of(drawn_faces, np.arange(0, 8, 4), 0, 0, config), 0.01)
    assert math.isfinite(losses["arcface"])
    assert losses["gradient"] > 0
    assert not torch.equal(first, before)
    assert not torch.equal(next(iter(training.student.average.parameters())), average)


def test_the_backbone_s_gradient_is_shortened_and_the_head_s_is_not(
    tmp_path: Path, drawn_faces: Faces
) -> None:
    moved: list[tuple[float, torch.Tensor]] = []
    for longest in (1e-3, 1e9):
        config = tiny(
            optimiser={"name": "sgd", "learning_rate": 0.1, "weight_decay": 0}, max_gradient_norm=longest
        )
        training = prepare(config, tmp_path, drawn_faces, None, ALONE)
        model, head = training.student.model, training.student.head.weight
        before, centres = [of.detach().clone() for of in model.parameters()], head.detach().clone()
        losses, _ = train_step(training, batch_of(drawn_faces, np.arange(4), 0, 0, config), 0.1)
        steps = [(of - was).flatten() for of, was in zip(model.parameters(), before, strict=True)]
        moved.append((torch.cat(steps).norm().item(), head.detach() - centres))
        assert losses["gradient"] > 1  # as it was before
    (short, of_one), (long, of_other) = moved
    assert short == pytest.approx(0.1 * 1e-3, rel=1e-2)
    assert long > 0.1
    torch.testing.assert_close(of_one, of_other)
