"""Every backbone costs what is published of it and answers features of the strides that it names."""

from __future__ import annotations

import pytest
import torch

from training.config import BadConfig
from training.detector.backbones import BACKBONES, backbone, options_of
from training.detector.backbones.resnet import Bottleneck
from training.detector.backbones.stages import Stages
from training.embedder.backbones.cost import macs, parameters

# Whole classifiers of 1,000 classes at 224 × 224. ResNet: torchvision's models, counted layer by layer; MobileNet: its
# paper's tables 6 and 7, in millions.
RESNETS = [
    ("resnet18", 11_689_512, 1_814_073_344),
    ("resnet34", 21_797_672, 3_663_761_408),
    ("resnet50", 25_557_032, 4_089_184_256),
]
MOBILENETS = [(1.0, "4.2", "569"), (0.5, "1.3", "149"), (0.25, "0.5", "41")]


def weightless(name: str, **options: object) -> Stages:
    with torch.device("meta"):
        return backbone(name, **options)


def as_classifier(model: Stages) -> tuple[int, int]:
    """(parameters, MACs) with the matrix of 1,000 classes that the detector has no use for."""
    matrix = 1000 * model.channels[-1]
    return parameters(model) + matrix + 1000, macs(model, (1, 3, 224, 224)) + matrix


@pytest.mark.parametrize(("name", "numbers", "products"), RESNETS)
def test_a_resnet_is_the_published_one(name: str, numbers: int, products: int) -> None:
    assert as_classifier(weightless(name)) == (numbers, products)


@pytest.mark.parametrize(("width", "millions", "products"), MOBILENETS)
def test_a_mobilenet_costs_what_its_paper_says(width: float, millions: str, products: str) -> None:
    numbers, macs_of = as_classifier(weightless("mobilenet", width=width))
    assert (f"{numbers / 1e6:.1f}", f"{macs_of / 1e6:.0f}") == (millions, products)


@pytest.mark.parametrize(
    ("width", "channels"), [(0.25, (16, 32, 64, 128)), (0.375, (24, 48, 96, 192)), (0.5, (32, 64, 128, 256))]
)
def test_a_narrow_resnet_has_its_share_of_the_channels_and_the_slim_stem(
    width: float, channels: tuple[int, ...]
) -> None:
    narrow, whole = weightless("resnet18", width=width), weightless("resnet18")
    assert narrow.channels == channels
    shapes = [module.kernel_size for module in narrow.stem.modules() if hasattr(module, "kernel_size")]
    assert shapes == [(3, 3), (3, 3)]
    # 3 × 3 convolutions between w times the channels cost w² of the products; the stem and its shortcuts differ
    share = macs(narrow, (1, 3, 480, 640)) / macs(whole, (1, 3, 480, 640))
    assert share == pytest.approx(width**2, rel=0.1)


@pytest.mark.parametrize("name", BACKBONES)
def test_each_feature_has_the_channels_and_the_stride_that_are_named(name: str) -> None:
    model = weightless(name).eval()
    features = model(torch.empty(2, 3, 64, 96, device="meta"))
    assert model.strides == (4, 8, 16, 32)
    expected = [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(model.channels, model.strides, strict=True)
    ]
    assert [tuple(of.shape) for of in features] == expected


def test_stages_that_nobody_reads_are_left_out() -> None:
    model = weightless("resnet18")
    model.end_at(16)
    assert (model.strides, model.channels) == ((4, 8, 16), (64, 128, 256))
    assert len(model.eval()(torch.empty(1, 3, 64, 64, device="meta"))) == 3


def test_the_bottleneck_strides_in_its_middle() -> None:
    block = Bottleneck(8, 4, 2)
    assert [m.stride for m in block.modules() if isinstance(m, torch.nn.Conv2d)][:3] == [
        (1, 1),
        (2, 2),
        (1, 1),
    ]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadConfig, match=r"'resnet101' is unknown.*resnet, resnet18"):
        backbone("resnet101")


def test_an_option_of_another_backbone_is_refused() -> None:
    with pytest.raises(BadConfig, match="'resnet50' takes no `width`"):
        backbone("resnet50", width=0.5)
    assert options_of("mobilenet") == ("width",)
