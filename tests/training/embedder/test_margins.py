"""Each margin: its values, its slope, its order over all angles, and the ends where others turn to NaN."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import BadConfig
from training.embedder.margins import (
    MARGINS,
    AdaFace,
    BadLabels,
    DynamicMargin,
    Head,
    Margin,
    check_labels,
    head,
    least_scale,
    margin,
)

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("softmax", {}),
    ("cosface", {}),
    ("arcface", {}),
    ("arcface", {"margin": 1.5}),
    ("arcface", {"gradient": "straight_through"}),
    ("combined", {}),
    ("combined", {"factor": 0.9, "angle": 0.4, "cosine": 0.15}),
    ("combined", {"factor": 1.35, "angle": 0.0, "cosine": 0.0}),
    ("combined", {"factor": 2.0, "angle": 0.0, "cosine": 0.0}),
    ("adaface", {}),
    ("dynamic", {}),
    ("dynamic", {"least": 0.0, "most": 1.5}),
]
LENGTHS = torch.tensor([6.0, 11.0, 12.0, 13.0, 30.0], dtype=torch.float64)  # of embeddings, for AdaFace
every_margin = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
every_head = pytest.mark.parametrize("name", MARGINS)


def settled(name: str, **options: Any) -> Margin:
    """A margin that has seen some lengths and sees no more."""
    one = margin(name, **options)
    one.penalise(torch.zeros(len(LENGTHS)), LENGTHS)
    return one.eval()


@pytest.fixture
def five() -> Tensor:
    """Labels for five embeddings."""
    torch.manual_seed(0)
    return torch.arange(5)


def radians(*degrees: float) -> Tensor:
    return torch.tensor(degrees, dtype=torch.float64).deg2rad()


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "options", "degrees", "penalised"),
    [
        ("softmax", {}, 60, 0.5),
        ("cosface", {"margin": 0.35}, 60, 0.15),
        ("arcface", {"margin": math.radians(30)}, 30, 0.5),
        ("arcface", {"margin": math.radians(30)}, 90, -0.5),
        (
            "arcface",
            {"margin": 0.5},
            170,
            math.cos(math.radians(170)) - 0.5 * math.sin(0.5),
        ),  # beyond 151.35°
        ("combined", {"factor": 1.5, "angle": 0.0, "cosine": 0.0}, 40, 0.5),
        ("combined", {"factor": 0.9, "angle": math.radians(6), "cosine": 0.15}, 60, 0.35),
        ("dynamic", {"least": math.radians(20), "most": math.radians(40)}, 90, -0.5),
        ("dynamic", {"least": math.radians(20), "most": math.radians(40)}, 60, math.cos(math.radians(85))),
    ],
)
def test_the_penalised_cosine_is_the_textbook_s(
    name: str, options: dict[str, float], degrees: float, penalised: float
) -> None:
    given = margin(name, **options).penalise(radians(degrees).cos())
    assert given.item() == pytest.approx(penalised, abs=1e-9)


@pytest.mark.parametrize(
    ("length", "degrees", "penalised"),
    [
        (12.0, 60, 0.5 - 0.4),  # z = 0: CosFace's margin
        (24.0, 60, math.cos(math.radians(60) - 0.4) - 0.8),  # z = 1, clipped: an angle off, twice the margin
        (1.0, 60, math.cos(math.radians(60) + 0.4)),  # z = −1: ArcFace's margin
        (13.0, 90, math.cos(math.pi / 2 - 0.4 * 0.333 / 2.001) - 0.4 * (1 + 0.333 / 2.001)),
        (24.0, 5, math.cos(1e-3) - 0.8),  # no negative angle
    ],
)
def test_adaface_goes_from_arcface_s_margin_to_cosface_s_twice_with_the_length(
    length: float, degrees: float, penalised: float
) -> None:
    ada = margin("adaface").eval()
    ada.load_state_dict(
        {"batches": torch.ones(()), "mean": torch.tensor(12.0), "deviation": torch.tensor(2.0)}
    )
    given = ada.penalise(radians(degrees).cos(), torch.tensor([length], dtype=torch.float64))
    assert given.item() == pytest.approx(penalised, abs=1e-7)


def test_the_turning_point_of_a_margin_of_a_half_is_151_35_degrees() -> None:
    before, beyond = margin("arcface", margin=0.5).penalise(radians(151.35, 151.36).cos())
    assert before.item() == pytest.approx(-1, abs=1e-6)
    assert beyond.item() == pytest.approx(math.cos(math.radians(151.36)) - 0.5 * math.sin(0.5), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "options", "as_name", "as_options"),
    [
        ("combined", {"factor": 1.0, "angle": 0.5, "cosine": 0.0}, "arcface", {"margin": 0.5}),
        ("combined", {"factor": 1.0, "angle": 0.0, "cosine": 0.4}, "cosface", {"margin": 0.4}),
        ("dynamic", {"least": 0.5, "most": 0.5}, "arcface", {"margin": 0.5}),
        ("arcface", {"gradient": "straight_through"}, "arcface", {}),
        ("arcface", {"margin": 0.0}, "softmax", {}),
        ("cosface", {"margin": 0.0}, "softmax", {}),
        ("adaface", {"concentration": 0.0}, "cosface", {}),
        ("softmax", {}, "softmax", {"label_smoothing": 0.0}),
    ],
)
def test_one_margin_is_another_s_special_case(
    name: str, options: dict[str, Any], as_name: str, as_options: dict[str, Any], five: Tensor
) -> None:
    one, other = head(name, 8, 5, **options), head(as_name, 8, 5, **as_options)
    other.weight.data.copy_(one.weight)
    embedding = torch.randn(5, 8)
    torch.testing.assert_close(
        one.logits(embedding, five), other.logits(embedding, five), rtol=1e-5, atol=2e-4
    )


@every_margin
def test_without_strength_it_is_the_plain_scaled_softmax(
    name: str, options: dict[str, Any], five: Tensor
) -> None:
    one = head(name, 8, 5, **options)
    one.margin.strength = 0.0
    embedding = torch.randn(5, 8)
    expected = F.cross_entropy(64 * F.normalize(embedding) @ F.normalize(one.weight).T, five)
    torch.testing.assert_close(one(embedding, five), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "half"),
    [
        ("cosface", {"margin": 0.4}, {"margin": 0.2}),
        ("arcface", {"margin": 0.5}, {"margin": 0.25}),
        (
            "combined",
            {"factor": 1.2, "angle": 0.4, "cosine": 0.2},
            {"factor": 1.1, "angle": 0.2, "cosine": 0.1},
        ),
        ("dynamic", {"least": 0.2, "most": 0.6}, {"least": 0.1, "most": 0.3}),
        ("adaface", {"margin": 0.4}, {"margin": 0.2}),
    ],
)
def test_half_the_strength_is_half_the_margin(
    name: str, options: dict[str, float], half: dict[str, float]
) -> None:
    ramped, fixed = settled(name, **options), settled(name, **half)
    ramped.strength = 0.5
    cosine = torch.linspace(-1, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(ramped.penalise(cosine, LENGTHS), fixed.penalise(cosine, LENGTHS))


@every_head
def test_the_strength_is_the_schedule_s_and_not_the_checkpoint_s(name: str) -> None:
    one = margin(name)
    assert one.strength == 1.0
    before = copy.deepcopy(one.state_dict())
    one.strength = 0.3
    assert list(one.state_dict()) == list(before)


# ── order ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@every_margin
def test_a_harder_sample_never_has_a_smaller_penalty(
    name: str, options: dict[str, Any], strength: float
) -> None:
    one = settled(name, **options)
    one.strength = strength
    cosine = torch.linspace(0, math.pi, 20_001, dtype=torch.float64).cos()
    for length in LENGTHS:
        falls = one.penalise(cosine, length.expand(20_001)).diff()
        assert (falls <= 0).all()
        if name != "adaface":  # whose angle is clipped at both ends
            assert (falls[20:-20] < 0).all()


@every_margin
def test_a_margin_makes_no_sample_easier(name: str, options: dict[str, Any]) -> None:
    cosine = torch.linspace(-0.999, 0.999, 2001, dtype=torch.float64)
    shorter = options.get("factor", 1.0) < 1  # m₁ < 1 gives back at large angles what m₂ takes
    for length in LENGTHS:
        penalised = settled(name, **options).penalise(cosine, length.expand(2001))
        assert (penalised <= cosine + 1e-9).all() or shorter


# ── gradients ───────────────────────────────────────────────────────────────────────────────────────────────────


def is_the_value_s_slope(name: str, options: dict[str, Any]) -> bool:
    """The others' gradients are not, by definition; they have tests of their own."""
    return name != "dynamic" and options.get("gradient") != "straight_through"


