"""Each known way to fail is called by its name, before the step that would spoil the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.loop.diagnosis import Diagnosis, Diverged, not_finite, rate_advice, spread, target_cosine
from training.loop.precision import Precision

NAN = float("nan")


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.Flatten(), nn.Linear(144, 5))


def test_a_sound_run_is_left_alone() -> None:
    diagnosis = Diagnosis(triplet_margin=0.2)
    for step in range(300):
        said = diagnosis.check(
            step, {"loss": 3.0, "triplet": 0.1}, gradient=2.0, spread=0.8, target_cosine=0.3
        )
        assert said == []


def test_the_first_part_that_is_no_number_is_named_with_what_to_try() -> None:
    losses = {"arcface": torch.tensor(1.0), "distillation": torch.tensor(NAN), "loss": torch.tensor(NAN)}
    with pytest.raises(Diverged, match=r"step 17: loss distillation is nan.*lower learning_rate.*bf16"):
        Diagnosis().check(17, losses)


@pytest.mark.parametrize("gradient", [NAN, math.inf])
def test_a_gradient_that_is_no_number_is_named(gradient: float) -> None:
    with pytest.raises(Diverged, match=r"step 3: the gradient's length is (nan|inf)"):
        Diagnosis().check(3, {"loss": 1.0}, gradient=torch.tensor(gradient))


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_only_fp16_may_overflow_to_find_its_scale(kind: str) -> None:
    assert Diagnosis().check(0, {"loss": 1.0}, gradient=math.inf, precision=Precision("fp16")) == []
    with pytest.raises(Diverged, match="gradient"):
        Diagnosis().check(0, {"loss": 1.0}, gradient=math.inf, precision=Precision(kind))  # type: ignore[arg-type]
    with pytest.raises(Diverged, match="loss arcface"):
        Diagnosis().check(0, {"arcface": NAN}, precision=Precision("fp16"))


def test_an_fp16_scale_below_one_ends_the_run_and_names_bf16() -> None:
    precision = Precision("fp16")
    precision.load_state_dict({**precision.state_dict(), "scale": 1.0})
    assert Diagnosis().check(0, {"loss": 1.0}, precision=precision) == []
    precision.load_state_dict({**precision.state_dict(), "scale": 0.5})
    with pytest.raises(Diverged, match=r"scale has fallen to 0\.5.*use precision bf16"):
        Diagnosis().check(2850, {"loss": 1.0}, precision=precision)


def test_no_number_under_fp16_is_not_told_as_an_overflow_alone() -> None:
    precision, of = Precision("fp16"), model()
    precision.load_state_dict({**precision.state_dict(), "scale": 0.5})
    of[0].weight.grad = torch.full_like(of[0].weight, NAN)
    told = r"overflow or are no numbers \(first: model\.0\.weight, its gradient\) however they are scaled"
    with pytest.raises(Diverged, match=told):
        Diagnosis().check(9, {"loss": 1.0}, gradient=NAN, precision=precision, modules={"model": of})
    of[0].weight.grad = None
    with pytest.raises(Diverged, match="gradients overflow however"):
        Diagnosis().check(9, {"loss": 1.0}, precision=precision, modules={"model": of})


def test_the_message_says_where_it_began() -> None:
    of = model()
    of[3].weight.data[2, 3] = NAN
    with pytest.raises(Diverged, match=r"first not finite: model\.3\.weight, the weight itself"):
        Diagnosis().check(5, {"loss": NAN}, modules={"model": of})


def test_a_weight_comes_before_what_it_spoils() -> None:
    of = model()
    assert not_finite({"model": of}, torch.ones(1, 3, 8, 8)) is None
    of[0].bias.data[0] = math.inf
    assert not_finite({"model": of}, torch.ones(1, 3, 8, 8)) == "model.0.bias, the weight itself"


def test_sound_weights_whose_output_is_not_finite_are_found_layer_by_layer() -> None:
    of = nn.Sequential(
        nn.Linear(2, 2), nn.Sequential(nn.Identity(), Logarithm()), nn.BatchNorm1d(2), nn.Linear(2, 2)
    )
    nn.init.constant_(of[0].weight, -1.0)
    pictures = torch.ones(4, 2)
    of(pictures)  # leaves NaN in the normalisation's statistics, which is an effect
    assert not_finite({"model": of}, pictures) == "model.1.1 (Logarithm), its output"
    assert not any(layer._forward_hooks for layer in of.modules())


def test_half_precision_is_looked_at_in_half_precision() -> None:
    of = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    nn.init.constant_(of[0].weight, 300.0)
    pictures = torch.full((1, 2), 300.0)  # 2 × 300 × 300 is beyond fp16
    assert not_finite({"model": of}, pictures) is None
    assert not_finite({"model": of}, pictures, Precision("fp16")) == "model.0 (Linear), its output"


def test_pictures_that_are_no_numbers_are_named() -> None:
    assert not_finite({"model": model()}, torch.full((1, 3, 8, 8), NAN)) == "the pictures"


def test_gradients_are_searched_from_the_loss_backwards() -> None:
    of, head = model(), nn.Linear(5, 7)
    head(of(torch.ones(1, 3, 8, 8))).sum().backward()
    for parameter in of[0].parameters():
        parameter.grad = torch.full_like(parameter, NAN)
    assert not_finite({"model": of, "head": head}) == "model.0.bias, its gradient"
    assert head.weight.grad is not None
    head.weight.grad.fill_(math.inf)
    assert not_finite({"model": of, "head": head}) == "head.weight, its gradient"


def test_labels_that_no_class_answers_to_are_named_by_the_number_they_leave() -> None:
    probability = torch.zeros(8)  # the own class of no sample is among those compared
    loss = -probability.clamp_min(1e-30).log().mean()
    diagnosis = Diagnosis()
    for step in range(2):
        diagnosis.check(step, {"arcface": loss})
    with pytest.raises(Diverged, match=r"arcface stands at 69\.0776.*outside its shard, or not int64"):
        diagnosis.check(2, {"arcface": loss})


def test_a_triplet_loss_at_its_margin_is_a_collapse_but_only_if_it_lasts() -> None:
    same = F.normalize(torch.ones(8, 4))
    loss = (F.pairwise_distance(same, same) - F.pairwise_distance(same, same) + 0.2).clamp_min(0).mean()
    diagnosis = Diagnosis(triplet_margin=0.2)
    for step in range(99):
        diagnosis.check(step, {"triplet": loss})
    diagnosis.check(99, {"triplet": 0.19})  # one step apart begins the count anew
    for step in range(100, 199):
        diagnosis.check(step, {"triplet": loss})
    with pytest.raises(Diverged, match=r"equalled its margin 0\.2 for 100 steps.*semi-hard"):
        diagnosis.check(199, {"triplet": loss})


def test_embeddings_that_point_one_way_are_a_collapse() -> None:
    one = spread(torch.ones(8, 4) * torch.arange(1, 9)[:, None])
    assert one.item() == pytest.approx(0, abs=1e-6)
    assert spread(torch.eye(64)).item() == pytest.approx(1 - 1 / 8)
    diagnosis = Diagnosis()
    for step in range(99):
        diagnosis.check(step, {"loss": 1.0}, spread=one)
    with pytest.raises(Diverged, match="pointed one way for 100 steps"):
        diagnosis.check(99, {"loss": 1.0}, spread=one)


def said_after(steps: int, cosine: float, start: int = 0) -> list[str]:
    diagnosis = Diagnosis()
    return [
        advice
        for step in range(start, start + steps)
        for advice in diagnosis.check(step, {"loss": 20.0}, target_cosine=cosine)
    ]


def test_centres_that_never_turn_to_their_faces_call_for_a_ramp_once() -> None:
    (advice,) = said_after(2_500, cosine=0.01)
    assert "step 2000" in advice
    assert "ramp it up from 0" in advice


@pytest.mark.parametrize(("steps", "cosine", "start"), [(1_999, 0.01, 0), (2_500, 0.3, 0), (50, 0.01, 5_000)])
def test_a_run_that_is_young_learns_or_was_just_resumed_is_given_time(
    steps: int, cosine: float, start: int
) -> None:
    assert said_after(steps, cosine, start) == []


def test_the_cosine_is_that_to_the_own_centre() -> None:
    weight = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    embedding = torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    assert target_cosine(embedding, weight, torch.tensor([0, 1])).item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("optimiser", "rate", "batch", "said"),
    [
        ("sgd", 0.1, 1024, None),
        ("sgd", 0.4, 4096, None),
        ("SGD", 0.02, 128, None),  # the published recipe of one GPU, 1.6 × the rule
        ("sgd", 0.1, 64, "16 × the usual"),
        ("sgd", 0.001, 1024, "0.01 × the usual"),
        ("adamw", 0.002, 64, None),
    ],
)
def test_a_rate_far_from_a_tenth_per_1024_is_remarked_for_sgd(
    optimiser: str, rate: float, batch: int, said: str | None
) -> None:
    advice = rate_advice(optimiser, rate, batch)
    assert advice is None if said is None else said in str(advice)
