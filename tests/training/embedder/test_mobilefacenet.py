"""The backbone is the paper's, and the forms that train fast are the forms that are served."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.embedder.backbones.cost import macs
from training.embedder.backbones.depthwise import GlobalDepthwise, StridedDepthwise
from training.embedder.backbones.mobilefacenet import MobileFaceNet, mbf, quick


def test_it_stores_the_paper_s_0_99_million_numbers() -> None:
    """The paper counts what is deployed: a normalisation is folded into the convolution before it, as one bias each."""
    model = MobileFaceNet(128)
    kernels = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))
    slopes = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.PReLU))
    biases = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    assert f"{(kernels + slopes + biases) / 1e6:.2f}" == "0.99"


def test_with_another_stem_it_multiplies_as_often_as_the_reference_embedder() -> None:
    """0.234 GMACs are quoted for a variant whose stem ends in one more convolution, 1 × 1 from 64 to 64 at 56 × 56."""
    assert f"{(macs(MobileFaceNet(128)) + 64 * 64 * 56 * 56) / 1e9:.3f}" == "0.234"


def test_a_checkpoint_of_it_can_still_be_read() -> None:
    names = list(MobileFaceNet(128).state_dict())
    assert len(names) == 333
    assert names[0] == "stem.0.0.weight"
    for name in ("stem.1.2.weight", "blocks.14.layers.2.1.running_var", "head.1.0.weight", "norm.bias"):
        assert name in names


def test_the_wider_one_has_the_depth_of_the_published_blocks() -> None:
    blocks = mbf().blocks
    assert [block.residual for block in blocks] == [
        False,
        *4 * [True],
        False,
        *6 * [True],
        False,
        *2 * [True],
    ]
    assert [len(block.layers[1][1].weight) for block in blocks] == 5 * [128] + 7 * [256] + [512, 256, 256]


@pytest.mark.parametrize("dimension", [64, 128, 256])
def test_a_face_becomes_a_vector_of_the_asked_dimension(dimension: int) -> None:
    with torch.inference_mode():
        assert MobileFaceNet(dimension).eval()(torch.zeros(2, 3, 112, 112)).shape == (2, dimension)


@pytest.mark.parametrize("side", [56, 57])
def test_the_strided_depthwise_trains_as_it_is_served(side: int) -> None:
    torch.manual_seed(1)
    layer = StridedDepthwise(6, 6, 3, 2, 1, groups=6, bias=False)
    x = torch.randn(2, 6, side, side)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-6, atol=1e-6)


def test_the_global_depthwise_trains_as_it_is_served() -> None:
    torch.manual_seed(2)
    layer = GlobalDepthwise(6, 6, 7, 1, 0, groups=6, bias=False)
    x = torch.randn(2, 6, 7, 7)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer", [StridedDepthwise(4, 4, 3, 2, 1, groups=4), GlobalDepthwise(4, 4, 7, 1, 0, groups=4)]
)
def test_the_fast_form_has_the_same_gradients(layer: nn.Conv2d) -> None:
    layer = type(layer)(4, 4, layer.kernel_size, layer.stride, layer.padding, groups=4, bias=False).double()
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    gradients = []
    for training in (True, False):
        layer.train(training).zero_grad()
        given = x.clone().requires_grad_()
        layer(given).square().sum().backward()
        gradients.append((given.grad, layer.weight.grad.clone()))
    for fast, served in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, served)


def test_with_frozen_statistics_training_and_serving_are_one_function() -> None:
    torch.manual_seed(3)
    model = MobileFaceNet(32)
    x = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        for _ in range(8):
            model(torch.randn(4, 3, 112, 112))
        served = model.eval()(x)
        for module in model.modules():  # the fast forms, batch statistics left alone
            module.training = not isinstance(module, nn.modules.batchnorm._BatchNorm)
        torch.testing.assert_close(model(x), served, rtol=1e-4, atol=1e-4)


def test_the_embedding_leaves_bf16_autocast_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert MobileFaceNet(16).eval()(torch.zeros(1, 3, 112, 112)).dtype == torch.float32


def test_the_quick_one_has_relu_where_maps_are_large_and_the_same_weights_otherwise() -> None:
    paper, quickly = MobileFaceNet().state_dict(), quick().state_dict()
    assert set(quickly) < set(paper)
    gone = set(paper) - set(quickly)
    assert {name.rsplit(".", 2)[0].split(".layers")[0] for name in gone} == {
        "stem.0",
        "stem.1",
        *(f"blocks.{block}" for block in range(6)),
    }
    assert all(paper[name].ndim == 1 for name in gone)  # slopes alone
    assert all(quickly[name].shape == paper[name].shape for name in quickly)
