"""What is remembered of a person holds exactly for one revision of the gallery."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from service.recognition import directory
from service.recognition.directory import Directory


class Sync:
    """Answers every id but `gone`, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.gone: set[str] = set()

    async def get_persons(self, gallery: str, ids: Sequence[str]) -> dict[str, str]:
        self.asked.append((gallery, *ids))
        return {one: f"{gallery}/{one}/{len(self.asked)}" for one in ids if one not in self.gone}


def at(revision: int, gallery: str = "default") -> Any:
    return SimpleNamespace(id=gallery, revision=revision)


async def test_a_person_is_looked_up_once_a_revision() -> None:
    sync: Any = Sync()
    known = Directory(sync)
    first = await known.persons(at(1), {"a", "b"})
    again = await known.persons(at(1), {"b", "c"})
    assert again["b"] == first["b"]
    newer = await known.persons(at(2), {"b"})
    assert newer["b"] != first["b"]
    assert sync.asked == [("default", "a", "b"), ("default", "c"), ("default", "b")]
    assert await known.persons(at(2), set()) is not None
    assert len(sync.asked) == 3


async def test_who_is_gone_is_in_no_answer_and_is_asked_for_again() -> None:
    sync: Any = Sync()
    sync.gone.add("a")
    known = Directory(sync)
    for _ in range(2):
        assert "a" not in await known.persons(at(1), {"a"})
    assert len(sync.asked) == 2


async def test_galleries_are_kept_apart_and_what_is_remembered_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(directory, "_GALLERIES", 2)
    monkeypatch.setattr(directory, "_REMEMBERED", 3)
    sync: Any = Sync()
    known = Directory(sync)
    for gallery in ("x", "y", "z"):
        assert (await known.persons(at(1, gallery), {"a"}))["a"].startswith(f"{gallery}/a")
    assert len(known._known) == 2
    for name in "bcdefg":
        await known.persons(at(1, "z"), {name})
    assert len(known._known["z"][1]) <= 4
