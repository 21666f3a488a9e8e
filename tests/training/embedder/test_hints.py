"""The reference's layers teach ours: which layer meets which, until which step, and in what numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.embedder.tiny import Colours, tiny
from training.data.drawing import aligned
from training.data.identities import Faces
from training.embedder import train
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.embedder.distillation import ReferenceEmbedder, normalise
from training.embedder.hints import LAYERS, Hints, Ways, followed, forced
from training.embedder.objective import batch_of
from training.loop.distributed import ALONE
from training.loop.imitation import channel_scales


class Plus(nn.Module):
    """Adds a number: whatever went through can be read off the sum."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.amount


class Sum(nn.Module):
    """A stem, two blocks and an end like MobileFaceNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Plus(1.0)
        self.blocks = nn.Sequential(Plus(10.0), Plus(100.0))
        self.head = nn.Sequential(Plus(1_000.0), Plus(10_000.0))
        self.embedding, self.norm = Plus(100_000.0), Plus(1_000_000.0)

    def forward(self, x: Tensor) -> Tensor:
        return followed(self, x)[1]


class Layers:
    """What `Hints` is to `Ways`: 5, 6 and 7 as the three layers of every face."""

    def __init__(self) -> None:
        self.scale = [torch.full((1,), of) for of in (1.0, 2.0, 4.0)]

    def features(self, crops: np.ndarray) -> list[Tensor]:
        return [torch.full((len(crops), 1, 1, 1), value) for value in (5.0, 6.0, 7.0)]


PICTURE, CROPS = torch.zeros(2, 1, 1, 1), np.zeros((2, 1, 1, 1), np.uint8)


def numbers(outputs: list[Tensor]) -> list[float]:
    return [of.flatten()[0].item() for of in outputs]


def test_followed_every_layer_is_fed_the_one_before() -> None:
    outputs, embedding = followed(Sum(), PICTURE)
    assert numbers(outputs) == [11, 111, 1_111]
    assert embedding.tolist() == [[1_111_111.0]] * 2


def test_forced_every_layer_is_fed_what_the_reference_feeds_its_own() -> None:
    outputs, embedding = forced(Sum(), PICTURE, Layers().features(CROPS))
    assert numbers(outputs) == [11, 5 + 100, 6 + 1_000]
    assert embedding.tolist() == [[7.0 + 1_110_000]] * 2


def test_forced_no_layer_s_error_moves_another() -> None:
    model = Sum()
    outputs, _ = forced(model, PICTURE, Layers().features(CROPS))
    outputs[1].sum().backward()
    moved = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert moved == ["blocks.1.amount"]


def test_the_way_changes_after_the_forced_steps_and_after_the_hints() -> None:
    config = tiny(backbone="mobilefacenet", distillation={"weight": 1.0, "forced_steps": 2, "hint_steps": 4})
    ways = Ways(Sum(), Layers(), config)  # type: ignore[arg-type]
    distances, embeddings = zip(*(ways(PICTURE, CROPS, step) for step in range(6)), strict=True)
    by_force = 1 * 6**2 + 2 * 99**2 + 4 * 999**2
    beside = 1 * 6**2 + 2 * 105**2 + 4 * 1_104**2
    assert [None if of is None else of.item() for of in distances] == [
        by_force,
        by_force,
        beside,
        beside,
        None,
        None,
    ]
    assert [of[0, 0].item() for of in embeddings] == [1_110_007.0] * 2 + [1_111_111.0] * 4


def test_without_hints_the_model_goes_alone() -> None:
    ways = Ways(Sum(), None, tiny(backbone="mobilefacenet"))
    assert ways(PICTURE, CROPS, 0)[0] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_twins_are_the_model_s_own_forward_pass(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = MobileFaceNet(16).eval()
    picture = torch.randn(2, 3, 112, 112)
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        outputs, embedding = followed(model, picture)
        torch.testing.assert_close(embedding, model(picture), rtol=0, atol=0)
        # fed its own layers, it makes the same by force
        again, of_the_last = forced(model, picture, outputs)
    assert embedding.dtype == torch.float32
    assert len(outputs) == len(LAYERS) == 16
    torch.testing.assert_close(again, outputs, rtol=0, atol=0)
    torch.testing.assert_close(of_the_last, embedding, rtol=0, atol=0)


class Elder:
    """What `Hints` is to `Ways`: the layers of a network of the same blocks."""

    def __init__(self, plain: np.ndarray) -> None:
        torch.manual_seed(1)
        self.network = MobileFaceNet(16)  # in training, lest an untrained one's layers grow without bounds
        self.scale = channel_scales(self.features(plain))

    @torch.no_grad()
    def features(self, crops: np.ndarray) -> list[Tensor]:
        return followed(self.network, normalise(torch.from_numpy(crops)))[0]


def test_the_distance_to_another_network_s_layers_falls(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(backbone="mobilefacenet", distillation={"weight": 1.0, "forced_steps": 3, "hint_steps": 5})
    monkeypatch.setattr(train, "_hints", lambda *asked: Elder(drawn_faces.crops()[:4].copy()))
    training = train.prepare(config, tmp_path, drawn_faces, Colours(), ALONE)
    batch = batch_of(drawn_faces, np.arange(4), 0, 0, config)
    losses = [train.train_step(training, batch, 2e-3)[0] for _ in range(6)]
    assert ["hints" in of for of in losses] == [True] * 5 + [False]
    assert losses[2]["hints"] < 0.9 * losses[0]["hints"]
    assert losses[4]["hints"] < losses[3]["hints"]


@pytest.fixture
def reference(datasets: Path) -> Path:
    return datasets / "reference" / "MobileFaceNet.onnx"


@pytest.mark.needs_data
def test_the_reference_has_every_layer_in_the_shape_of_ours(reference: Path) -> None:
    crops = np.stack([aligned(who, 0, 112) for who in range(3)])
    hints = Hints(reference, crops)
    outputs, _ = followed(MobileFaceNet(128).eval(), torch.zeros(3, 3, 112, 112))
    features = hints.features(crops)
    assert [of.shape for of in features] == [of.shape for of in outputs]
    assert {of.dtype for of in features} == {torch.bfloat16}
    assert all(of.is_contiguous(memory_format=torch.channels_last) for of in features)
    assert [of.shape for of in hints.scale] == [of.shape[1:2] for of in outputs]
    exact = Hints(reference, crops, dtype=torch.float32).features(crops)
    for of, near in zip(exact, features, strict=True):
        torch.testing.assert_close(of, near.float(), rtol=1e-2, atol=1e-2)


@pytest.mark.needs_data
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_forced_steps_lower_the_distance_to_the_reference(
    precision: str, reference: Path, drawn_faces: Any, tmp_path: Path
) -> None:
    config = tiny(
        backbone="mobilefacenet",
        dimension=128,
        precision=precision,
        distillation={"weight": 1.0, "forced_steps": 3, "hint_steps": 5},
    )
    teacher = ReferenceEmbedder(reference, 1)
    training = train.prepare(config, tmp_path, drawn_faces, teacher, ALONE)
    batch = batch_of(drawn_faces, np.arange(4), 0, 0, config)
    losses = [train.train_step(training, batch, 2e-3)[0] for _ in range(6)]
    assert ["hints" in of for of in losses] == [True] * 5 + [False]
    assert ["arcface" in of for of in losses] == [False] * 3 + [True] * 3
    assert losses[2]["hints"] < losses[0]["hints"]
    assert all(np.isfinite(list(of.values())).all() for of in losses)
