"""What a search promises: exact, distinct, living persons, whatever hides them."""

from __future__ import annotations

import numpy as np
import pytest

from service.errors import InvalidParameter
from service.gallery.index import GalleryIndex
from service.gallery.segment import MATRIX_FROM

D = 16


def units(count: int, seed: int = 0, dimension: int = D) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def near(vector: np.ndarray, count: int, seed: int = 1, noise: float = 1e-3) -> np.ndarray:
    moved = vector + noise * units(count, seed, len(vector))
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def ids(kind: str, count: int) -> list[str]:
    return [f"{kind}_{number}" for number in range(count)]


def exact(vectors: np.ndarray, persons: list[str], probe: np.ndarray, limit: int) -> list[tuple[str, float]]:
    best: dict[str, float] = {}
    for person, similarity in zip(persons, (vectors.astype(np.float64) @ probe).tolist(), strict=True):
        best[person] = max(similarity, best.get(person, -2.0))
    return sorted(best.items(), key=lambda of: -of[1])[:limit]


@pytest.mark.parametrize("limit", [1, 7, 100])
@pytest.mark.parametrize("templates_each", [1, 3])
def test_a_search_over_many_segments_equals_the_exact_one(limit: int, templates_each: int) -> None:
    vectors = units(600)
    persons = [f"per_{number // templates_each}" for number in range(600)]
    index = GalleryIndex("g", D, segment_rows=64)
    index.add(persons, ids("fac", 600), vectors)
    snapshot = index.publish(1, len(set(persons)))
    assert len(snapshot.segments) > 5
    probes = units(40, seed=9)
    for probe, hits in zip(probes, snapshot.search(probes, limit), strict=True):
        wanted = exact(vectors, persons, probe, limit)
        assert [hit.person_id for hit in hits] == [person for person, _ in wanted]
        assert [hit.similarity for hit in hits] == pytest.approx([of for _, of in wanted], abs=1e-5)
        for hit in hits:
            row = int(hit.face_id.removeprefix("fac_"))
            assert persons[row] == hit.person_id
            assert float(vectors[row] @ probe) == pytest.approx(hit.similarity, abs=1e-5)


@pytest.mark.parametrize("count", [1, MATRIX_FROM - 1, MATRIX_FROM, 50])
def test_a_probe_finds_the_same_alone_and_in_any_company(count: int) -> None:
    vectors = units(300)
    index = GalleryIndex("g", D, segment_rows=64)
    index.add(ids("per", 300), ids("fac", 300), vectors)
    snapshot = index.publish(1, 300)
    probes = units(50, seed=3)
    alone = [snapshot.search(probe[None], 5)[0] for probe in probes[:count]]
    for probe, one, together in zip(probes, alone, snapshot.search(probes[:count], 5), strict=False):
        # rounding may swap two that are a millionth apart, but nobody gets another's similarity
        assert [of.similarity for of in together] == pytest.approx([of.similarity for of in one], abs=1e-6)
        for of in together:
            own = float(vectors[int(of.person_id.removeprefix("per_"))] @ probe)
            assert of.similarity == pytest.approx(own, abs=1e-6)


def test_a_person_with_a_thousand_templates_does_not_hide_the_second() -> None:
    probe = units(1)[0]
    index = GalleryIndex("g", D, segment_rows=256)
    index.add(["per_many"] * 1000, ids("many", 1000), near(probe, 1000))
    index.add(["per_other"], ["fac_other"], units(1, seed=5))
    hits = index.publish(1, 2).search(probe[None], 2)[0]
    assert [hit.person_id for hit in hits] == ["per_many", "per_other"]


def test_a_thousand_tombstones_do_not_hide_the_living() -> None:
    probe = units(1)[0]
    index = GalleryIndex("g", D, segment_rows=2048)
    index.add([f"per_{n % 50}" for n in range(1000)], ids("fac", 1000), near(probe, 1000))
    index.add(["per_other"], ["fac_other"], units(1, seed=5))
    for number in range(50):
        index.remove_person(f"per_{number}")
    snapshot = index.publish(2, 1)
    assert [hit.person_id for hit in snapshot.search(probe[None], 3)[0]] == ["per_other"]
    assert snapshot.templates == 1
    assert dict(snapshot.histogram) == {1: 1}


def test_a_search_answers_fewer_only_when_there_are_fewer_persons() -> None:
    index = GalleryIndex("g", D)
    index.add(ids("per", 3), ids("fac", 3), units(3))
    snapshot = index.publish(1, 5)
    assert len(snapshot.search(units(1), 100)[0]) == 3
    assert snapshot.search(np.empty((0, D), np.float32), 1) == []


def test_an_empty_gallery_finds_nobody() -> None:
    snapshot = GalleryIndex("g", D).publish(0, 0)
    assert snapshot.search(units(2), 1) == [[], []]
    assert (snapshot.size, snapshot.templates, dict(snapshot.histogram)) == (0, 0, {})


def test_a_similarity_never_leaves_minus_one_to_one() -> None:
    vectors = units(200, dimension=512)
    index = GalleryIndex("g", 512)
    index.add(ids("per", 200), ids("fac", 200), vectors)
    snapshot = index.publish(1, 200)
    both = snapshot.search(vectors, 1) + snapshot.search(-vectors, 200)
    assert all(-1.0 <= hit.similarity <= 1.0 for hits in both for hit in hits)
    assert [hits[0].person_id for hits in both[:200]] == ids("per", 200)


@pytest.mark.parametrize(
    "vector",
    [
        np.full(D, np.nan, np.float32),
        np.full(D, np.inf, np.float32),
        np.zeros(D, np.float32),
        np.full(D, 3e38, np.float32),
        2 * units(1)[0],
        units(1, dimension=D + 1)[0],
    ],
    ids=["nan", "infinite", "zero", "overflowing", "not unit", "another dimension"],
)
def test_a_bad_vector_is_neither_searched_nor_added(vector: np.ndarray) -> None:
    index = GalleryIndex("g", D)
    index.add(["per_1"], ["fac_1"], units(1))
    snapshot = index.publish(1, 1)
    with pytest.raises(InvalidParameter):
        snapshot.search(vector[None], 1)
    with pytest.raises(InvalidParameter):
        index.add(["per_2"], ["fac_2"], vector[None])
    assert index.publish(1, 1).templates == 1


def test_limit_must_be_positive() -> None:
    with pytest.raises(InvalidParameter):
        GalleryIndex("g", D).publish(0, 0).search(units(1), 0)
