"""One-to-many rates are what their definitions say, and no FPIR is quoted that the searches cannot carry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.evaluation.drawn_scores import drawn_people
from training.evaluation.identification import (
    Split,
    drawn_split,
    first_enrolled,
    identification,
    search,
)
from training.evaluation.verification import NotUnitVectors, TooFewImpostors


def at(*degrees: float) -> np.ndarray:
    """Unit vectors of the plane."""
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def nobody(n: int) -> np.ndarray:
    return np.full(n, "")


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


# Two enrolled people (0: at 0° and 20°, 1: at 90°), searched by themselves (10°, 50°, 95°) and by a stranger (60°).
SMALL = at(0, 20, 90, 10, 50, 95, 60)
WHO = np.array([0, 0, 1, 0, 0, 1, 2])
SPLIT = Split(np.array([0, 1, 2]), np.array([3, 4, 5]), np.array([6]))


def test_a_person_s_score_is_the_best_of_the_templates() -> None:
    found = search(SMALL, WHO, nobody(7), SPLIT)
    np.testing.assert_allclose(found.mate, [cosine(10), cosine(30), cosine(5)], atol=1e-6)
    np.testing.assert_allclose(found.highest, [cosine(30)], atol=1e-6)
    assert found.rank.tolist() == [1, 1, 1]


def test_a_search_misses_below_the_threshold_or_behind_another() -> None:
    far = search(at(0, 20, 90, 10, 56, 95, 60), WHO, nobody(7), SPLIT)  # 56° is nearer to 90° than to 20°
    assert far.rank.tolist() == [1, 2, 1]
    assert far.fnir(0.0) == pytest.approx(1 / 3)
    assert far.fnir(cosine(7)) == pytest.approx(2 / 3)
    assert (far.found_within(1), far.found_within(2)) == (pytest.approx(2 / 3), 1.0)
    assert (far.fpir(cosine(29)), far.fpir(cosine(31))) == (0.0, 1.0)


def test_equal_scores_count_against_us() -> None:
    """An embedder that says the same of everybody finds nobody."""
    found = search(at(*[0] * 7), WHO, nobody(7), SPLIT)
    assert found.rank.tolist() == [2, 2, 2]
    assert found.fnir(-1) == 1


def test_kin_in_the_gallery_are_passed_over_and_oneself_is_not() -> None:
    family = np.array(["", "", "F", "", "", "F", "F"])
    found = search(SMALL, WHO, family, SPLIT)
    np.testing.assert_allclose(found.highest, [cosine(40)], atol=1e-6)  # 60° against 20°; 90° is kin
    np.testing.assert_allclose(found.mate[2], cosine(5), atol=1e-6)
    everybody = np.where(WHO == 1, "", "F")
    alone = Split(SPLIT.enrolled[:2], np.array([3]), SPLIT.unknown)
    assert search(SMALL, WHO, everybody, alone).highest.tolist() == [-np.inf]
    assert search(SMALL, WHO, everybody, alone).fpir(-1) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_more_templates_never_lower_fpir_and_never_a_mate_s_score(seed: int, threshold: float) -> None:
    embedding, identity, family = drawn_people(20, 5, seed=seed)
    random = np.random.default_rng(seed)
    split = drawn_split(identity, 10, random)
    more = Split(np.concatenate([split.enrolled, split.mated[::2]]), split.mated[1::2], split.unknown)
    fewer = Split(split.enrolled, split.mated[1::2], split.unknown)
    one, other = (search(embedding, identity, family, of) for of in (fewer, more))
    assert other.fpir(threshold) >= one.fpir(threshold + 1e-6)
    assert (other.mate >= one.mate - 1e-6).all()
    twice = Split(np.concatenate([split.enrolled, split.enrolled]), fewer.mated, split.unknown)
    again = search(embedding, identity, family, twice)
    np.testing.assert_allclose(again.highest, one.highest, atol=1e-6)
    assert again.rank.tolist() == one.rank.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_larger_gallery_never_lowers_fpir_nor_a_rank(seed: int) -> None:
    embedding, identity, family = drawn_people(30, 3, seed=seed, noise=1.2)
    small = drawn_split(identity, 10, np.random.default_rng(seed))
    unknown = np.isin(identity, np.unique(identity[small.unknown])[:10])
    others = np.setdiff1d(small.unknown, np.flatnonzero(unknown))
    few = Split(small.enrolled, small.mated, np.flatnonzero(unknown))
    many = Split(np.concatenate([small.enrolled, others]), small.mated, np.flatnonzero(unknown))
    one, other = (search(embedding, identity, family, of) for of in (few, many))
    assert (other.highest >= one.highest - 1e-6).all()
    assert (other.rank >= one.rank).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.1]))
def test_the_threshold_is_the_smallest_that_keeps_the_fpir(seed: int, fpir: float) -> None:
    embedding, identity, family = drawn_people(60, 4, seed=seed)
    found = search(embedding, identity, family, drawn_split(identity, 20, np.random.default_rng(seed)))
    threshold = found.threshold_at_fpir(fpir)
    assert found.fpir(threshold) <= fpir < found.fpir(found.highest[found.highest < threshold].max())


def test_an_fpir_on_fewer_than_ten_expected_events_is_refused_or_left_out() -> None:
    embedding, identity, family = drawn_people(60, 4)
    splits = [drawn_split(identity, 20, np.random.default_rng(0))]
    found = search(embedding, identity, family, splits[0])
    with pytest.raises(TooFewImpostors, match=r"160 searches of unknown people cannot carry FPIR 0\.01"):
        found.threshold_at_fpir(0.01)
    assert list(identification(embedding, identity, family, splits).fnir) == [0.1]
    few = [Split(splits[0].enrolled, splits[0].mated, splits[0].unknown[:99])]
    with pytest.raises(TooFewImpostors, match="99 searches"):
        identification(embedding, identity, family, few)


def test_lfw_s_protocol_enrols_the_first_of_several_and_knows_nobody_else() -> None:
    split = first_enrolled(np.array(["b", "a", "b", "c", "a", "a", "d"]))
    assert (split.enrolled.tolist(), split.mated.tolist(), split.unknown.tolist()) == (
        [0, 1],
        [2, 4, 5],
        [3, 6],
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=4, max_size=60), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_drawn_split_parts_people_and_never_searches_a_template(
    labels: list[int], templates: int, seed: int
) -> None:
    identity = np.array(labels)
    people = np.unique(identity)
    if len(people) < 2:
        return
    gallery = 1 + seed % (len(people) - 1)
    split = drawn_split(identity, gallery, np.random.default_rng(seed), templates)
    rows = np.concatenate([split.enrolled, split.mated, split.unknown])
    assert sorted(rows.tolist()) == list(range(len(identity)))
    enrolled = identity[split.enrolled]
    assert len(np.unique(enrolled)) == gallery
    assert not set(enrolled.tolist()) & set(identity[split.unknown].tolist())
    for person in np.unique(enrolled):
        pictures, kept = int((identity == person).sum()), int((enrolled == person).sum())
        assert kept == min(max(1, pictures - 1), templates)


def test_a_gallery_of_nobody_or_everybody_is_refused() -> None:
    identity = np.arange(5)
    for gallery in (0, 5, 9):
        with pytest.raises(ValueError, match="cannot fill"):
            drawn_split(identity, gallery, np.random.default_rng(0))
    with pytest.raises(ValueError, match="each is needed"):
        search(at(0, 10, 20, 30, 40), identity, nobody(5), Split(np.arange(2), np.arange(0), np.arange(2, 5)))
    with pytest.raises(NotUnitVectors):
        search(
            at(0, 10) * np.nan, np.arange(2), nobody(2), Split(np.arange(1), np.arange(1), np.arange(1, 2))
        )


def test_the_value_is_the_mean_of_each_split_at_its_own_threshold() -> None:
    embedding, identity, family = drawn_people(80, 4, noise=1.0)
    splits = [drawn_split(identity, 30, np.random.default_rng(n)) for n in range(5)]
    found = [search(embedding, identity, family, split) for split in splits]
    result = identification(embedding, identity, family, splits, draws=40)
    expected = np.mean([of.fnir(of.threshold_at_fpir(0.1)) for of in found])
    assert result.fnir[0.1].value == pytest.approx(expected)
    assert result.ranks[1].value == pytest.approx(np.mean([of.found_within(1) for of in found]))
    assert result.fnir[0.1].low <= result.fnir[0.1].value <= result.fnir[0.1].high
    assert (result.gallery, result.splits, result.mated, result.unknown) == (30, 5, 90, 200)
    assert result.fnir[0.1].value >= 1 - result.ranks[1].value


def test_a_search_of_a_person_drawn_twice_weighs_as_two() -> None:
    """The interval is that of people: copying every face of everybody leaves it as wide as it was."""
    embedding, identity, family = drawn_people(60, 4, noise=1.2)
    split = drawn_split(identity, 20, np.random.default_rng(0))
    one = identification(embedding, identity, family, [split], draws=60)
    copied = np.concatenate([np.arange(len(identity)), split.mated, split.unknown])
    faces = len(identity)
    more = np.arange(faces, len(copied))
    twice = Split(
        split.enrolled,
        np.concatenate([split.mated, more[: len(split.mated)]]),
        np.concatenate([split.unknown, more[len(split.mated) :]]),
    )
    other = identification(embedding[copied], identity[copied], family[copied], [twice], draws=60)
    for key in ("value", "low", "high"):
        assert getattr(other.fnir[0.1], key) == pytest.approx(getattr(one.fnir[0.1], key), abs=1e-9)
        assert getattr(other.ranks[1], key) == pytest.approx(getattr(one.ranks[1], key), abs=1e-9)


def test_neither_the_order_of_faces_nor_the_names_of_people_matter() -> None:
    embedding, identity, family = drawn_people(60, 4, noise=1.2)
    split = drawn_split(identity, 20, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(len(identity))
    place = np.argsort(order)
    moved = Split(place[split.enrolled], place[split.mated], place[split.unknown])
    one = identification(embedding, identity, family, [split], draws=20)
    names = np.char.add("person ", identity[order].astype(str))
    other = identification(embedding[order], names, family[order], [moved], draws=20)
    assert other.fnir == one.fnir
    assert other.ranks == one.ranks


def test_the_curve_over_fpir_falls_and_passes_through_the_rates() -> None:
    embedding, identity, family = drawn_people(120, 4, noise=1.2)
    split = drawn_split(identity, 40, np.random.default_rng(0))
    result = identification(embedding, identity, family, [split], draws=5)
    fpir, fnir = result.det
    assert fpir[-1] == 1
    assert round(fpir[0] * len(split.unknown)) >= 10
    assert (np.diff(fpir) > 0).all()
    assert (np.diff(fnir) <= 0).all()
    assert np.interp(0.1, fpir, fnir) == pytest.approx(result.fnir[0.1].value, abs=0.02)


def test_a_better_embedder_misses_less() -> None:
    rates = []
    for noise in (0.5, 1.5):
        embedding, identity, family = drawn_people(80, 4, noise=noise)
        split = drawn_split(identity, 30, np.random.default_rng(0))
        rates.append(identification(embedding, identity, family, [split], draws=30).fnir[0.1])
    assert rates[0].high < rates[1].low
