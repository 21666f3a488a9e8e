"""The writer's side: what is published and what is not, counts, compaction."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gallery import compaction
from service.gallery.index import GalleryIndex
from service.gallery.snapshot import Snapshot

D = 8


def units(count: int, seed: int = 0, dimension: int = D) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def rows(snapshot: Snapshot) -> dict[str, tuple[str, bytes]]:
    """Every live template: face → person and vector."""
    found = {}
    for segment in snapshot.segments:
        for row in range(segment.rows):
            if segment.dead is None or not segment.dead[row]:
                found[segment.faces[row].decode()] = (
                    segment.persons[row].decode(),
                    segment.vectors[row].tobytes(),
                )
    return found


def test_a_snapshot_taken_before_a_change_never_shows_it() -> None:
    index = GalleryIndex("g", D, segment_rows=8)
    vectors = units(40)
    seen: list[tuple[Snapshot, dict[str, tuple[str, bytes]]]] = []
    for number in range(40):
        index.add([f"per_{number}"], [f"fac_{number}"], vectors[number : number + 1])
        if number % 3 == 2:
            index.remove_person(f"per_{number - 1}")
        snapshot = index.publish(number + 1, 0)
        seen.append((snapshot, rows(snapshot)))
    assert all(rows(snapshot) == before for snapshot, before in seen)
    assert len({len(before) for _, before in seen}) > 20


def test_nothing_is_seen_before_it_is_published() -> None:
    index = GalleryIndex("g", D)
    index.add(["per_1"], ["fac_1"], units(1))
    before = index.publish(1, 1)
    index.add(["per_2"], ["fac_2"], units(1, seed=2))
    index.remove_person("per_1")
    assert set(rows(before)) == set(rows(index.snapshot)) == {"fac_1"}
    assert set(rows(index.publish(2, 1))) == {"fac_2"}


def test_an_id_that_would_be_cut_short_is_refused() -> None:
    index = GalleryIndex("g", D)
    with pytest.raises(ValueError, match="24 ASCII"):
        index.add(["p" * 25], ["f"], units(1))
    with pytest.raises(ValueError, match="24 ASCII"):
        index.add(["p"], [""], units(1))


Step = st.tuples(
    st.sampled_from(["add", "add many", "person", "face", "compact", "late compact"]), st.integers(0, 9)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(Step, max_size=60), st.integers(0, 1000))
def test_the_index_equals_a_naive_model_after_any_steps(steps: list[tuple[str, int]], seed: int) -> None:
    index = GalleryIndex("g", D, segment_rows=16)
    model: dict[str, tuple[str, bytes]] = {}
    vectors = iter(units(60 * 40, seed))
    planned = None
    made = 0

    def add(person: str, count: int) -> None:
        nonlocal made
        faces = [f"fac_{made + of}" for of in range(count)]
        chosen = np.stack([next(vectors) for _ in faces])
        index.add([person] * count, faces, chosen)
        model.update({face: (person, vector.tobytes()) for face, vector in zip(faces, chosen, strict=True)})
        made += count

    for revision, (step, number) in enumerate(steps, 1):
        person = f"per_{number}"
        of_person = [face for face, (owner, _) in model.items() if owner == person]
        if step == "add":
            add(person, 1)
        elif step == "add many":
            add(person, 3 + number * 4)
        elif step == "person":
            assert index.remove_person(person) == len(of_person)
            model = {face: of for face, of in model.items() if of[0] != person}
        elif step == "face":
            assert index.remove_face(person, of_person[0] if of_person else "fac_none") == bool(of_person)
            model.pop(of_person[0] if of_person else "fac_none", None)
        if step == "compact" and planned is None:
            planned = compaction.plan(index, dead_rows=1, dead_share=0.1)
            if planned is not None:
                planned.build()
        elif step == "late compact" and planned is not None:
            compaction.adopt(index, planned)
            planned = None
        snapshot = index.publish(revision, 0)
        check(snapshot, model)


def check(snapshot: Snapshot, model: dict[str, tuple[str, bytes]]) -> None:
    assert rows(snapshot) == model
    assert snapshot.templates == len(model)
    owners = [owner for owner, _ in model.values()]
    each = [owners.count(owner) for owner in set(owners)]
    assert dict(snapshot.histogram) == {count: each.count(count) for count in set(each)}


def test_loading_in_blocks_equals_adding_one_by_one() -> None:
    vectors = units(100)
    persons, faces = [f"per_{n % 30}" for n in range(100)], [f"fac_{n}" for n in range(100)]
    loaded, added = GalleryIndex("g", D, segment_rows=32), GalleryIndex("g", D, segment_rows=32)
    for start in range(0, 100, 17):
        loaded.load(persons[start : start + 17], faces[start : start + 17], vectors[start : start + 17])
    loaded.recount()
    for number in range(100):
        added.add(persons[number : number + 1], faces[number : number + 1], vectors[number : number + 1])
    one, other = loaded.publish(1, 30), added.publish(1, 30)
    assert rows(one) == rows(other)
    assert one.histogram == other.histogram == {3: 20, 4: 10}


def test_compaction_gives_dead_memory_back_and_changes_no_answer() -> None:
    index = GalleryIndex("g", D, segment_rows=4096)
    index.add([f"per_{n}" for n in range(10_000)], [f"fac_{n}" for n in range(10_000)], units(10_000))
    for number in range(0, 10_000, 2):
        index.remove_person(f"per_{number}")
    before = index.publish(2, 5_000)
    planned = compaction.plan(index)
    assert planned is not None
    planned.build()
    index.remove_person("per_1")
    index.publish(3, 4_999)
    compaction.adopt(index, planned)
    after = index.snapshot
    assert sum(segment.rows for segment in after.segments) <= 5_000 + compaction.DEAD_ROWS
    assert set(rows(before)) - set(rows(after)) == {"fac_1"}
    assert after.templates == 4_999
    assert after.revision == 3
    assert compaction.plan(index) is None


def test_an_added_template_costs_no_copy_of_the_others() -> None:
    index = GalleryIndex("g", 512, segment_rows=4096)
    vectors = units(5_000, dimension=512)
    index.add([f"per_{n}" for n in range(5_000)], [f"fac_{n}" for n in range(5_000)], vectors)
    index.add(["per_new"], ["fac_new"], vectors[:1])
    index.publish(1, 5_001)
    tracemalloc.start()
    for number in range(50):
        index.add([f"per_x{number}"], [f"fac_x{number}"], vectors[number : number + 1])
        index.publish(number + 2, 0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # the gallery has 10 MB


def test_a_template_takes_little_more_memory_than_its_vector() -> None:
    tracemalloc.start()
    index = GalleryIndex("g", 512, segment_rows=4096)
    for start in range(0, 4096 * 4, 1024):
        names = [f"per_{n}" for n in range(start, start + 1024)]
        index.load(names, names, units(1024, start, 512))
    index.recount()
    index.publish(1, 4096 * 4)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / (4096 * 4) < 2048 * 1.05
