"""`kill -9` at any step of a write: what was answered is there, nothing is half there, index ≡ database."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.storage.models import FaceRow, IdempotencyRow
from tests.service.recognition.enrolled import assert_equal, opened

PROCESS = Path(__file__).with_name("enrolling_process.py")
STEPS = ["before_commit", "after_commit", "mid_apply", "after_apply"]


async def killed(url: str, step: str, writes: int) -> list[dict[str, Any]]:
    """What the process said before it killed itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROCESS), url, step, str(writes), stdout=asyncio.subprocess.PIPE
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    return [json.loads(line) for line in said.splitlines()]


async def check(url: str, said: list[dict[str, Any]]) -> None:
    answered = {line["enrolled"]: set(line["faces"]) for line in said if "enrolled" in line}
    deleted = {line["deleted"] for line in said if "deleted" in line}
    doubtful = {line["began_delete"] for line in said if "began_delete" in line} - deleted
    asked = {line["began"] for line in said if "began" in line}
    answered_asks = {line["external_id"] for line in said if "enrolled" in line}
    async with opened(url) as sync:
        faces = (await assert_equal(sync))["default"]
        persons = (await sync.list_persons("default", limit=10_000)).items
        there = {person.id for person in persons}
        assert set(answered) - deleted - doubtful <= there, "an answered enrolment was lost"
        assert not deleted & there, "an answered delete was undone"
        for person in persons:
            own = {face for face, owner in faces.items() if owner == person.id}
            assert len(own) == person.templates == 2, "a person is half there"
            assert own == answered.get(person.id, own)
        # at most the one that was under way may have been committed without an answer
        unanswered = [person for person in persons if person.external_id not in answered_asks]
        assert len(unanswered) <= 1
        assert {person.external_id for person in unanswered} <= asked - answered_asks
        async with sync._database.reading() as session:
            keys = set(await session.scalars(select(IdempotencyRow.key)))
            assert len(list(await session.scalars(select(FaceRow)))) == 2 * len(persons)
        assert keys >= answered_asks
        assert keys - answered_asks <= asked
        await sync.create_person("default")  # the database takes writes
        assert sync.ready


async def enrol_and_kill(tmp_path: Path, kills: list[tuple[str, int]]) -> None:
    url = f"sqlite:///{tmp_path}/data/facet.sqlite3"
    said: list[dict[str, Any]] = []
    for step, writes in kills:
        said += [{"separator": 0}, *await killed(url, step, writes)]
    await check(url, said)


@pytest.mark.parametrize("step", ["before_commit", "after_commit"])
async def test_a_killed_process_loses_nothing_that_was_answered(tmp_path: Path, step: str) -> None:
    await enrol_and_kill(tmp_path, [(step, 5)])


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("writes", [1, 2, 3, 4, 8, 21])
async def test_every_step_of_every_kind_of_write_may_be_the_last(
    tmp_path: Path, step: str, writes: int
) -> None:
    await enrol_and_kill(tmp_path, [(step, writes)])


@pytest.mark.slow
@pytest.mark.parametrize("after_ms", [5, 20, 50, 100, 200, 400])
async def test_a_process_killed_from_outside_at_any_moment_loses_nothing(
    tmp_path: Path, after_ms: int
) -> None:
    url = f"sqlite:///{tmp_path}/data/facet.sqlite3"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROCESS), url, "never", "1", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines = [await asyncio.wait_for(process.stdout.readline(), 60)]  # loaded
    await asyncio.sleep(after_ms / 1000)
    process.kill()
    lines += (await process.stdout.read()).splitlines()
    await process.wait()
    await check(url, [json.loads(line) for line in lines])