@pytest.mark.parametrize(("name", "options"), [of for of in VARIANTS if is_the_value_s_slope(*of)], ids=str)
def test_the_gradient_is_that_of_finite_differences_in_float64(name: str, options: dict[str, Any]) -> None:
    one = settled(name, **options)
    angle = torch.cat([torch.linspace(0.5, 1.5, 9), torch.linspace(1.65, 2.55, 6), torch.tensor([2.8, 3.0])])
    cosine = angle.double().cos().requires_grad_()
    for length in LENGTHS:
        assert torch.autograd.gradcheck(lambda c, at=length: one.penalise(c, at.expand(len(c))), (cosine,))


def test_straight_through_passes_the_gradient_as_if_there_were_no_margin() -> None:
    cosine = torch.linspace(-1, 1, 41, dtype=torch.float64, requires_grad=True)
    straight = margin("arcface", gradient="straight_through").penalise(cosine)
    (gradient,) = torch.autograd.grad(straight.sum(), cosine)
    torch.testing.assert_close(gradient, torch.ones_like(cosine), rtol=0, atol=0)


@pytest.mark.parametrize(("degrees", "factor"), [(10, 3.6), (60, 1.15), (90, 0.88), (150, 0.05)])
def test_the_exact_gradient_is_sin_of_the_moved_angle_over_sin_of_the_angle(
    degrees: float, factor: float
) -> None:
    cosine = radians(degrees).cos().requires_grad_()
    (gradient,) = torch.autograd.grad(margin("arcface").penalise(cosine).sum(), cosine)
    theta = math.radians(degrees)
    assert gradient.item() == pytest.approx(math.sin(theta + 0.5) / math.sin(theta), rel=1e-6)
    assert gradient.item() == pytest.approx(factor, abs=0.06)


