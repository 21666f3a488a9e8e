"""The report's thresholds: what was left out of the calibration is said with what it would have changed."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.calibration import Calibration, ExcludedPair, Rival
from training.evaluation.calibration import Models, fit_calibration
from training.evaluation.thresholds_report import thresholds_part


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Forty people, two of whom are one person in truth."""
    random = np.random.default_rng(2)
    person = random.normal(size=(40, 16))
    person[1] = person[0]
    embedding = np.repeat(person, 3, 0) + 0.5 * random.normal(size=(120, 16))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    return fit_calibration(
        embedding.astype(np.float32),
        np.repeat(np.arange(40), 3),
        np.full(120, ""),
        dataset="drawn",
        models=Models("a" * 64, "b" * 64),
        excluded=[ExcludedPair(first=0, second=1, reason="seen")],
        bootstraps=10,
    )


def test_pairs_that_are_left_out_are_told_with_what_they_would_change(calibration: Calibration) -> None:
    """One pair of 780 is left out, and would match."""
    told = thresholds_part(calibration, {})
    assert "left out: 1. Counted in, 78 of 780 comparisons would match at the threshold for FMR 0.1 " in told
    assert "FMR 0.1 instead of 77 of 779. " in told


def test_the_smallest_rate_that_is_carried_is_the_one_told(calibration: Calibration) -> None:
    rival = Rival(comparisons=780, at=(0.1, 0.05), rates=(0.1, 39 / 780))
    told = thresholds_part(calibration.model_copy(update={"with_excluded": rival}), {})
    assert "39 of 780 comparisons would match at the threshold for FMR 0.05 instead of 38 of 779. " in told


def test_nothing_is_counted_in_where_nothing_was_left_out_or_carried(calibration: Calibration) -> None:
    for changed in ({"excluded": ()}, {"with_excluded": Rival(comparisons=780)}):
        assert "Counted in" not in thresholds_part(calibration.model_copy(update=changed), {})
