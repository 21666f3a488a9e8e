"""`facet enroll DIR`: a folder of pictures for each person, sent to the service with progress, then what was rejected.

Rule: a person's folder name is their name and their `external_id`, so that the same command run twice adds nothing
twice. The pictures of one person are sent one request after the other; different people at the same time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from service.cli.arguments import EXIT_DONE, EXIT_PARTLY
from service.cli.client import Client, Refused, transport_of
from service.errors import StartFailed

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# A request's pictures: base64 grows them by a third, and the service takes bodies of 20 MB.
REQUEST_BYTES: Final = 14_000_000
REQUEST_PICTURES: Final = 8
# Refusals of one request's content; every other refusal (a wrong key, an unknown gallery) ends the command.
OF_THE_PICTURES: Final = frozenset(
    {"nothing_accepted", "too_large", "missing_image", "unsupported_media", "invalid_image"}
)


@dataclass(slots=True)
class Outcome:
    """What became of one person's pictures: `faces` accepted, `rejected` pictures with their reasons."""

    person: str
    faces: int = 0
    rejected: list[tuple[Path, str]] = field(default_factory=list)
    problem: str | None = None  # why the person could not be enrolled at all

    @property
    def known(self) -> bool:
        """Whether the person has faces now: a duplicate is a face that was enrolled before."""
        return self.problem is None and (
            self.faces > 0 or any(reason == "duplicate" for _, reason in self.rejected)
        )


def run(chosen: argparse.Namespace) -> int:
    """Enrol every person of `chosen.folder`; `EXIT_PARTLY` when someone has no face afterwards."""
    people = people_in(chosen.folder)
    console = Console()
    with transport_of(chosen) as transport, _progress(console) as progress:
        work = _Work(Client(transport), chosen, progress, sum(map(len, people.values())))
        with ThreadPoolExecutor(chosen.parallel) as pool:
            outcomes = _collect(pool, work, people)
    _report(console, outcomes, chosen.gallery)
    return EXIT_DONE if all(outcome.known for outcome in outcomes) else EXIT_PARTLY


def people_in(folder: Path) -> dict[str, list[Path]]:
    """Pictures by person, both in order of name. Raises `StartFailed` when there are none."""
    if not folder.is_dir():
        raise StartFailed(f"{folder} is not a folder")
    people = {
        person.name: sorted(
            path for path in person.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        for person in sorted(folder.iterdir())
        if person.is_dir() and not person.name.startswith(".")
    }
    people = {person: pictures for person, pictures in people.items() if pictures}
    if not people:
        raise StartFailed(
            f"{folder} has no folder with pictures in it: expected {folder}/<person>/<picture>.jpg"
        )
    return people


class _Work:
    """Sends one person after the other; `enroll` is called from several threads."""

    def __init__(self, client: Client, chosen: argparse.Namespace, progress: Progress, pictures: int) -> None:
        self._client = client
        self._gallery = chosen.gallery
        self._force = chosen.force
        self._progress = progress
        self._task = progress.add_task("enrolling", total=pictures)

    def enroll(self, person: str, pictures: Sequence[Path]) -> Outcome:
        outcome = Outcome(person)
        for some in _requests(pictures):
            if outcome.problem is None:
                self._send(outcome, some)
            self._progress.advance(self._task, len(some))
        return outcome

    def _send(self, outcome: Outcome, pictures: list[tuple[Path, bytes]]) -> None:
        try:
            answer = self._client.enroll(
                [content for _, content in pictures],
                name=outcome.person,
                external_id=outcome.person,
                gallery=self._gallery,
                force=self._force,
            )
        except Refused as refused:
            self._note(outcome, pictures, refused)
            return
        outcome.faces += len(answer["faces"])
        outcome.rejected += [(pictures[one["index"]][0], one["reason"]) for one in answer["rejected"]]

    def _note(self, outcome: Outcome, pictures: list[tuple[Path, bytes]], refused: Refused) -> None:
        if refused.status == 409:  # this person's data contradict what is stored: the others can go on
            outcome.problem = f"{refused.message} ({refused.code})"
        elif refused.code == "nothing_accepted":
            rejected = refused.details.get("rejected", [])
            outcome.rejected += [(pictures[one["index"]][0], one["reason"]) for one in rejected]
        elif refused.code in OF_THE_PICTURES and len(pictures) > 1:
            for (
                picture
            ) in pictures:  # one picture spoils the request: each alone, so that only that one fails
                self._send(outcome, [picture])
        elif refused.code in OF_THE_PICTURES:
            outcome.rejected.append((pictures[0][0], refused.code))
        else:
            raise refused


def _requests(pictures: Sequence[Path]) -> Iterator[list[tuple[Path, bytes]]]:
    """The pictures with their content, read when their turn comes, in groups that fit a request."""
    some: list[tuple[Path, bytes]] = []
    size = 0
    for path in pictures:
        content = path.read_bytes()
        if some and (len(some) == REQUEST_PICTURES or size + len(content) > REQUEST_BYTES):
            yield some
            some, size = [], 0
        some.append((path, content))
        size += len(content)
    yield some


def _collect(pool: ThreadPoolExecutor, work: _Work, people: dict[str, list[Path]]) -> list[Outcome]:
    waiting = [pool.submit(work.enroll, person, pictures) for person, pictures in people.items()]
    try:
        return [one.result() for one in waiting]
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)  # the first refusal of the command itself ends it
        raise


class _Rate(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("… /s" if speed is None else f"{speed:.1f} /s")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pictures"),
        _Rate(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _report(console: Console, outcomes: Sequence[Outcome], gallery: str) -> None:
    rejected = [(one.person, path.name, reason) for one in outcomes for path, reason in one.rejected]
    rejected += [(one.person, "(all)", one.problem) for one in outcomes if one.problem is not None]
    if rejected:
        table = Table("person", "picture", "why", title=f"rejected: {len(rejected)}", title_justify="left")
        for row in rejected:
            table.add_row(*map(Text, row))  # Text: a folder may be called "[red]"
        console.print(table)
    known = sum(one.known for one in outcomes)
    faces = sum(one.faces for one in outcomes)
    console.print(
        Text(
            f"{known} of {len(outcomes)} people are in gallery {gallery}; {faces} faces added, {len(rejected)} rejected"
        )
    )