def test_the_hardest_samples_are_still_pulled_in_the_right_direction() -> None:
    """Without the line beyond the turning point the factor at 175° is −4.6: the sample is pushed away."""
    cosine = radians(155, 165, 175, 179).cos().requires_grad_()
    for gradient in ("exact", "straight_through"):
        penalised = margin("arcface", gradient=gradient).penalise(cosine)
        (pull,) = torch.autograd.grad(penalised.sum(), cosine)
        assert (pull > 0).all()


def whole_loss(one: Head, label: Tensor, embedding: Tensor, weight: Tensor) -> Tensor:
    return torch.func.functional_call(one, {"weight": weight}, (embedding, label))


@pytest.mark.parametrize("name", [name for name in MARGINS if name != "dynamic"])
def test_the_whole_loss_has_the_gradient_of_finite_differences(name: str, five: Tensor) -> None:
    """With lengths that carry no gradient: AdaFace's are a measure, so its margin is set to one length."""
    options = {"concentration": 0.0} if name == "adaface" else {}
    one = head(name, 6, 5, scale=8.0, **options).double().eval()
    embedding = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *of: whole_loss(one, five, *of), (embedding, weight))


def test_label_smoothing_has_the_gradient_of_finite_differences_too(five: Tensor) -> None:
    one = head("softmax", 6, 5, scale=8.0, label_smoothing=0.1).double()
    embedding = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: one(e, five), (embedding,))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@every_margin
