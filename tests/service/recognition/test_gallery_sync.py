"""Database and index are one: every write, every failure, every replica."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import (
    EmbeddingSpaceMismatch,
    ExternalIdExists,
    FaceNotFound,
    GalleryExists,
    GalleryNotFound,
    IdempotencyConflict,
    IndexUnavailable,
    InvalidParameter,
    NameConflict,
    NotReady,
    PersonNotFound,
    StartFailed,
)
from service.recognition.gallery_sync import Added, GallerySync, Idempotency, NewFace, PersonRef, Replay
from service.storage.database import Database
from service.storage.records import Gallery, Person
from tests.service.databases import PostgreSQL
from tests.service.recognition.enrolled import OTHER_SPACE, D, assert_equal, face, opened, unit


async def enrol(sync: GallerySync, *seeds: int, gallery: str = "default", **who: Any) -> Added:
    added = await sync.add_faces(gallery, PersonRef(**who), [face(seed) for seed in seeds])
    assert isinstance(added, Added)
    return added


def found(sync: GallerySync, seed: int, gallery: str = "default") -> str | None:
    hits = sync.snapshot(gallery).search(unit(seed)[None], 1)[0]
    return hits[0].person_id if hits and hits[0].similarity > 0.999 else None


async def test_the_default_gallery_exists_from_the_first_start(url: str) -> None:
    async with opened(url) as sync:
        assert sync.ready
        snapshot = sync.snapshot("default")
        assert (snapshot.size, snapshot.templates, snapshot.revision) == (0, 0, 0)
        assert [gallery.id for gallery in (await sync.list_galleries()).items] == ["default"]
        with pytest.raises(GalleryNotFound):
            sync.snapshot("other")


async def test_nothing_is_searched_before_the_galleries_are_loaded(url: str) -> None:
    database = Database(url)
    sync = GallerySync(database, "es_1", D)
    assert not sync.ready
    with pytest.raises(NotReady):
        sync.snapshot("default")
    await database.close()


async def test_an_enrolled_person_is_found_at_once_and_after_a_restart(url: str) -> None:
    async with opened(url) as sync:
        added = await enrol(sync, 1, 2, name="Ada", external_id="7", metadata={"team": ["a", 1.5, None]})
        assert added.indices == (0, 1)
        assert added.person.templates == 2
        assert (added.gallery.size, added.gallery.templates, added.gallery.revision) == (1, 2, 1)
        assert found(sync, 1) == found(sync, 2) == added.person.id
        assert dict(sync.snapshot("default").histogram) == {2: 1}
    async with opened(url) as sync:
        assert found(sync, 2) == added.person.id
        person = await sync.get_person("default", added.person.id)
        assert person == added.person
        assert person.metadata == {"team": ["a", 1.5, None]}
        await assert_equal(sync)


async def test_every_write_carries_the_next_revision(url: str) -> None:
    async with opened(url) as sync:
        added = await enrol(sync, 1)
        await enrol(sync, 2, id=added.person.id)
        await sync.update_person("default", added.person.id, {"name": "Ada"})
        await sync.update_gallery("default", {"name": "Door", "metadata": {"floor": 1}})
        await sync.delete_face("default", added.person.id, added.faces[0].id)
        await sync.create_person("default", name="Bob")
        await sync.delete_person("default", added.person.id)
        gallery = await sync.get_gallery("default")
        assert (gallery.revision, gallery.size, gallery.templates, gallery.name) == (7, 1, 0, "Door")
        assert sync.snapshot("default").revision == 7
        await assert_equal(sync)


async def test_an_external_id_names_one_person_of_a_gallery(url: str) -> None:
    async with opened(url) as sync:
        one = await enrol(sync, 1, external_id="x")
        again = await enrol(sync, 2, external_id="x", name="Ada")
        assert again.person.id == one.person.id
        assert again.person.name == "Ada"
        with pytest.raises(NameConflict):
            await enrol(sync, 3, external_id="x", name="Bob")
        with pytest.raises(NameConflict):
            await sync.find_person("default", PersonRef(external_id="x", name="Bob"))
        with pytest.raises(ExternalIdExists):
            await enrol(sync, 3, id=one.person.id, external_id="y")
        with pytest.raises(ExternalIdExists):
            await sync.create_person("default", external_id="x")
        await sync.create_gallery("second")
        assert (await enrol(sync, 1, gallery="second", external_id="x")).person.id != one.person.id
        other = await enrol(sync, 4, external_id="z")
        with pytest.raises(ExternalIdExists):
            await sync.update_person("default", other.person.id, {"external_id": "x"})
        await sync.update_person("default", one.person.id, {"external_id": None})
        await sync.update_person("default", other.person.id, {"external_id": "x"})
        assert (await sync.list_persons("default", external_id="x")).items[0].id == other.person.id
        await assert_equal(sync)


async def test_a_person_id_that_is_given_must_exist_in_that_gallery(url: str) -> None:
    async with opened(url) as sync:
        await sync.create_gallery("second")
        here = await enrol(sync, 1)
        with pytest.raises(PersonNotFound):
            await enrol(sync, 2, gallery="second", id=here.person.id)
        with pytest.raises(PersonNotFound):
            await sync.delete_person("second", here.person.id)
        with pytest.raises(PersonNotFound):
            await sync.get_person("default", "per_nobody")
        with pytest.raises(GalleryNotFound):
            await enrol(sync, 2, gallery="third")
        with pytest.raises(FaceNotFound):
            await sync.delete_face("default", here.person.id, "fac_none")
        assert sync.snapshot("default").revision == 1


async def test_the_same_pixels_are_enrolled_once_for_a_person(url: str) -> None:
    async with opened(url) as sync:
        one = await enrol(sync, 1)
        mixed = await sync.add_faces("default", PersonRef(id=one.person.id), [face(1), face(2), face(2)])
        assert isinstance(mixed, Added)
        assert (mixed.indices, mixed.duplicates) == ((1,), (0, 2))
        nothing = await sync.add_faces("default", PersonRef(id=one.person.id), [face(1)])
        assert isinstance(nothing, Added)
        assert (nothing.faces, nothing.duplicates, nothing.gallery.revision) == ((), (0,), 2)
        assert await sync.face_digests("default", one.person.id) == {"digest1", "digest2"}
        await enrol(sync, 1)  # the same picture for somebody else is somebody else's matter
        await assert_equal(sync)


async def test_a_deleted_person_is_not_found_once_the_delete_is_answered(url: str) -> None:
    async with opened(url) as sync:
        added = await enrol(sync, 1)
        before = sync.snapshot("default")
        await sync.delete_person("default", added.person.id)
        assert found(sync, 1) is None
        assert before.search(unit(1)[None], 1)[0][0].person_id == added.person.id  # its own moment
        assert await sync.get_persons("default", [added.person.id]) == {}
        with pytest.raises(PersonNotFound):
            await sync.delete_person("default", added.person.id)
    async with opened(url) as sync:
        assert found(sync, 1) is None


async def test_two_galleries_never_share_a_vector(url: str) -> None:
    async with opened(url) as sync:
        await sync.create_gallery("second", name="Second", metadata={"a": 1})
        one, two = await enrol(sync, 1), await enrol(sync, 2, gallery="second")
        assert (found(sync, 1), found(sync, 2)) == (one.person.id, None)
        assert (found(sync, 1, "second"), found(sync, 2, "second")) == (None, two.person.id)
        await sync.delete_gallery("second")
        with pytest.raises(GalleryNotFound):
            sync.snapshot("second")
        with pytest.raises(GalleryNotFound):
            await sync.delete_gallery("second")
        await sync.create_gallery("second")
        assert found(sync, 2, "second") is None
        await assert_equal(sync)


@pytest.mark.parametrize("wrong", ["", "Door", "-door", "a b", "ä", "a" * 64, "a/b", "a\n"])
async def test_a_gallery_id_is_a_slug(url: str, wrong: str) -> None:
    async with opened(url) as sync:
        with pytest.raises(InvalidParameter):
            await sync.create_gallery(wrong)
        with pytest.raises(GalleryExists):
            await sync.create_gallery("default")


@pytest.mark.parametrize(
    "who",
    [
        {"name": "nul\0"},
        {"name": "\ud800"},
        {"external_id": ""},
        {"external_id": "x" * 257},
        {"metadata": {"a": float("nan")}},
        {"metadata": {"a": "nul\0"}},
        {"metadata": {"a": "x" * 20_000}},
        {"metadata": {"a": object()}},
    ],
)
async def test_a_text_that_one_database_would_refuse_is_refused_by_both(
    url: str, who: dict[str, Any]
) -> None:
    async with opened(url) as sync:
        with pytest.raises(InvalidParameter):
            await enrol(sync, 1, **who)
        assert sync.snapshot("default").size == 0
        kept = await enrol(sync, 1, metadata={"path": "C:\\u0000", "text": "ü😀\t"})
        assert (await sync.get_person("default", kept.person.id)).metadata == {
            "path": "C:\\u0000",
            "text": "ü😀\t",
        }


@pytest.mark.parametrize("vector", [np.full(D, np.nan), np.zeros(D), unit(1, D + 1), 2 * unit(1)])
async def test_a_bad_vector_writes_nothing(url: str, vector: np.ndarray) -> None:
    async with opened(url) as sync:
        bad = NewFace(vector.astype(np.float32), "digest", (0, 0, 1, 1), 1.0, {})
        with pytest.raises(InvalidParameter):
            await sync.add_faces("default", PersonRef(), [bad])
        with pytest.raises(InvalidParameter):
            await sync.add_faces("default", PersonRef(), [])
        assert (await sync.list_persons("default")).items == ()


async def test_pages_hold_everybody_once(url: str) -> None:
    async with opened(url) as sync:
        everybody = [(await enrol(sync, seed)).person.id for seed in range(7)]
        await enrol(sync, 100, 101, 102, id=everybody[0])
        seen: list[str] = []
        cursor = None
        while True:
            page = await sync.list_persons("default", cursor=cursor, limit=3)
            seen += [person.id for person in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert seen == everybody
        first = await sync.list_faces("default", everybody[0], limit=2)
        rest = await sync.list_faces("default", everybody[0], limit=2, cursor=first.next_cursor)
        assert (len(first.items), len(rest.items), rest.next_cursor) == (2, 2, None)
        assert (await sync.person_embeddings("default", everybody[0])).shape == (4, D)
        for wrong in ("", "!", "YQ", "ä", "AA"):
            with pytest.raises(InvalidParameter):
                await sync.list_persons("default", cursor=wrong)


# Idempotency


def once(key: str = "k", digest: str = "d", principal: str = "p") -> Idempotency:
    def answer(result: Added | Gallery | Person) -> dict[str, Any]:
        return {"id": result.person.id if isinstance(result, Added) else result.id}

    return Idempotency(principal, key, digest, answer)


async def test_a_repeated_key_gives_the_first_answer_and_writes_nothing(url: str) -> None:
    async with opened(url) as sync:
        added = await sync.add_faces("default", PersonRef(), [face(1)], idempotency=once())
        assert isinstance(added, Added)
        assert await sync.replay("p", "k", "d") == Replay({"id": added.person.id})
        again = await sync.add_faces("default", PersonRef(), [face(1)], idempotency=once())
        assert again == Replay({"id": added.person.id})
        with pytest.raises(IdempotencyConflict):
            await sync.add_faces("default", PersonRef(), [face(1)], idempotency=once(digest="e"))
        with pytest.raises(IdempotencyConflict):
            await sync.replay("p", "k", "e")
        assert await sync.replay("q", "k", "d") is None  # another principal's key
        gallery = await sync.create_gallery("g", idempotency=once("g"))
        assert isinstance(gallery, Gallery)
        assert await sync.create_gallery("g", idempotency=once("g")) == Replay({"id": "g"})
        person = await sync.create_person("g", idempotency=once("n"))
        assert isinstance(person, Person)
        assert await sync.create_person("g", idempotency=once("n")) == Replay({"id": person.id})
        with pytest.raises(InvalidParameter):
            await sync.replay("p", "k" * 256, "d")
        await assert_equal(sync)


async def test_a_refused_request_does_not_use_its_key_up(url: str) -> None:
    async with opened(url) as sync:
        with pytest.raises(PersonNotFound):
            await sync.add_faces("default", PersonRef(id="per_no"), [face(1)], idempotency=once())
        assert isinstance(await sync.add_faces("default", PersonRef(), [face(1)], idempotency=once()), Added)


async def test_the_same_key_sent_many_times_at_once_writes_once(url: str) -> None:
    async with opened(url) as sync:
        results = await asyncio.gather(
            *(sync.add_faces("default", PersonRef(), [face(1)], idempotency=once()) for _ in range(8))
        )
        assert sum(isinstance(result, Added) for result in results) == 1
        assert sync.snapshot("default").templates == 1


async def test_a_key_is_free_again_after_a_day(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from service.storage import idempotency

    async with opened(url) as sync:
        await sync.add_faces("default", PersonRef(), [face(1)], idempotency=once())
        later = idempotency.now() + timedelta(hours=25)
        monkeypatch.setattr(idempotency, "now", lambda: later)
        assert await sync.replay("p", "k", "other") is None
        added = await sync.add_faces("default", PersonRef(), [face(2)], idempotency=once(digest="other"))
        assert isinstance(added, Added)


# At the same time


async def test_two_enrolments_of_one_external_id_at_once_make_one_person(url: str) -> None:
    async with opened(url) as sync:
        results = await asyncio.gather(*(enrol(sync, seed, external_id="x") for seed in range(10)))
        assert len({added.person.id for added in results}) == 1
        assert sorted(added.gallery.revision for added in results) == list(range(1, 11))
        await assert_equal(sync)


async def test_a_delete_that_races_an_enrolment_leaves_no_orphan(url: str) -> None:
    async with opened(url) as sync:
        for round_ in range(10):
            person = (await enrol(sync, round_)).person.id
            results = await asyncio.gather(
                sync.delete_person("default", person),
                *(enrol(sync, 100 + round_ * 10 + seed, id=person) for seed in range(3)),
                return_exceptions=True,
            )
            assert results[0] is None
            assert all(isinstance(of, Added | PersonNotFound) for of in results[1:])
            faces = await assert_equal(sync)
            assert person not in faces["default"].values()


async def test_a_caller_who_leaves_does_not_part_index_and_database(url: str) -> None:
    for wait_s in (0.0, 0.001, 0.002, 0.004, 0.008):
        async with opened(url) as sync:
            tasks = [asyncio.create_task(enrol(sync, int(wait_s * 1e5) + n)) for n in range(5)]
            await asyncio.sleep(wait_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await enrol(sync, 99_000 + int(wait_s * 1e5))  # queues behind them
            await assert_equal(sync)


# Failures


@pytest.mark.parametrize("step", ["after_commit", "mid_apply", "after_apply"])
@pytest.mark.parametrize("write", ["enrol", "delete", "update"])
async def test_a_write_that_cannot_be_applied_is_committed_said_so_and_repaired(
    url: str, step: str, write: str
) -> None:
    failing = ""

    def fault(name: str) -> None:
        if name == failing:
            raise RuntimeError("the index fell over")

    async with opened(url, fault=fault) as sync:
        person = (await enrol(sync, 1)).person.id
        failing = step
        writes = {
            "enrol": lambda: enrol(sync, 2, external_id="late"),
            "delete": lambda: sync.delete_person("default", person),
            "update": lambda: sync.update_person("default", person, {"name": "Ada"}),
        }
        with pytest.raises(IndexUnavailable) as refused:
            await writes[write]()
        assert refused.value.details["write_committed"] is True
        failing = ""
        assert not sync.ready
        assert "default" in sync.problems
        with pytest.raises(IndexUnavailable) as unsearched:
            sync.snapshot("default")
        assert unsearched.value.details["write_committed"] is False
        with pytest.raises(IndexUnavailable) as unwritten:
            await enrol(sync, 3)
        assert unwritten.value.details["write_committed"] is False
        async with asyncio.timeout(5):
            while not sync.ready:
                await asyncio.sleep(0.01)
        await assert_equal(sync)
        assert (found(sync, 2) is not None) == (write == "enrol")
        assert found(sync, 1) == (None if write == "delete" else person)


async def test_a_write_that_fails_before_its_commit_leaves_no_trace(url: str) -> None:
    failing = True

    def fault(name: str) -> None:
        if failing and name == "before_commit":
            raise RuntimeError("no commit")

    async with opened(url, fault=fault) as sync:
        with pytest.raises(RuntimeError):
            await sync.add_faces("default", PersonRef(external_id="x"), [face(1)], idempotency=once())
        with pytest.raises(RuntimeError):
            await sync.create_gallery("g")
        assert sync.ready
        failing = False
        assert sync.snapshot("default").revision == 0
        assert isinstance(await sync.add_faces("default", PersonRef(), [face(1)], idempotency=once()), Added)
        await sync.create_gallery("g")
        await assert_equal(sync)


async def test_a_damaged_vector_stops_the_start(url: str) -> None:
    from sqlalchemy import update

    from service.storage.models import FaceRow

    for damage in (unit(1)[:-1].tobytes(), b"\0" * 4 * D, b"\0\0\x80\x3f"):
        async with opened(url) as sync:
            added = await enrol(sync, 1)
            async with sync._database.writing() as session:
                await session.execute(update(FaceRow).values(embedding=damage))
        with pytest.raises(StartFailed, match="default"):
            async with opened(url):
                pass
        database = Database(url)
        async with database.writing() as session:
            await session.execute(update(FaceRow).values(embedding=unit(1).tobytes()))
        await database.close()
        async with opened(url) as sync:
            await sync.delete_person("default", added.person.id)


async def test_vectors_of_another_model_are_never_compared_but_said(url: str) -> None:
    async with opened(url) as sync:
        old = (await enrol(sync, 1, external_id="x")).person.id
        await sync.create_gallery("second")
    async with opened(url, space=OTHER_SPACE) as sync:
        assert sync.ready
        assert "1 templates" in sync.problems["default"]
        with pytest.raises(EmbeddingSpaceMismatch):
            sync.snapshot("default")
        with pytest.raises(EmbeddingSpaceMismatch):
            await enrol(sync, 2)
        with pytest.raises(EmbeddingSpaceMismatch):
            await sync.person_embeddings("default", old)
        await enrol(sync, 2, gallery="second")  # only that gallery is concerned
        assert found(sync, 2, "second") is not None
        assert await sync.drop_foreign_faces("default") == 1
        assert await sync.drop_foreign_faces("default") == 0
        assert sync.problems == {}
        assert (await sync.get_gallery("default")).templates == 0
        again = await enrol(sync, 3, external_id="x")
        assert (again.person.id, again.person.templates) == (old, 1)
        assert found(sync, 3) == old


async def test_deleting_everybody_of_another_model_opens_the_gallery_again(url: str) -> None:
    async with opened(url) as sync:
        person = (await enrol(sync, 1)).person.id
    async with opened(url, space=OTHER_SPACE) as sync:
        await sync.delete_person("default", person)
        assert sync.problems == {}
        await enrol(sync, 2)
        assert found(sync, 2) is not None


async def test_a_rebuild_gives_the_same_index(url: str) -> None:
    async with opened(url) as sync:
        await sync.create_gallery("second")
        for seed in range(5):
            await enrol(sync, seed)
            await enrol(sync, seed, gallery="second")
        await sync.rebuild()
        await sync.rebuild("second")
        await assert_equal(sync)
        with pytest.raises(GalleryNotFound):
            await sync.rebuild("third")


async def test_many_deletes_compact_the_index_behind_the_scenes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.gallery import compaction

    plan = compaction.plan
    monkeypatch.setattr(compaction, "plan", lambda index: plan(index, dead_rows=4))
    async with opened(url) as sync:
        everybody = [(await enrol(sync, seed)).person.id for seed in range(20)]
        for person in everybody[:15]:
            await sync.delete_person("default", person)
        async with asyncio.timeout(5):
            while sum(segment.rows for segment in sync.snapshot("default").segments) > 9:
                await asyncio.sleep(0.01)
        await assert_equal(sync)
        assert [found(sync, seed) for seed in range(20)] == [None] * 15 + everybody[15:]


# Replicas


async def test_another_replica_follows_every_kind_of_write(url: str) -> None:
    async with opened(url) as writer, opened(url) as reader:
        one, two = await enrol(writer, 1, 2, 3), await enrol(writer, 4)
        await writer.create_gallery("second")
        await enrol(writer, 5, gallery="second")
        await reader._projection.sync()
        assert found(reader, 4) == two.person.id
        await assert_equal(reader)
        await writer.delete_person("default", two.person.id)
        await writer.delete_face("default", one.person.id, one.faces[1].id)
        passing = await enrol(writer, 6)
        await writer.delete_person("default", passing.person.id)
        await writer.create_person("default")
        await writer.delete_gallery("second")
        await writer.create_gallery("second")
        await reader._projection.sync()
        assert [found(reader, seed) for seed in (1, 2, 4, 6)] == [one.person.id, None, None, None]
        assert found(reader, 5, "second") is None
        await assert_equal(reader)


async def test_two_replicas_that_write_in_turn_stay_equal(url: str) -> None:
    async with opened(url) as one, opened(url) as other:
        for seed in range(6):
            await enrol(one, seed, external_id=str(seed % 3))
            await enrol(other, 100 + seed, external_id=str(seed % 3))
        await one._projection.sync()
        assert await assert_equal(one) == await assert_equal(other)
        await one.create_gallery("new")
        await enrol(other, 1, gallery="new")  # not polled yet: looked up when it is needed
        await one.delete_gallery("new")
        await one.create_gallery("new")
        await enrol(other, 2, gallery="new")  # another life of the gallery than the one it knows
        assert (found(other, 1, "new"), found(other, 2, "new") is not None) == (None, True)
        with pytest.raises(GalleryExists):
            await other.create_gallery("new")


async def test_a_replica_whose_log_was_pruned_loads_the_gallery_anew(url: str) -> None:
    from sqlalchemy import delete

    from service.storage.models import ChangeRow

    async with opened(url) as writer, opened(url) as reader:
        for seed in range(4):
            await enrol(writer, seed)
        async with writer._database.writing() as session:
            await session.execute(delete(ChangeRow).where(ChangeRow.revision < 3))
        await reader._projection.sync()
        await assert_equal(reader)


async def test_polling_brings_other_replicas_writes_within_the_interval(url: str) -> None:
    async with opened(url) as writer, opened(url, interval_s=0.05) as reader:
        added = await enrol(writer, 1)
        async with asyncio.timeout(5):
            while found(reader, 1) is None:
                await asyncio.sleep(0.01)
        await writer.delete_person("default", added.person.id)
        async with asyncio.timeout(5):
            while found(reader, 1) is not None:
                await asyncio.sleep(0.01)


async def test_a_replica_that_cannot_follow_refuses_to_search(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(url, interval_s=0.02, max_lag_s=0.5) as sync:

        async def unreachable() -> None:
            raise NotReady("the database does not answer")

        monkeypatch.setattr(sync._projection, "sync", unreachable)
        async with asyncio.timeout(5):
            while sync.ready:
                await asyncio.sleep(0.01)
        with pytest.raises(NotReady):
            sync.snapshot("default")
        monkeypatch.undo()
        async with asyncio.timeout(5):
            while not sync.ready:
                await asyncio.sleep(0.01)
        assert sync.snapshot("default").size == 0


# Any sequence of operations

Step = st.tuples(
    st.sampled_from(
        ["enrol", "enrol", "again", "empty", "person", "face", "gallery", "rename", "restart", "other"]
    ),
    st.integers(0, 5),
)


@settings(max_examples=5, deadline=None)
@given(steps=st.lists(Step, min_size=5, max_size=25))
async def test_index_database_and_model_are_one_after_any_operations(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    await walk(f"sqlite:///{tmp_path_factory.mktemp('walk')}/facet.sqlite3", steps)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(Step, min_size=5, max_size=40))
async def test_index_database_and_model_are_one_after_any_operations_at_length(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    await walk(f"sqlite:///{tmp_path_factory.mktemp('walk')}/facet.sqlite3", steps)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(steps=st.lists(Step, min_size=5, max_size=30))
async def test_the_same_on_postgresql(postgresql: PostgreSQL, steps: list[tuple[str, int]]) -> None:
    await walk(postgresql.empty_database(), steps)


async def walk(url: str, steps: list[tuple[str, int]]) -> None:
    model: dict[str, dict[str, set[str]]] = {"default": {}}  # gallery → person → faces
    number = 0
    async with opened(url) as other:
        stack = opened(url)
        sync = await stack.__aenter__()
        for step, choice in steps:
            number += 1
            writer = other if step == "other" else sync
            gallery = sorted(model)[choice % len(model)]
            everybody = sorted(model[gallery])
            person = everybody[choice % len(everybody)] if everybody else None
            if step in ("enrol", "other"):
                added = await enrol(writer, number, 1000 + number, gallery=gallery)
                model[gallery][added.person.id] = {of.id for of in added.faces}
            elif step == "again" and person:
                added = await enrol(sync, number, gallery=gallery, id=person)
                model[gallery][person] |= {of.id for of in added.faces}
            elif step == "empty":
                created = await sync.create_person(gallery)
                assert isinstance(created, Person)
                model[gallery][created.id] = set()
            elif step == "person" and person:
                await sync.delete_person(gallery, person)
                del model[gallery][person]
            elif step == "face" and person and model[gallery][person]:
                await sync.delete_face(gallery, person, model[gallery][person].pop())
            elif step == "rename" and person:
                await sync.update_person(gallery, person, {"name": str(number)})
            elif step == "gallery":
                name = f"g{choice}"
                if name in model:
                    await sync.delete_gallery(name)
                    del model[name]
                else:
                    await sync.create_gallery(name)
                    model[name] = {}
            elif step == "restart":
                await stack.__aexit__(None, None, None)
                stack = opened(url)
                sync = await stack.__aenter__()
            flat = {
                name: {of: who for who, faces in of_.items() for of in faces} for name, of_ in model.items()
            }
            await sync._projection.sync()
            assert await assert_equal(sync) == flat
        await other._projection.sync()
        assert await assert_equal(other) == flat
        await stack.__aexit__(None, None, None)
