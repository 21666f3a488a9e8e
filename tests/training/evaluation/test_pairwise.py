"""Every pair is seen once, on its side, whatever the blocks; the counts are those of all pairs at once."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation import pairwise
from training.evaluation.pairwise import BINS, People, ScoreCounts, blocks, score_bins
from training.evaluation.verification import NotUnitVectors, all_pairs


def a_set(seed: int = 0, people: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces of people with one to five pictures, some of them kin."""
    random = np.random.default_rng(seed)
    embedding, identity, family = drawn_people(people, random.integers(1, 6, people), seed=seed)
    for number in range(people // 5):
        family[(identity == 100 + 2 * number) | (identity == 101 + 2 * number)] = f"F{number}"
    return embedding, identity, family


@pytest.mark.parametrize("rows", [1, 7, 64, 10_000])
def test_blocks_hold_every_pair_once_and_on_its_side(rows: int) -> None:
    embedding, identity, family = a_set()
    people = People.of(identity, family)
    found: dict[str, list[float]] = {"mated": [], "stranger": [], "kin": []}
    for block in blocks(embedding, people, rows):
        for kind, scores in found.items():
            scores += block.similarity[getattr(block, kind)].tolist()
    expected = all_pairs(embedding, identity, family)
    np.testing.assert_allclose(sorted(found["mated"]), np.sort(expected.genuine), atol=1e-6)
    np.testing.assert_allclose(sorted(found["stranger"]), np.sort(expected.impostor), atol=1e-6)
    assert sum(map(len, found.values())) == len(embedding) * (len(embedding) - 1) // 2
    assert len(found["kin"]) > 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 50]))
def test_counts_are_those_of_brute_force(seed: int, rows: int) -> None:
    embedding, identity, family = a_set(seed, people=12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairwise, "blocks", partial(blocks, rows=rows))
        counts = ScoreCounts.of(embedding, People.of(identity, family))
    genuine, impostor, kin = np.zeros((3, BINS), int)
    for i in range(len(embedding)):
        for j in range(i):
            place = int(score_bins(np.float32(embedding[i] @ embedding[j])))
            same, related = identity[i] == identity[j], family[i] != "" and family[i] == family[j]
            (genuine if same else kin if related else impostor)[place] += 1
    for got, expected in ((counts.genuine, genuine), (counts.impostor, impostor), (counts.kin, kin)):
        assert got.sum() == expected.sum()
        assert np.abs(got.cumsum() - expected.cumsum()).max() <= 1  # one score on the edge of a bin


def test_counts_do_not_know_the_order_of_faces_nor_the_names_of_people() -> None:
    embedding, identity, family = a_set(3)
    counts = ScoreCounts.of(embedding, People.of(identity, family))
    order = np.random.default_rng(1).permutation(len(embedding))
    names = np.char.add("person ", (1000 - identity[order]).astype(str))
    again = ScoreCounts.of(embedding[order], People.of(names, family[order]))
    for one, other in (
        (counts.genuine, again.genuine),
        (counts.impostor, again.impostor),
        (counts.kin, again.kin),
    ):
        assert np.abs(one.cumsum() - other.cumsum()).max() <= 1


def test_the_weighted_number_of_impostors_is_counted_pair_by_pair() -> None:
    _, identity, family = a_set(5)
    people = People.of(identity, family)
    weight = np.random.default_rng(2).integers(0, 4, len(people.pictures)).astype(float)
    expected = sum(
        weight[people.of_face[i]] * weight[people.of_face[j]]
        for i in range(len(identity))
        for j in range(i)
        if not people.related[people.of_face[i], people.of_face[j]]
    )
    assert people.impostor_weight(weight) == pytest.approx(expected)


@pytest.mark.parametrize("broken", [np.nan, 0.0, 3.0])
def test_vectors_that_are_no_unit_vectors_are_refused(broken: float) -> None:
    """A score that is no number is below no threshold: a model that diverged would miss nobody."""
    embedding, identity, family = a_set()
    embedding[4] *= broken
    with pytest.raises(NotUnitVectors, match="unit vectors"):
        ScoreCounts.of(embedding, People.of(identity, family))
    with pytest.raises(NotUnitVectors):
        all_pairs(embedding, identity, family)


def test_every_cosine_has_a_bin() -> None:
    assert score_bins(np.float32([-1.0000001, -1, 0, 1, 1.0000001])).tolist() == [
        0,
        0,
        BINS // 2,
        BINS - 1,
        BINS - 1,
    ]


def test_the_bin_from_which_the_highest_lie() -> None:
    impostor = np.zeros(BINS, int)
    impostor[[10, 500, 900]] = 5, 3, 2
    counts = ScoreCounts(impostor, impostor, impostor)
    assert [counts.highest_impostors(n) for n in (1, 2, 3, 5, 6, 10, 99)] == [900, 900, 500, 500, 10, 10, 10]


def test_det_of_counts_made_by_hand() -> None:
    genuine, impostor = np.zeros((2, BINS), int)
    impostor[[100, 200, 300]] = 60, 30, 10
    genuine[[150, 250, 350]] = 1, 1, 2
    fmr, fnmr = ScoreCounts(genuine, impostor, 0 * impostor).det()
    assert fmr.tolist() == pytest.approx([0.1, 0.4, 1.0])
    assert fnmr.tolist() == pytest.approx([0.5, 0.25, 0.0])


def test_the_det_curve_falls_from_every_pair_to_what_the_pairs_carry() -> None:
    embedding, identity, family = drawn_people(60, 4, noise=1.2)
    fmr, fnmr = ScoreCounts.of(embedding, People.of(identity, family)).det()
    scores = all_pairs(embedding, identity, family)
    assert fmr[-1] == 1
    assert 10 <= round(fmr[0] * len(scores.impostor)) <= 12
    assert (np.diff(fmr) > 0).all()
    assert (np.diff(fnmr) <= 0).all()
    for place in range(0, len(fmr), 10):  # against the definition, at the threshold that accepts as many
        count = round(fmr[place] * len(scores.impostor))
        threshold = np.sort(scores.impostor)[-count]
        assert fnmr[place] == pytest.approx((scores.genuine < threshold).mean(), abs=0.01)
