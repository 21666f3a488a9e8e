"""The sweep finds the rate at which a known problem is trained fastest."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from training.config import BadConfig
from training.loop.finder import Finding, find, finder_figure


def descent(curvature: float) -> tuple[list[float], Finding]:
    """Gradient descent on ½ c x², which converges for rates below 2 / c."""
    seen: list[float] = []
    place = torch.tensor(10.0)

    def step(rate: float) -> float:
        seen.append(rate)
        loss = 0.5 * curvature * float(place) ** 2
        place.sub_(rate * curvature * place)
        return loss + 0.01

    return seen, find(step, 1e-5, 1e2, steps=140)


@pytest.mark.parametrize("curvature", [0.5, 4.0, 50.0])
def test_the_suggestion_scales_with_the_problem_and_lies_where_descent_converges(curvature: float) -> None:
    _, finding = descent(curvature)
    assert 0.001 / curvature < finding.suggestion < 2 / curvature
    assert finding.suggestion <= finding.lowest / 10
    assert finding.steepest < finding.lowest


def test_the_rates_rise_by_one_factor_and_end_where_the_loss_has_left_its_best_fourfold() -> None:
    seen, finding = descent(4.0)
    factors = [late / early for early, late in pairwise(seen)]
    assert factors == pytest.approx([(1e2 / 1e-5) ** (1 / 139)] * len(factors))
    assert seen[0] == 1e-5
    assert len(seen) < 140
    assert finding.losses[-1] > 4 * min(finding.losses)
    assert all(loss <= 4 * min(finding.losses[: i + 1]) for i, loss in enumerate(finding.losses[:-1]))


def test_a_sweep_without_divergence_reaches_the_highest_rate() -> None:
    losses = iter(torch.linspace(5, 1, 50).tolist())
    finding = find(lambda rate: next(losses), 1e-4, 1e-1, steps=50)
    assert finding.rates[-1] == pytest.approx(1e-1)
    assert finding.lowest == pytest.approx(1e-1)
    assert finding.losses[0] == pytest.approx(5)  # the average is not drawn towards the 0 it began at


def test_a_loss_that_is_no_number_ends_the_sweep_and_is_not_part_of_it() -> None:
    finding = find(lambda rate: 1 - rate if rate < 0.1 else math.nan, 1e-4, 1.0, steps=100)
    assert max(finding.rates) < 0.1
    assert all(math.isfinite(loss) for loss in finding.losses)


@pytest.mark.parametrize(
    ("low", "high", "steps"), [(0.0, 1.0, 50), (1.0, 0.1, 50), (-1.0, 1.0, 50), (1e-3, 1.0, 5)]
)
def test_a_range_without_a_way_is_refused(low: float, high: float, steps: int) -> None:
    with pytest.raises(BadConfig, match="0 < low < high and at least 10 steps"):
        find(lambda rate: 1.0, low, high, steps)


def test_a_loss_that_never_falls_or_explodes_at_once_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"fell at no rate .* lower `low`"):
        find(lambda rate: 1 + rate, 1e-3, 1.0, 50)
    with pytest.raises(BadConfig, match="left all bounds after 0 steps"):
        find(lambda rate: math.nan, 1e-3, 1.0, 50)


def test_the_figure_is_a_picture_and_the_same_each_time() -> None:
    _, finding = descent(4.0)
    png = finder_figure(finding)
    assert png.startswith(b"\x89PNG")
    assert png == finder_figure(finding)
