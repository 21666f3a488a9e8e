"""Searches in threads while persons come and go: never a torn answer, never a deleted person."""

from __future__ import annotations

import random
import threading
import time

import numpy as np
import pytest

from service.gallery import compaction
from service.recognition.gallery_sync import Added, GallerySync, PersonRef
from tests.service.recognition.enrolled import assert_equal, face, opened, unit

WRITES = 90


class Witness:
    """What is true: every vector ever enrolled by person, and when each delete was answered."""

    def __init__(self) -> None:
        self.seeds: dict[str, tuple[int, ...]] = {}
        self.deleted: dict[str, float] = {}
        self.wrong: list[str] = []
        self.searches = 0
        self.hits = 0

    def search(self, sync: GallerySync, stop: threading.Event, seed: int) -> None:
        chance = random.Random(seed)
        try:
            while not stop.is_set():
                aim = chance.randrange(1, 200)
                began = time.monotonic()
                answers = sync.snapshot("default").search(unit(aim)[None], 5)[0]
                self.searches += 1
                self.check(answers, unit(aim), began)
                time.sleep(0.003)  # lets the writer have the interpreter
        except Exception as failure:  # a thread's exception would be lost
            self.wrong.append(repr(failure))

    def check(self, answers: list, probe: np.ndarray, began: float) -> None:  # type: ignore[type-arg]
        if len({hit.person_id for hit in answers}) != len(answers):
            self.wrong.append("somebody twice")
        for hit in answers:
            self.hits += 1
            if self.deleted.get(hit.person_id, began) < began:
                self.wrong.append("found after the delete was answered")
            seeds = self.seeds.get(hit.person_id)
            if seeds is None:  # enrolled, but its enrolment is not answered yet
                continue
            best = max(float(unit(seed) @ probe) for seed in seeds)
            if abs(best - hit.similarity) > 1e-5:
                self.wrong.append(f"{hit.similarity} is of nobody's vector but should be {best}")


async def churn(sync: GallerySync, witness: Witness, writes: int) -> None:
    """Enrols (with one or three templates) and deletes, all of them in one go: a person's templates never
    change."""
    chance, alive = random.Random(7), []
    for _ in range(writes):
        if len(alive) > 8 and chance.random() < 0.55:
            person = alive.pop(chance.randrange(len(alive)))
            await sync.delete_person("default", person)
            witness.deleted[person] = time.monotonic()
        else:
            seeds = tuple(chance.sample(range(1, 200), chance.choice([1, 3])))
            added = await sync.add_faces("default", PersonRef(), [face(seed) for seed in seeds])
            assert isinstance(added, Added)
            witness.seeds[added.person.id] = seeds
            alive.append(added.person.id)


async def test_a_search_never_tears_while_persons_come_and_go(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = compaction.plan
    monkeypatch.setattr(compaction, "plan", lambda index: plan(index, dead_rows=8))
    witness, stop = Witness(), threading.Event()
    async with opened(url) as sync:
        threads = [threading.Thread(target=witness.search, args=(sync, stop, seed)) for seed in range(3)]
        for thread in threads:
            thread.start()
        try:
            await churn(sync, witness, WRITES)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert witness.wrong == []
        assert witness.searches > 50
        assert witness.hits > 100
        assert len(witness.deleted) > 5
        await assert_equal(sync)
