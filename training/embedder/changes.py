"""What a run that goes on does otherwise than before: said, or refused where the class centres are other people's."""

from __future__ import annotations

from pathlib import Path

from training.embedder.config import EmbedderConfig
from training.embedder.records import same_people
from training.embedder.student import Before
from training.loop.checkpoint import UnreadableCheckpoint
from training.loop.distributed import World
from training.loop.records import FaceRecord


def changes(
    source: Path, before: Before, people: FaceRecord, config: EmbedderConfig, world: World
) -> list[str]:
    """What is worth saying before the first step from the checkpoint `source`. people: the set to go on with.

    Raises UnreadableCheckpoint for another set of as many people: row i of the head would become another person's, and
    what was learnt would be unlearnt in silence. A set of the same name and counts with another digest is taken for the
    same one, written anew (moved files, a new column): refusing it would end a run of days for nothing.
    """
    return [*_other_set(source, before, people), *_other_steps(before, config, world)]


def _other_set(source: Path, before: Before, people: FaceRecord) -> list[str]:
    known = before.people
    if known is None:
        return [
            f"{source} does not say whose class centres it has: they are taken for those of {people.name}"
        ]
    if same_people(known, people):
        return []
    if (known.name, known.identities, known.faces) != (people.name, people.identities, people.faces):
        raise UnreadableCheckpoint(
            f"{source} knows other people: those of {_counted(known)}, not of {_counted(people)}; use another --run, "
            f"with --begin-from {source} to take its weights over"
        )
    return [
        f"{_counted(people)}: the same counts, but its files are not those that {source} was made with. It is taken "
        "for the same set, written anew; if these are other people, stop here and use another --run"
    ]


def _counted(of: FaceRecord) -> str:
    return f"{of.name} ({of.identities:,} identities, {of.faces:,} faces, {of.digest[:12] or 'no digest'})"


def _other_steps(before: Before, config: EmbedderConfig, world: World) -> list[str]:
    """One line for all of it; what the checkpoint does not say counts as unchanged."""
    batch, processes = before.config.get("batch", config.batch), before.processes or world.size
    loss = before.config.get("head", {}).get("name", config.head.name)
    changed = [
        f"{what} {now} instead of {was}"
        for what, now, was in (
            ("batch", config.batch, batch),
            ("processes", world.size, processes),
            ("head.name", config.head.name, loss),
        )
        if now != was
    ]
    if not changed:
        return []
    meaning = []
    then, now = batch * processes, config.batch * world.size
    if now != then:
        meaning.append(
            f"a step is {now} faces instead of {then}, step numbers stay: data and schedule go on elsewhere"
        )
    elif (batch, processes) != (config.batch, world.size):
        meaning.append(f"a step is still {now} faces: data and schedule go on where they were")
    if config.head.name != loss:
        meaning.append(f"class centres and the optimiser's memory are still {loss}'s")
    return [f"goes on with {', '.join(changed)}: {'; '.join(meaning)}"]
