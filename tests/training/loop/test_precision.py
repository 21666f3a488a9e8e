"""What computes in half precision, and the scale that keeps fp16's gradients alive."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from training.config import BadConfig
from training.loop.precision import Kind, Precision

KINDS: tuple[Kind, ...] = ("fp32", "bf16", "fp16")


def one_weight(value: float = 1.0) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weight = nn.Parameter(torch.full((1,), value))
    return weight, torch.optim.SGD([weight], lr=0.5)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_forward_pass_computes_in_its_precision_and_what_is_outside_in_float32(
    kind: Kind, dtype: torch.dtype
) -> None:
    precision = Precision(kind)
    line = nn.Linear(4, 4)
    with precision.autocast():
        inside = line(torch.ones(1, 4))
    assert inside.dtype == dtype == precision.dtype
    assert line(torch.ones(1, 4)).dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_weight_by_the_true_gradient_whatever_the_scale(kind: Kind) -> None:
    precision = Precision(kind)
    weight, optimiser = one_weight()
    precision.backward((3 * weight).sum())
    precision.unscale(optimiser)
    assert weight.grad is not None
    assert weight.grad.item() == pytest.approx(3)
    assert precision.step(optimiser)
    assert weight.item() == pytest.approx(1 - 0.5 * 3)


def test_only_fp16_scales() -> None:
    assert [Precision(kind).scale for kind in KINDS] == [1, 1, 65536]


def test_fp16_on_a_cpu_is_advised_against() -> None:
    assert [Precision(kind).advice is None for kind in KINDS] == [True, True, False]


@pytest.mark.parametrize("told", [False, True])
def test_a_step_whose_gradient_overflowed_is_left_out_and_halves_the_scale(told: bool) -> None:
    precision = Precision("fp16")
    weight, optimiser = one_weight()
    if not told:
        precision.backward((weight * float("inf")).sum())
        precision.unscale(optimiser)
        taken = precision.step(optimiser)
    else:  # the overflow was on another rank: this one's own gradient is sound
        precision.backward(weight.sum())
        precision.unscale(optimiser)
        taken = precision.step(optimiser, norm=float("inf"))
    assert not taken
    assert weight.item() == 1
    assert precision.scale == 32768
    optimiser.zero_grad()
    precision.backward(weight.sum())
    precision.unscale(optimiser)
    assert precision.step(optimiser, norm=1.0)
    assert weight.item() == 0.5


def test_the_scale_is_saved_with_the_run_and_loaded_without_running_code(tmp_path: Any) -> None:
    precision = Precision("fp16")
    weight, optimiser = one_weight()
    precision.backward((weight * float("nan")).sum())
    precision.step(optimiser)
    torch.save(precision.state_dict(), tmp_path / "state")
    resumed = Precision("fp16")
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert resumed.scale == precision.scale == 32768


def test_a_run_may_go_on_in_another_precision() -> None:
    from_bf16, to_bf16 = Precision("fp16"), Precision("bf16")
    from_bf16.load_state_dict(Precision("bf16").state_dict())
    to_bf16.load_state_dict(Precision("fp16").state_dict())
    assert (from_bf16.scale, to_bf16.scale) == (65536, 1)


def test_an_unknown_precision_is_refused_with_the_known() -> None:
    with pytest.raises(BadConfig, match="one of fp32, bf16, fp16"):
        Precision("fp8")  # type: ignore[arg-type]


def test_arithmetic_that_the_device_lacks_is_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without(*arguments: Any) -> None:
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(torch, "conv2d", without)
    with pytest.raises(BadConfig, match=r"cpu cannot train in fp16 .* use precision bf16 or fp32"):
        Precision("fp16", "cpu")
    assert Precision("fp32", "cpu").scale == 1
