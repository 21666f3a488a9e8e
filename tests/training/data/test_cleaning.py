"""What is wrong with a set is found where it was put, and hardly anywhere else."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.cleaning import Limits, agreement, collisions, copies, findings
from training.data.pictures import BadData

DIMENSION = 64


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def people(
    count: int, faces: int, rng: np.random.Generator, alike: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [n, d] and labels [n]: the mean cosine of one person's two faces is `alike`, of two people's 0."""
    label = np.repeat(np.arange(count), faces)
    who = unit(rng.normal(size=(count, DIMENSION)))[label]
    noise = unit(rng.normal(size=(len(label), DIMENSION)))
    return unit(np.sqrt(alike) * who + np.sqrt(1 - alike) * noise), label


def different(count: int, rng: np.random.Generator) -> np.ndarray:
    """Hashes of pictures that are no copies."""
    return rng.random((count, 256)) < 0.5


@pytest.mark.parametrize("count", [2, 3, 5, 20, 100])
@pytest.mark.parametrize("seed", range(4))
def test_of_forty_percent_wrong_labels_nearly_all_are_found_and_little_else(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embedding, truth = people(count, max(20, 120 // count), rng)
    wrong = rng.random(len(truth)) < 0.4
    label = np.where(wrong, (truth + rng.integers(1, count, len(truth))) % count, truth)
    # nobody can tell which part of an identity is the wrong one where the wrong one is the larger
    decided = np.array([(wrong[label == who]).mean() < 0.5 for who in range(count)])[label]
    found = findings(embedding, label, different(len(label), rng)).outlier
    recall = found[wrong & decided].mean()
    precision = wrong[found & decided].mean()
    print(f"{count} people: recall {recall:.3f}, precision {precision:.3f}")
    assert recall >= 0.95
    assert precision >= 0.95


def test_without_wrong_labels_next_to_nothing_is_found() -> None:
    rng = np.random.default_rng(0)
    embedding, label = people(200, 8, rng)
    found = findings(embedding, label, different(len(label), rng))
    assert found.outlier.mean() < 0.01
    assert found.counts(label)["copies"] == found.counts(label)["colliding_identities"] == 0


def test_agreement_leaves_the_face_itself_out() -> None:
    first, second = unit(np.eye(3))[:2]
    between = unit(first + second)
    own = agreement(np.stack([first, between, second]), np.array([0, 0, 1]))[1]
    assert own[:2].tolist() == pytest.approx([np.sqrt(0.5)] * 2)
    assert np.isnan(own[2])


def test_agreement_settles_on_the_larger_part_not_between_the_two() -> None:
    rng = np.random.default_rng(2)
    embedding = people(2, 60, rng)[0]
    part = np.r_[0:60, 60:100]  # 60 % and 40 %
    direction = agreement(embedding[part], np.zeros(100, int))[0][0]
    larger, smaller = unit(embedding[:60].sum(0)), unit(embedding[60:].sum(0))
    assert direction @ larger > 0.98
    assert direction @ smaller < 0.3


def test_labels_that_nobody_has_are_left_empty() -> None:
    direction, _ = agreement(unit(np.eye(4))[:2], np.array([0, 3]), 5)
    assert direction.shape == (5, 4)
    assert np.linalg.norm(direction, axis=1).tolist() == pytest.approx([1, 0, 0, 1, 0])


def test_copies_are_found_inside_and_across_identities() -> None:
    rng = np.random.default_rng(3)
    embedding, label = people(10, 6, rng)
    hashes = different(60, rng)
    for copy, original in ((1, 0), (13, 12), (20, 2)):  # the last in another identity
        embedding[copy] = unit(embedding[original] + 0.02 * rng.normal(size=DIMENSION))
        hashes[copy] = hashes[original] ^ (np.arange(256) < 10)
    found = findings(embedding, label, hashes)
    pairs = {frozenset((row, int(of))) for row, of in enumerate(found.copy_of) if of >= 0}
    assert pairs == {frozenset((0, 1)), frozenset((12, 13)), frozenset((2, 20))}
    assert found.copy_of[20] == 2  # the one among its own people is the original
    assert not found.outlier.any()
    assert found.counts(label)["copies"] == 2
    assert found.counts(label)["copies_across_identities"] == 1


def test_both_the_pixels_and_the_face_must_agree() -> None:
    rng = np.random.default_rng(4)
    embedding = people(6, 4, rng)[0]
    hashes = different(24, rng)
    hashes[1] = hashes[0]  # the pixels' coarse pattern alone
    embedding[9] = embedding[8]  # the face alone
    own = np.ones(24, np.float32)
    assert (copies(embedding, hashes, own) < 0).all()


def test_of_many_copies_one_stays_and_no_original_is_a_copy() -> None:
    rng = np.random.default_rng(5)
    embedding = np.repeat(people(3, 1, rng)[0], 5, axis=0)
    hashes = np.repeat(different(3, rng), 5, axis=0)
    own = rng.random(15).astype(np.float32)
    copy_of = copies(embedding, hashes, own)
    originals = np.flatnonzero(copy_of < 0)
    assert originals.tolist() == [int(5 * n + own[5 * n : 5 * n + 5].argmax()) for n in range(3)]
    assert set(copy_of[copy_of >= 0].tolist()) == set(originals.tolist())


def test_a_chain_of_neighbours_is_not_taken_for_one_picture() -> None:
    hashes = np.zeros((3, 256), bool)
    hashes[1, :20] = hashes[2, :40] = True  # the ends differ by 40 bits
    copy_of = copies(np.ones((3, 1), np.float32), hashes, np.array([3, 2, 1], np.float32))
    assert copy_of.tolist() == [-1, 0, -1]


def test_two_copies_of_a_wrong_face_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(6)
    embedding, label = people(3, 3, rng)
    stranger = unit(rng.normal(size=DIMENSION))
    embedding[[1, 2]] = stranger
    hashes = different(9, rng)
    hashes[2] = hashes[1]
    found = findings(embedding, label, hashes)
    assert sorted([int(found.copy_of[1]), int(found.copy_of[2])]) == [-1, 1]
    assert found.outlier[1]


def test_one_person_under_two_labels_collides_and_kin_do_not() -> None:
    rng = np.random.default_rng(7)
    embedding, label = people(8, 10, rng)
    label[76:80] = 8  # person 7, her last four pictures
    found = findings(embedding, label, different(80, rng))
    assert found.colliding.tolist() == [[8, 7]]  # the smaller becomes the larger
    assert found.alike[0] > 0.7
    family = np.array([""] * 80)
    family[75:77] = "f"  # a face of each
    assert len(findings(embedding, label, different(80, rng), family).colliding) == 0


def test_an_outlier_says_whom_it_resembles() -> None:
    rng = np.random.default_rng(8)
    embedding, label = people(12, 8, rng)
    label[3] = 5
    found = findings(embedding, label, different(96, rng))
    assert np.flatnonzero(found.outlier).tolist() == [3]
    assert found.nearest[3] == 0
    assert found.foreign[3] > found.own[3]


def test_blocks_find_what_all_pairs_at_once_find(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(9)
    direction = unit(rng.normal(size=(150, 6)))
    similarity = np.triu(direction @ direction.T, 1)
    expected = {(int(a), int(b)) for a, b in np.argwhere(similarity >= 0.8)}
    monkeypatch.setattr("training.data.cleaning._ROWS", 16)
    monkeypatch.setattr("training.data.cleaning._COLUMNS", 48)
    pairs, alike = collisions(direction, 0.8)
    assert {(int(a), int(b)) for a, b in pairs} == expected
    assert (np.diff(alike) <= 0).all()


def test_an_embedder_that_tells_nobody_apart_is_named() -> None:
    same = np.ones((200, 1), np.float32)
    with pytest.raises(BadData, match="tells nobody apart"):
        findings(same, np.repeat(np.arange(100), 2), different(200, np.random.default_rng(0)))


@pytest.mark.parametrize("length", [0.0, 2.0, np.nan])
def test_vectors_that_are_no_unit_vectors_are_refused(length: float) -> None:
    embedding, label = people(3, 2, np.random.default_rng(0))
    with pytest.raises(BadData, match="no unit vectors"):
        findings(embedding * np.float32(length), label, np.zeros((6, 256), bool))


def test_limits_are_obeyed() -> None:
    rng = np.random.default_rng(10)
    embedding, label = people(20, 10, rng)
    hashes = different(200, rng)
    strict = findings(embedding, label, hashes, limits=Limits(own=0.6))
    assert strict.outlier.sum() == (strict.own < 0.6).sum() > findings(embedding, label, hashes).outlier.sum()


@pytest.mark.slow
def test_a_hundred_thousand_faces_fit() -> None:
    import tracemalloc

    rng = np.random.default_rng(11)
    embedding, label = people(10_000, 10, rng)
    hashes = different(len(label), rng)
    tracemalloc.start()
    found = findings(embedding, label, hashes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6
    assert len(found.own) == 100_000
