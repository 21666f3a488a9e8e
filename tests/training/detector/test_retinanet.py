from __future__ import annotations

import numpy as np
import pytest
import torch

from bundle.decode import AnchorLayout, anchors
from training.detector.backbones import BACKBONES, backbone
from training.detector.backbones.slim_resnet import slim_resnet
from training.detector.retinanet import RetinaNet, ServedDetector, normalise
from training.embedder.backbones.cost import macs, parameters

VGA = (1, 3, 480, 640)
CELLS = 80 * 60 + 40 * 30 + 20 * 15  # of strides 8, 16 and 32 at VGA
TINY = ((8, 8, 8, 8), (1, 1, 1, 1))


@pytest.fixture(scope="module")
def model() -> RetinaNet:
    torch.manual_seed(0)
    return RetinaNet(slim_resnet(*TINY), 8).eval()


@pytest.mark.parametrize(("width", "height"), [(64, 96), (160, 32), (32, 32)])
def test_there_is_one_output_for_each_anchor(model: RetinaNet, width: int, height: int) -> None:
    count = len(anchors(width, height, AnchorLayout()))
    with torch.inference_mode():
        score, box, landmark = ServedDetector(model)(torch.zeros(2, height, width, 3, dtype=torch.uint8))
    assert (score.shape, box.shape, landmark.shape) == ((2, count), (2, count, 4), (2, count, 10))
    assert ((score >= 0) & (score <= 1)).all()


@pytest.mark.parametrize(
    "strides", [(4,), (8, 16), (16, 32), (4, 8, 16, 32), (8, 16, 32, 64, 128), (32, 64), (16,)]
)
def test_the_levels_are_those_of_the_layout(strides: tuple[int, ...]) -> None:
    layout = AnchorLayout(
        strides=strides, sizes=tuple((16.0, 24.0, 32.0)[: 1 + i % 3] for i in range(len(strides)))
    )
    counts = tuple(len(of) for of in layout.sizes)
    with torch.device("meta"):
        made = RetinaNet(slim_resnet(*TINY), 8, strides, counts).eval()
        score, box, landmark = made(torch.empty(1, 3, 128, 256))
    count = len(anchors(256, 128, layout))
    assert (score.shape, box.shape, landmark.shape) == ((1, count), (1, count, 4), (1, count, 10))
    assert max(made.backbone.strides) <= max(strides)


@pytest.mark.parametrize(("name", "context"), [(name, name != "resnet") for name in BACKBONES])
def test_every_weight_of_every_backbone_is_read(name: str, context: bool) -> None:
    with torch.device("meta"):
        made = RetinaNet(backbone(name), 8, head=(16,), context=context)
        outputs = made(torch.empty(2, 3, 64, 64))
    sum(of.sum() for of in outputs).backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_outputs_stand_in_the_order_of_the_anchors(model: RetinaNet) -> None:
    """A bright spot changes the outputs around it most: rows, columns and strides are where the anchors say."""
    dark, spot = np.zeros((1, 128, 192, 3), np.uint8), np.zeros((1, 128, 192, 3), np.uint8)
    spot[0, 88:96, 144:152] = 255
    with torch.inference_mode():
        change = (
            (model(normalise(torch.from_numpy(spot)))[1] - model(normalise(torch.from_numpy(dark)))[1])
            .abs()
            .sum(-1)
        )
    laid = anchors(192, 128, AnchorLayout())
    for stride, level in zip(
        (8, 16), np.split(np.arange(len(laid)), [2 * 24 * 16, 2 * (24 * 16 + 12 * 8)]), strict=False
    ):
        weight = change[0, level].numpy()
        middle = (laid[level, :2] * weight[:, None]).sum(0) / weight.sum()
        assert np.abs(middle - [147.5, 91.5]).max() < 2 * stride


def test_the_untrained_detector_believes_in_few_faces(model: RetinaNet) -> None:
    """A prior of one half would give thousands of backgrounds a loss of ln 2 each."""
    noise = torch.randint(
        0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    with torch.inference_mode():
        score = ServedDetector(model)(noise)[0]
    assert score.mean().item() == pytest.approx(0.01, abs=0.01)


def test_the_prior_is_a_bias_of_minus_4_6_on_scores_alone(model: RetinaNet) -> None:
    for output in model.outputs:
        bias = output.bias.view(-1, 15)
        torch.testing.assert_close(bias[:, 0], torch.full((2,), -4.59512))
        assert not bias[:, 1:].any()


# RetinaFace with the same backbone and pyramid (64 and 256 channels), as trained by many: 0.427 M parameters and 0.736
# GMACs, 27.29 M and 33.2 GMACs. Ours has one convolution more, that smooths stride 32, and outputs of 3 × 3 where
# those are of 1 × 1 (with two scores an anchor); nothing else differs.
@pytest.mark.parametrize(
    ("name", "options", "width", "published", "billions", "more", "more_macs"),
    [
        ("mobilenet", {"width": 0.25}, 64, 426_608, "0.736", 0.194, 0.146),
        ("resnet50", {}, 256, 27_293_600, "33.2", 0.029, 0.017),
    ],
)
def test_it_costs_what_retinaface_does_but_for_what_differs(
    name: str,
    options: dict[str, float],
    width: int,
    published: int,
    billions: str,
    more: float,
    more_macs: float,
) -> None:
    with torch.device("meta"):
        made = RetinaNet(backbone(name, **options), width)
    smooth = 9 * width * width
    outputs, theirs = 9 * width * 30, width * 32
    without = parameters(made) - (smooth + 2 * width) - 3 * (outputs + 30 - theirs - 32)
    assert without == published
    products = macs(made, VGA)
    rest = products - 300 * smooth - CELLS * (outputs - theirs)
    assert f"{rest / 1e9:.{len(billions.split('.')[1])}f}" == billions
    assert parameters(made) / published - 1 == pytest.approx(more, abs=0.001)
    assert products / rest - 1 == pytest.approx(more_macs, abs=0.001)


def test_a_small_half_width_resnet_18_takes_about_three_billion_products() -> None:
    with torch.device("meta"):
        made = RetinaNet(backbone("resnet18", width=0.5), 48)
    assert 2.8e9 < macs(made, VGA) < 3.4e9
    assert 4 * parameters(made) < 13e6
