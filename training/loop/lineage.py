"""What a run was begun from: the runs whose weights it took over, as its checkpoints keep them.

In a checkpoint it is a list under LINEAGE, oldest first: [{"backbone": "…", "steps": 4860, "sha256": "…"}, …]. A
checkpoint without one was begun from nothing known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from training.config import RunConfig, wrong_values
from training.loop.checkpoint import UnreadableCheckpoint

LINEAGE = "lineage"


class Ancestor(RunConfig):
    """A run that another began with: its backbone, the steps it had made by then, its checkpoint's SHA-256."""

    backbone: str
    steps: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


Lineage = tuple[Ancestor, ...]  # oldest first
_LINEAGE = TypeAdapter(Lineage)


def lineage_of(state: Mapping[str, Any], source: Path) -> Lineage:
    """What the checkpoint `state`, read from `source`, was begun from. Raises UnreadableCheckpoint."""
    try:
        return _LINEAGE.validate_python(state.get(LINEAGE, ()))
    except ValidationError as error:
        raise UnreadableCheckpoint(
            f"{source} has an impossible lineage: {wrong_values(error)}; put it right, or use another checkpoint"
        ) from error


def begun_from(state: Mapping[str, Any], source: Path) -> Lineage:
    """The lineage of a run that begins with the checkpoint `state`, read from `source`: its own, and then itself.

    Raises UnreadableCheckpoint, and OSError where `source` has gone meanwhile.
    """
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    itself = {"backbone": state["config"]["backbone"], "steps": state["step"], "sha256": digest}
    return (*lineage_of(state, source), Ancestor.model_validate(itself))


def in_words(lineage: Lineage) -> str:
    """Such as "begun with the weights of 1,215 steps of a, those begun with 4,860 steps of b"; "" for no lineage."""
    told = [f"{of.steps:,} steps of {of.backbone}" for of in reversed(lineage)]
    return "begun with the weights of " * bool(told) + ", those begun with ".join(told)
