"""Every backbone takes a step of every loss, and one of every other way: what each is alone is tested beside it, here
only that they fit. (Layer hints: test_hints.py.)"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.embedder.tiny import PK_FOUR, Colours
from training.data.identities import Faces
from training.embedder import student
from training.embedder.backbones import BACKBONES, backbone
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import Teacher
from training.embedder.margins import MARGINS
from training.embedder.objective import batch_of
from training.embedder.sampling import sampler_of
from training.embedder.train import prepare, train_step
from training.loop.distributed import ALONE

STEP = {
    "dimension": 16,
    "batch": 4,
    "precision": "fp32",
    "device": "cpu",
    "optimiser": {"name": "sgd", "learning_rate": 0.01},
    "distillation": {"weight": 0},
    "compile": False,
}
LOSSES: dict[str, dict[str, Any]] = {
    **{name: {"head": {"name": name, "weight": 1.0}} for name in MARGINS},
    "triplet": {
        "head": {"weight": 0},
        "metric": {"triplet": 1.0, "triplet_margin": 4.0},
        "sampling": PK_FOUR,
    },
    "centre": {"metric": {"centre": 0.1}},
}
WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # what has to be among the losses, and what is asked
    "a teacher's embedding": ("distillation", {"distillation": {"weight": 1.0}}),
    "a teacher's relations": ("relations", {"distillation": {"weight": 0, "relational": 1.0}}),
    "sampled classes": ("arcface", {"head": {"weight": 1.0, "sample_rate": 0.5}}),
    "straight-through": ("arcface", {"head": {"weight": 1.0, "options": {"gradient": "straight_through"}}}),
    "bf16": ("arcface", {"precision": "bf16"}),
    "micro-batches": ("arcface", {"micro_batch": 2}),
}


@pytest.fixture(scope="module", params=sorted(BACKBONES))
def built(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """A backbone's name, and one that all losses share: the largest takes seconds to draw."""
    torch.manual_seed(0)
    return request.param, backbone(request.param, 16)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_backbone_takes_a_step_of_every_loss(
    loss: str,
    built: tuple[str, nn.Module],
    drawn_faces: Faces,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, model = built
    # the average shares the weights: nobody looks at a second network, which takes seconds and 260 MB
    monkeypatch.setattr(student, "backbone", lambda *_: model)
    config = EmbedderConfig.model_validate({**STEP, "backbone": name, **LOSSES[loss]})
    assert loss in losses_of_a_step(config, drawn_faces, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_default_backbone_takes_a_step_each_other_way(
    way: str, drawn_faces: Faces, tmp_path: Path
) -> None:
    loss, asked = WAYS[way]
    config = EmbedderConfig.model_validate({**STEP, **asked})
    assert loss in losses_of_a_step(config, drawn_faces, tmp_path, Colours() if config.distilled else None)


def losses_of_a_step(
    config: EmbedderConfig, faces: Faces, run: Path, teacher: Teacher | None = None
) -> dict[str, float]:
    """All of them finite, after one step that moved the network's both ends and left nothing that is no number."""
    training = prepare(config, run, faces, teacher, ALONE)
    model = training.student.model.train()
    before = [weight.detach().clone() for weight in ends(model)]
    index = sampler_of(config, faces, ALONE).batch(0)
    losses, _ = train_step(training, batch_of(faces, index, 0, 0, config), 0.01)
    assert training.student.step == 1
    assert all(map(math.isfinite, losses.values()))
    assert losses["gradient"] > 0
    for weight, was in zip(ends(model), before, strict=True):
        assert torch.isfinite(weight).all()
        assert not torch.equal(weight, was)
    assert torch.isfinite(training.student.head.weight).all()
    return losses


def ends(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the first layer and of the last one."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    return [matrices[0], matrices[-1]]