def test_gradients_are_finite_where_the_cosine_is_one_or_minus_one(
    name: str, options: dict[str, Any], sign: float, kind: torch.dtype
) -> None:
    one = head(name, 4, 3, **options)
    one.weight.data = torch.eye(4)[:3]
    embedding = (sign * torch.eye(4)[1:3]).to(kind).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = one(embedding, torch.tensor([1, 2]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(embedding.grad).all()
    assert torch.isfinite(one.weight.grad).all()


@every_head
def test_an_embedding_of_length_nought_does_no_harm(name: str, five: Tensor) -> None:
    one = head(name, 8, 5)
    embedding = torch.zeros(5, 8, requires_grad=True)
    one(embedding, five).backward()
    assert torch.isfinite(embedding.grad).all()


# ── the margin lies on the angle, detached where it depends on the sample ───────────────────────────────────────


def test_a_dynamic_margin_grows_with_the_angle_within_its_bounds() -> None:
    """Not with 1 − |cos θ|, whose largest margin is at a right angle, and whose hardest samples get the smallest."""
    dynamic = DynamicMargin(least=0.1, most=0.5)
    given = dynamic.margin(radians(*range(181)).cos())
    assert (given.diff() > 0).all()
    assert given[[0, 90, 180]].tolist() == pytest.approx([0.1, 0.3, 0.5])
    assert dynamic.margin(torch.tensor([-0.9])).item() == pytest.approx(0.48)
    assert dynamic.margin(torch.tensor([1.0000002, -1.0000002])).tolist() == pytest.approx(
        [0.1, 0.5], abs=1e-7
    )


def test_a_dynamic_margin_moves_the_angle_and_not_the_cosine() -> None:
    dynamic = DynamicMargin(least=0.3, most=0.6)
    cosine = radians(*range(5, 140, 5)).cos()
    moved = dynamic.penalise(cosine).acos() - cosine.acos()
    torch.testing.assert_close(moved, dynamic.margin(cosine))


def test_a_dynamic_margin_is_detached() -> None:
    """Its gradient is ArcFace's with the margin that the sample happens to have, easy or hard alike."""
    dynamic = DynamicMargin(least=0.2, most=0.6)
    for degrees in (20, 60, 100, 140, 175):
        cosine = radians(degrees).cos().requires_grad_()
        (gradient,) = torch.autograd.grad(dynamic.penalise(cosine).sum(), cosine)
        fixed = margin("arcface", margin=dynamic.margin(cosine).item())
        (expected,) = torch.autograd.grad(fixed.penalise(cosine).sum(), cosine)
        torch.testing.assert_close(gradient, expected)


def test_adaface_gives_the_length_no_gradient() -> None:
    norm = LENGTHS.clone().requires_grad_()
    cosine = torch.full((5,), 0.3, dtype=torch.float64, requires_grad=True)
    margin("adaface").penalise(cosine, norm).sum().backward()
    assert norm.grad is None


# ── AdaFace's statistics ────────────────────────────────────────────────────────────────────────────────────────


def test_adaface_averages_the_first_batches_and_then_follows_slowly() -> None:
    ada = AdaFace(momentum=0.25)
    batches = [torch.tensor([1.0, 3.0]) + step for step in range(6)]  # means 2 … 7, each with deviation √2
    expected = 0.0
    for step, norm in enumerate(batches):
        ada.penalise(torch.zeros(2), norm)
        expected += (step + 2 - expected) * max(1 / (step + 1), 0.25)
    assert ada.mean.item() == pytest.approx(expected)
    assert ada.deviation.item() == pytest.approx(math.sqrt(2))
    assert ada.batches.item() == 6


def test_adaface_learns_nothing_from_evaluation_one_face_or_endless_lengths() -> None:
    ada = AdaFace()
    ada.penalise(torch.zeros(3), torch.tensor([10.0, 11.0, 12.0]))
    before = copy.deepcopy(ada.state_dict())
    ada.penalise(torch.zeros(1), torch.tensor([99.0]))
    ada.penalise(torch.zeros(0), torch.zeros(0))
    ada.eval().penalise(torch.zeros(2), torch.tensor([1.0, 99.0]))
    assert ada.state_dict() == before
    ada.train().penalise(torch.zeros(2), torch.tensor([torch.inf, 0.0]))
    assert torch.isfinite(ada.mean)
    assert torch.isfinite(ada.deviation)


def test_adaface_s_statistics_travel_with_the_head() -> None:
    first, second = head("adaface", 8, 5), head("adaface", 8, 5)
    first(torch.randn(5, 8), torch.arange(5))
    second.load_state_dict(first.state_dict())
    assert second.margin.mean == first.margin.mean > 0


def test_adaface_without_lengths_says_so() -> None:
    with pytest.raises(ValueError, match="give `norm`"):
        margin("adaface").penalise(torch.zeros(2))


def test_adaface_before_its_first_batch_has_cosface_s_margin() -> None:
    cosine = torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(
        AdaFace().eval().penalise(cosine, torch.tensor([1.0, 10.0, 90.0])), cosine - 0.4
    )


# ── the head ────────────────────────────────────────────────────────────────────────────────────────────────────


@every_head
def test_embeddings_and_centres_of_any_length_give_one_loss(name: str, five: Tensor) -> None:
    one = head(name, 8, 5).eval()
    embedding = torch.randn(5, 8)
    expected = one(embedding, five)
    one.weight.data *= torch.tensor([0.1, 1, 3, 9, 50])[:, None]
    torch.testing.assert_close(one(37 * embedding, five), expected, rtol=1e-5, atol=1e-4)


@every_head
def test_only_the_true_identity_s_logit_has_a_margin(name: str, five: Tensor) -> None:
    one = head(name, 8, 5)
    embedding = torch.randn(5, 8)
    plain, given = 64 * one.cosine(embedding), one.logits(embedding, five)
    others = ~torch.eye(5, dtype=torch.bool)
    torch.testing.assert_close(given[others], plain[others], rtol=0, atol=0)
    assert (given.diagonal() < plain.diagonal()).all() or name == "softmax"


def test_the_cosines_without_a_margin_are_what_two_unit_vectors_have(five: Tensor) -> None:
    one = head("arcface", 8, 5)
    cosine = one.cosine(torch.cat([2 * one.weight, -0.5 * one.weight]).detach())
    assert cosine[five, five].tolist() == pytest.approx([1] * 5)
    assert cosine[five + 5, five].tolist() == pytest.approx([-1] * 5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@every_head
def test_under_autocast_the_head_stays_in_float32(name: str, half: torch.dtype, five: Tensor) -> None:
    one = head(name, 8, 5).eval()
    embedding = torch.randn(5, 8)
    with torch.autocast("cpu", half):
        logits, loss = one.logits(embedding, five), one(embedding, five)
    assert logits.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(logits, one.logits(embedding, five), rtol=0, atol=0)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@every_head
def test_a_half_precision_embedding_is_taken_at_its_value(name: str, half: torch.dtype, five: Tensor) -> None:
    one = head(name, 8, 5).eval()
    embedding = torch.randn(5, 8).to(half).requires_grad_()
    one(embedding, five).backward()
    assert torch.isfinite(embedding.grad).all()
    torch.testing.assert_close(one(embedding, five), one(embedding.float(), five), rtol=0, atol=0)


def test_an_edge_of_1e_6_needs_float32() -> None:
    """Why the head leaves autocast: in half precision the clamp that keeps the angle's gradient finite is no clamp."""
    for half in (torch.bfloat16, torch.float16):
        assert torch.tensor(1 - 1e-6, dtype=half) == 1
    assert torch.tensor(1 - 1e-6) < 1


@every_head
def test_the_loss_is_the_batch_s_mean_and_nought_for_no_faces(name: str, five: Tensor) -> None:
    one = head(name, 8, 5).eval()
    embedding = torch.randn(5, 8, requires_grad=True)
    alone = torch.stack([one(embedding[i : i + 1], five[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(one(embedding, five), alone.mean())
    nothing = one(embedding[:0], five[:0])
    nothing.backward()
    assert nothing.item() == 0
    assert not embedding.grad.any()


def test_a_head_begins_with_small_random_centres_under_the_key_weight() -> None:
    torch.manual_seed(0)
    state = head("arcface", 128, 500).state_dict()
    assert list(state) == ["weight"]
    assert state["weight"].shape == (500, 128)
    assert state["weight"].std().item() == pytest.approx(0.01, rel=0.02)


@every_head
def test_a_few_steps_teach_it_to_tell_identities_apart(name: str) -> None:
    torch.manual_seed(0)
    one = head(name, 8, 6, scale=16.0)
    label = torch.arange(6).repeat(4)
    face = F.one_hot(label, 8).float() + 0.1 * torch.randn(24, 8)
    one.weight.data = torch.nn.init.orthogonal_(one.weight.data)
    at_first = one(face, label).item()
    for _ in range(40):
        (gradient,) = torch.autograd.grad(one(face, label), one.weight)
        one.weight.data -= 0.05 * gradient
    assert (one.cosine(face).argmax(1) == label).all()
    assert one(face, label) < 0.7 * at_first


# ── scale and smoothing ─────────────────────────────────────────────────────────────────────────────────────────


def loss_of_a_perfect_face(identities: int, scale: float) -> float:
    """Cosine 1 to its own centre and 0 to all others."""
    one = head("softmax", 2, identities, scale=scale)
    one.weight.data = torch.tensor([[0.0, 1.0]]).repeat(identities, 1)
    one.weight.data[3] = torch.tensor([1.0, 0.0])
    return one(torch.tensor([[5.0, 0.0]]), torch.tensor([3])).item()


@pytest.mark.parametrize(("identities", "probability"), [(10_575, 0.9), (10_575, 0.999), (12, 0.5)])
def test_at_the_least_scale_a_perfect_face_has_the_asked_probability(
    identities: int, probability: float
) -> None:
    scale = least_scale(identities, probability)
    assert math.exp(-loss_of_a_perfect_face(identities, scale)) == pytest.approx(probability, rel=1e-4)


def test_unscaled_cosines_cannot_be_learnt_from() -> None:
    """With 10,575 identities even the perfect face's loss is 8.27, one below that of a guess; scaled, it vanishes."""
    assert loss_of_a_perfect_face(10_575, 1.0) == pytest.approx(8.27, abs=0.005)
    assert math.log(10_575) == pytest.approx(9.27, abs=0.005)
    assert loss_of_a_perfect_face(10_575, 16.0) == pytest.approx(0.0012, abs=0.0001)
    assert least_scale(10_575, 0.9) == pytest.approx(11.46, abs=0.01)


@pytest.mark.parametrize(
    ("identities", "probability"), [(1, 0.9), (0, 0.9), (10, 0.0), (10, 1.0), (10, -2.0)]
)
def test_a_least_scale_of_nothing_is_refused(identities: int, probability: float) -> None:
    with pytest.raises(ValueError, match="two identities and a probability"):
        least_scale(identities, probability)


def test_label_smoothing_leaves_the_rest_of_the_probability_to_all() -> None:
    torch.manual_seed(0)
    one, embedding, label = head("softmax", 8, 5, label_smoothing=0.1), torch.randn(5, 8), torch.arange(5)
    log = one.logits(embedding, label).log_softmax(1)
    expected = -(0.9 * log.diagonal() + 0.1 * log.mean(1)).mean()
    torch.testing.assert_close(one(embedding, label), expected)


@pytest.mark.parametrize("name", [name for name in MARGINS if name != "softmax"])
def test_a_margin_has_no_label_smoothing(name: str) -> None:
    """Smoothing pulls towards the other centres, which is what a margin pushes against."""
    assert margin(name).label_smoothing == 0
    with pytest.raises(BadConfig, match=rf"{name} has no option label_smoothing; it has scale"):
        margin(name, label_smoothing=0.1)


# ── bad input ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("wrong", [-1, 5, 69_077])
@every_head
def test_a_label_without_a_centre_is_refused_by_its_range(name: str, wrong: int) -> None:
    """Elsewhere this is a loss that stands still at 69.0776 = −ln 1e-30."""
    with pytest.raises(BadLabels, match=rf"int64 \[n\] in 0 … 4, got torch.int64 \[2\] in .*{wrong}"):
        head(name, 8, 5)(torch.randn(2, 8), torch.tensor([0, wrong]))


@pytest.mark.parametrize(
    "label",
    [
        torch.tensor([0.0, 1.0]),
        torch.tensor([0, 1], dtype=torch.int32),
        torch.tensor([True, False]),
        torch.eye(2).long(),
    ],
)
def test_labels_of_another_type_or_shape_are_refused_by_name(label: Tensor) -> None:
    with pytest.raises(BadLabels) as caught:
        head("arcface", 8, 5)(torch.randn(2, 8), label)
    assert f"{label.dtype} {list(label.shape)}" in str(caught.value)


def test_the_first_and_the_last_label_are_taken() -> None:
    check_labels(torch.tensor([0, 4]), 5)
    check_labels(torch.tensor([], dtype=torch.int64), 5)


def test_an_unknown_head_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        BadConfig, match=r"'sphereface' is unknown; known are arcface, cosface, combined, adaface"
    ):
        head("sphereface", 8, 5)


def test_an_unknown_option_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadConfig, match=r"arcface has no option m, t; it has scale, margin, gradient"):
        head("arcface", 8, 5, m=0.5, t=1)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("arcface", {"margin": -0.1}, r"margin must lie in 0 … 1.5708, got -0.1"),
        ("arcface", {"margin": math.nan}, "margin must lie"),
        ("arcface", {"margin": "0.5"}, r"margin must lie in .*, got '0.5'"),
        ("arcface", {"gradient": "true"}, r'gradient must be "exact" or "straight_through", got \'true\''),
        ("cosface", {"scale": 0.0}, r"scale must lie in 1 … 1024"),
        ("combined", {"factor": 2.0, "angle": 0.5}, "together are too large"),
        ("dynamic", {"least": 0.6, "most": 0.3}, r"most must lie in 0.6 … 1.5708, got 0.3"),
        ("adaface", {"momentum": 0.0}, "momentum must lie"),
        ("softmax", {"label_smoothing": 1.0}, "label_smoothing must lie"),
    ],
)
def test_an_impossible_value_is_refused_by_its_range(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadConfig, match=said):
        margin(name, **options)


@pytest.mark.parametrize("identities", [0, 1])
def test_a_set_with_one_identity_is_nothing_to_classify(identities: int) -> None:
    with pytest.raises(BadConfig, match=rf"at least two identities, got {identities}"):
        head("arcface", 8, identities)
