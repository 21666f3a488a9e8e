"""Every backbone costs what is published of it, takes a training step, and answers the raw float32 embedding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.config import BadConfig
from training.embedder.backbones import BACKBONES, backbone
from training.embedder.backbones.autocast import without_autocast
from training.embedder.backbones.cost import macs, parameters

# 10⁶ parameters and 10⁹ multiply-accumulates at 112 × 112. MobileFaceNet: 221 million in its paper (section 3.3), its
# parameters in the next file. mbf: InsightFace's get_mbf(512). IResNet: arcface_torch's models, counted layer by layer.
PUBLISHED = [
    ("mobilefacenet", 128, "1.00", "0.221"),
    ("mobilefacenet_quick", 128, "1.00", "0.221"),  # the paper's but for 1,792 slopes
    ("mbf", 512, "2.06", "0.4375"),
    ("iresnet18", 512, "24.03", "2.610"),
    ("iresnet34", 512, "34.14", "4.460"),
    ("iresnet50", 512, "43.59", "6.309"),
    ("iresnet100", 512, "65.16", "12.090"),
]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def weightless(name: str, dimension: int) -> nn.Module:
    with torch.device("meta"):
        return backbone(name, dimension)


def digits_of(number: float, like: str) -> str:
    return f"{number:.{len(like.split('.')[1])}f}"


def test_every_backbone_has_a_published_cost() -> None:
    assert {name for name, *_ in PUBLISHED} == set(BACKBONES)


@pytest.mark.parametrize(("name", "dimension", "millions", "billions"), PUBLISHED)
def test_it_has_as_many_parameters_as_published(
    name: str, dimension: int, millions: str, billions: str
) -> None:
    assert digits_of(parameters(weightless(name, dimension)) / 1e6, millions) == millions


@pytest.mark.parametrize(("name", "dimension", "millions", "billions"), PUBLISHED)
def test_it_multiplies_as_often_as_published(name: str, dimension: int, millions: str, billions: str) -> None:
    assert digits_of(macs(weightless(name, dimension)) / 1e9, billions) == billions


@pytest.mark.parametrize("name", BACKBONES)
def test_a_training_step_in_bf16_gives_every_trained_weight_a_finite_gradient(name: str) -> None:
    model = backbone(name, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        embedding = model(torch.randn(2, 3, 112, 112).to(memory_format=torch.channels_last))
    assert embedding.dtype == torch.float32
    assert embedding.shape == (2, model.dimension) == (2, 16)
    (embedding @ torch.randn(16)).square().sum().backward()
    for label, weight in model.named_parameters():
        if weight.requires_grad:
            assert torch.isfinite(weight.grad).all(), label
            assert weight.grad.any() or weight.ndim == 1, (
                label
            )  # a bias that the next normalisation takes off has 0


@pytest.mark.parametrize("name", ["mobilefacenet", "mbf", "iresnet18"])
def test_the_embedding_keeps_its_length(name: str) -> None:
    """Length carries the picture's quality; whoever compares two faces makes them unit vectors."""
    with torch.no_grad():
        length = backbone(name, 8)(torch.randn(3, 3, 112, 112)).norm(dim=1)
    assert length.max() - length.min() > 1e-3
    assert not torch.isclose(length, torch.ones(3)).any()


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        BadConfig, match=r"'resnet50' is unknown.*mobilefacenet, mobilefacenet_quick, mbf, iresnet18"
    ):
        backbone("resnet50", 128)


def test_the_count_of_a_small_network_is_the_one_by_hand() -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),  # 6 channels × 5 × 5 places × 2 · 3 · 3 products
        nn.PReLU(6),
        nn.Flatten(),
        nn.Linear(150, 7),
    )
    assert macs(model, (1, 4, 10, 10)) == 6 * 25 * 18 + 150 * 7
    assert parameters(model) == 6 * 18 + 6 + 6 + 150 * 7 + 7


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert macs(model, (2, 3, 8, 8)) == 2 * macs(model, (1, 3, 8, 8))
    assert all(module.training for module in model.modules())
    assert not model[0]._forward_hooks
    for name, value in model.state_dict().items():
        assert value.device.type == "cpu"
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_without_autocast_products_keep_their_type() -> None:
    x = torch.randn(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with without_autocast(x):
            assert (x @ x).dtype == torch.float32
