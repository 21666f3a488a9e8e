"""Every backbone takes a step of every loss: what each is alone is tested beside it, here only that they fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.embedder.tiny import PK_FOUR
from training.data.identities import Faces
from training.embedder import student
from training.embedder.backbones import BACKBONES, backbone
from training.embedder.config import EmbedderConfig
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
    training = prepare(config, tmp_path, drawn_faces, None, ALONE)
    model.train()
    before = [weight.detach().clone() for weight in ends(model)]
    index = sampler_of(config, drawn_faces, ALONE).batch(0)
    losses, _ = train_step(training, batch_of(drawn_faces, index, 0, 0, config), 0.01)
    assert training.student.step == 1
    assert loss in losses
    assert all(map(math.isfinite, losses.values()))
    assert losses["gradient"] > 0
    for weight, was in zip(ends(model), before, strict=True):
        assert torch.isfinite(weight).all()
        assert not torch.equal(weight, was)
    assert torch.isfinite(training.student.head.weight).all()


def ends(model: nn.Module) -> list[nn.Parameter]:
    """The weights of the first layer and of the last one."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    return [matrices[0], matrices[-1]]
