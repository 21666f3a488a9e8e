"""The tail's fit agrees with scipy's, finds what it was drawn from, and survives awkward excesses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import genpareto

from bundle.calibration import Tail
from training.evaluation.pareto import SHAPES, fit_pareto


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.0, 0.2])
def test_it_finds_the_tail_that_was_drawn(shape: float) -> None:
    excess = genpareto.rvs(shape, scale=0.04, size=4000, random_state=3)
    found = fit_pareto(excess)
    assert found[0] == pytest.approx(shape, abs=0.06)
    assert found[1] == pytest.approx(0.04, rel=0.08)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_tail_is_likelier_not_even_scipys(seed: int) -> None:
    excess = genpareto.rvs(-0.1, scale=0.03, size=300, random_state=seed)
    ours = fit_pareto(excess)
    theirs = genpareto.fit(excess, floc=0)
    assert genpareto.logpdf(excess, ours[0], scale=ours[1]).sum() >= (
        genpareto.logpdf(excess, theirs[0], scale=theirs[2]).sum() - 0.01
    )


def test_a_weight_counts_an_excess_that_often() -> None:
    random = np.random.default_rng(0)
    excess, weight = random.exponential(0.05, 200), random.integers(0, 4, 200)
    np.testing.assert_allclose(fit_pareto(excess, weight), fit_pareto(np.repeat(excess, weight)), rtol=1e-6)


@pytest.mark.parametrize(
    "excess",
    [np.ones(50), np.linspace(0, 1, 50), np.array([0.0] * 40 + [1.0]), 10.0 ** np.arange(-9, 3)],
    ids=["equal", "uniform", "one", "heavy"],
)
def test_awkward_excesses_give_a_finite_tail(excess: np.ndarray) -> None:
    shape, scale = fit_pareto(excess)
    assert SHAPES[0] <= shape <= SHAPES[1]
    assert 0 < scale < np.inf


@pytest.mark.parametrize("excess", [[], [0.0, 0.0], [-1.0, 1.0]])
def test_without_a_positive_excess_there_is_no_tail(excess: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        fit_pareto(np.array(excess))


@pytest.mark.parametrize("shape", [-0.4, -1e-10, 0.0, 0.3])
def test_the_bundles_closed_form_is_scipys(shape: float) -> None:
    tail = Tail(start=0.3, rate=1e-4, shape=shape, scale=0.03, excesses=100, fitted_above=0.2)
    for excess in (0, 0.01, 0.05, 0.07, 0.3):
        expected = 1e-4 * genpareto.sf(excess, shape, scale=0.03)
        assert math.exp(tail.log_rate(0.3 + excess)) == pytest.approx(expected, rel=1e-6, abs=1e-30)
