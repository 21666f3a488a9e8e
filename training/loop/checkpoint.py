"""Checkpoints that are either whole or absent: a run stopped at any moment resumes from its last one."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch


class UnreadableCheckpoint(Exception):
    """The file is damaged or of another model; the message says which and what to do."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, dicts, lists) so that `path` never holds half a file.

    Raises OSError (a full disk, say) with the previous checkpoint still in place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself has to survive a power cut
    finally:
        os.close(folder)


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, without running code from the file. Raises UnreadableCheckpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError) as error:
        raise UnreadableCheckpoint(
            f"{path} cannot be read ({error}); delete it to start the run anew"
        ) from error
    if not isinstance(state, dict):
        raise UnreadableCheckpoint(f"{path} holds no training state; delete it to start the run anew")
    return state
