"""Every two people are compared once, with the templates that were said, and kin are known as kin."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation.comparisons import TEMPLATES, draw_comparisons

COUNTS = np.array([1, 2, 3, 5, 10, 12, 1, 4])


def test_every_pair_of_people_is_compared_once_for_each_k_that_one_of_them_serves() -> None:
    drawn = draw_comparisons(*drawn_people(len(COUNTS), COUNTS))
    for index, k in enumerate(TEMPLATES):
        there = ~np.isnan(drawn.best[index])
        assert not there.diagonal().any()
        assert not (there & there.T).any()
        serves = k <= COUNTS
        expected = (serves[:, None] | serves[None, :]) & ~np.eye(len(COUNTS), dtype=bool)
        np.testing.assert_array_equal(there | there.T, expected)
        assert not there[:, ~serves].any()  # the gallery's person has k pictures


def test_scores_are_those_of_the_pictures() -> None:
    embedding, identity, family = drawn_people(len(COUNTS), COUNTS)
    drawn = draw_comparisons(embedding, identity, family)
    similarity = embedding @ embedding.T
    for index, k in enumerate(TEMPLATES):
        for probe, gallery in np.argwhere(~np.isnan(drawn.best[index])):
            block = similarity[identity == drawn.identity[probe]][:, identity == drawn.identity[gallery]]
            # the best of k templates against one picture: at least k of its row are no better
            no_better = (block <= drawn.best[index, probe, gallery] + 1e-6).sum(1)
            exact = np.isclose(block, drawn.best[index, probe, gallery], atol=1e-6).any(1)
            assert (exact & (no_better >= k)).any()


def test_the_draw_depends_on_the_seed_alone_and_not_on_the_order_of_labels() -> None:
    embedding, identity, family = drawn_people(30, 3)
    one = draw_comparisons(embedding, identity, family, seed=5)
    again = draw_comparisons(embedding, identity, family, seed=5)
    other = draw_comparisons(embedding, identity, family, seed=6)
    np.testing.assert_array_equal(one.best, again.best)
    assert not np.array_equal(one.best, other.best, equal_nan=True)


def test_kin_and_excluded_pairs_are_not_clean() -> None:
    embedding, identity, family = drawn_people(6, 2)
    family[identity == 100] = "A"
    family[np.flatnonzero(identity == 101)[0]] = "A"  # named so in one of two pictures
    drawn = draw_comparisons(embedding, identity, family, excluded=[(104, 102)])
    expected = ~np.eye(6, dtype=bool)
    expected[[0, 1, 2, 4], [1, 0, 4, 2]] = False
    np.testing.assert_array_equal(drawn.clean() & ~np.eye(6, dtype=bool), expected)
    assert drawn.kin.sum() == 2
    assert drawn.excluded.sum() == 2


def test_an_excluded_person_who_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="not in this set"):
        draw_comparisons(*drawn_people(5, 2), excluded=[(100, 999)])


def test_vectors_that_are_not_of_unit_length_are_refused() -> None:
    embedding, identity, family = drawn_people(5, 2)
    with pytest.raises(ValueError, match="unit"):
        draw_comparisons(embedding * 2, identity, family)
    with pytest.raises(ValueError, match="shapes"):
        draw_comparisons(embedding, identity[:-1], family)
