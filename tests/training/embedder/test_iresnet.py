"""IResNet as the ArcFace papers have it: the first stride comes late, the last normalisation has no scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.embedder.backbones.iresnet import Block, IResNet


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block(4, 6, 2)


def sides(model: IResNet) -> list[int]:
    """The side of what each block answers, for a face of 112 × 112."""
    found: list[int] = []
    for module in (model.stem, *model.blocks):
        module.register_forward_hook(lambda *of: found.append(of[2].shape[-1]))
    model.eval()(torch.empty(1, 3, 112, 112, device="meta"))
    return found


def test_the_stem_keeps_every_pixel_and_each_stage_halves_at_its_start() -> None:
    with torch.device("meta"):
        model = IResNet(512, 50)
    assert sides(model) == [112] + 3 * [56] + 4 * [28] + 14 * [14] + 3 * [7]


@pytest.mark.parametrize(("depth", "convolutions"), [(18, 17), (34, 33), (50, 49), (100, 99)])
def test_a_depth_counts_the_3_by_3_convolutions_and_the_matrix(depth: int, convolutions: int) -> None:
    with torch.device("meta"):
        model = IResNet(512, depth)
    kernels = [m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert kernels.count((3, 3)) == convolutions
    assert kernels.count((1, 1)) == 4  # the shortcuts
    assert (model.embedding.in_features, model.embedding.out_features) == (25_088, 512)


def test_the_stride_lies_in_the_second_convolution(block: Block) -> None:
    assert [m.stride for m in block.layers if isinstance(m, nn.Conv2d)] == [(1, 1), (2, 2)]


def test_nothing_follows_the_sum(block: Block) -> None:
    """A rectifier after it would let nothing negative through."""
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(block.eval()(x), block.layers(x) + block.shortcut(x))
    assert (block(x) < 0).any()


def test_a_block_that_keeps_its_shape_passes_its_input_on() -> None:
    same = Block(4, 4, 1)
    nn.init.zeros_(same.layers[-1].weight)
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(same(x), x, rtol=0, atol=0)


def test_zero_init_starts_every_block_as_its_shortcut() -> None:
    for zero_init, scale in ((True, 0.0), (False, 1.0)):
        model = IResNet(8, 18, zero_init=zero_init)
        assert all((b.layers[-1].weight == scale).all() for b in model.blocks)


def test_the_kernels_start_with_a_deviation_of_a_tenth() -> None:
    torch.manual_seed(0)
    kernel = IResNet(8, 18).blocks[-1].layers[1].weight
    assert kernel.std().item() == pytest.approx(0.1, rel=0.01)
    assert kernel.mean().item() == pytest.approx(0, abs=0.001)


def test_the_last_normalisation_has_a_scale_of_one_for_ever_and_learns_its_bias() -> None:
    torch.manual_seed(0)
    model = IResNet(8, 18)
    assert (model.norm.weight == 1).all()
    x = torch.randn(4, 25_088)
    (model.norm(model.embedding(x)) - 1).square().sum().backward()
    assert model.norm.weight.grad is None
    assert (model.norm.bias.grad != 0).all()


def test_the_matrix_and_the_last_normalisation_stay_in_float32() -> None:
    torch.manual_seed(0)
    model = IResNet(16, 18).eval()
    trunk: list[Tensor] = []
    model.head.register_forward_hook(lambda *of: trunk.append(of[2]))
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        embedding = model(torch.randn(1, 3, 112, 112))
    assert embedding.dtype == torch.float32
    with torch.inference_mode():
        expected = model.norm(model.embedding(trunk[0].float()))
    torch.testing.assert_close(embedding, expected, rtol=0, atol=0)


def test_dropout_is_off_unless_asked_for_and_never_when_served() -> None:
    x = torch.ones(2, 512, 7, 7)
    assert (IResNet(8, 18).head[1](x) == 1).all()
    dropped = IResNet(8, 18, dropout=0.4).head[1]
    assert (dropped(x) == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert (dropped.eval()(x) == 1).all()
