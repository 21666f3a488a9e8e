"""Checkpoints that are either whole or absent: a run stopped at any moment resumes from its last one."""

from __future__ import annotations

import errno
import os
import pickle
import random
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from training.config import BadConfig

PARTIAL = ".partial"


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a disk without room
REMEDY = "make room and start the same command again"


class UnreadableCheckpoint(Exception):
    """The file is damaged or of another model; the message says which and what to do."""


class UnsoundState(Exception):
    """A state that holds NaN or infinity, which must not replace a good checkpoint; the message names where."""


class Stateful(Protocol):
    """A model, a head, an optimiser, a precision: whatever gives its state and takes it back."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any) -> Any: ...


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` at the end of the block, whole, or leaves what was there before.

    Raises OSError (a full disk, say) that names the path and says what to do.
    """
    partial = path.with_name(path.name + PARTIAL)
    with writing(path, "was not written, the one before is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync(path.parent)  # the rename itself has to survive a power cut
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, failed: str = "cannot be written") -> Iterator[None]:
    """Around what writes to `path`: OSError then names it and says what to do, which a full disk's own does not."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        refused = _refusal(error)
        if refused is None:
            raise
        remedy = REMEDY if refused.errno in FULL else "choose another place for it"
        raise OSError(refused.errno, f"{refused.strerror}: {path} {failed}; {remedy}") from error


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refusal(error: BaseException | None) -> OSError | None:
    """The operating system's error behind `error`: torch reports a write that failed as a wrong position."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, dicts, lists) so that `path` never holds half a file.

    Raises OSError (a full disk, say) and UnsoundState, both with the previous checkpoint still in place.
    """
    for name, tensor in _tensors(state):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UnsoundState(
                f"{name} holds values that are not finite: {path} was not written, the one before is kept"
            )
    with replacing(path) as file:
        torch.save(state, file)


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts and sequences, with the way to it."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(state, (list, tuple)):
        for place, value in enumerate(state):
            yield from _tensors(value, f"{name}.{place}")


def load(path: Path, remedy: str = "delete it to start the run anew") -> dict[str, Any]:
    """Read what `save` wrote, without running code from the file.

    Raises UnreadableCheckpoint, which advises the remedy: by default that of a run's own checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums and reads over them
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # damage has a dozen faces, from UnpicklingError to NotImplementedError
        foreign = isinstance(error, pickle.UnpicklingError)  # torch's advice is to read it all the same
        why = "it holds more than tensors and plain values" if foreign else str(error).partition("\n")[0]
        raise UnreadableCheckpoint(f"{path} cannot be read ({why}); {remedy}") from error
    if not isinstance(state, dict):
        raise UnreadableCheckpoint(f"{path} holds no training state; {remedy}")
    return state


def restore(
    state: dict[str, Any],
    source: Path,
    kind: str,
    parts: Mapping[str, Stateful],
    remedy: str = "use another --run",
) -> None:
    """Give each part its entry of `state`, by name.

    Raises UnreadableCheckpoint for a checkpoint of something else, which advises the remedy.
    """
    if state.get("kind") != kind:
        raise UnreadableCheckpoint(
            f"{source} is a checkpoint of {state.get('kind')!r}, not of {kind!r}; {remedy}"
        )
    for name, part in parts.items():
        if name not in state:
            raise UnreadableCheckpoint(
                f"{source} holds no {name!r}: it was made by another version; {remedy}"
            )
        try:
            part.load_state_dict(state[name])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            lines = [line.strip().rstrip(".") for line in str(error).splitlines()]
            first = "; ".join(
                [line for line in lines if not line.endswith(":")][:2]
            )  # without torch's heading
            raise UnreadableCheckpoint(f"{source} is of another model: {name}: {first}; {remedy}") from error


def clear_partials(run: Path) -> list[Path]:
    """Remove what a killed run left half-written in its folder, at the start of the next. Returns what it was."""
    left = sorted(run.glob("*" + PARTIAL))
    for file in left:
        file.unlink()
    return left


@dataclass
class Best:
    """Keeps, beside the last checkpoint, the one whose `metric` was lowest (or highest).

    The value stands in the file itself, so that it is never that of another file. A resumed run compares with it.
    """

    path: Path
    metric: str
    lower: bool = True
    value: float | None = None

    def __post_init__(self) -> None:
        if self.path.is_file():
            kept = load(self.path, "delete it, and the best is chosen anew").get("best")
            if isinstance(kept, Mapping) and kept.get("metric") == self.metric:
                self.value = float(kept["value"])

    def offer(self, results: Mapping[str, float], state: dict[str, Any]) -> bool:
        """Save `state` if `results` hold a better value than any before. Returns whether they do."""
        if self.metric not in results:
            raise BadConfig(
                f"the best checkpoint is chosen by {self.metric!r}, which was not measured; "
                f"measured: {', '.join(results) or 'nothing'}"
            )
        value = float(results[self.metric])
        if value != value:
            return False
        if self.value is not None and (value >= self.value if self.lower else value <= self.value):
            return False
        save(self.path, {**state, "best": {"metric": self.metric, "value": value}})
        self.value = value
        return True


def rng_state() -> dict[str, Any]:
    """Where the generators of Python, NumPy, torch and each visible GPU stand, as numbers and tensors."""
    version, words, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [torch.from_numpy(np.asarray(key, np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Put the generators where `rng_state` found them. A GPU that was not there keeps its own."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    key, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    for device, of in enumerate(state.get("cuda", [])[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of, device)


def compact(
    state: dict[str, Any], drop: tuple[str, ...] = ("optimiser", "precision", "rng")
) -> dict[str, Any]:
    """`state` with matrices and kernels in fp16 and without what only an exact resume needs.

    Vectors (biases, slopes, a normalisation's statistics) stay as they are: they weigh little, and a small variance
    would become 0. Loads like the whole state, for `load_state_dict` widens. Raises UnsoundState beyond ±65,504.
    """
    return {name: _halved(value, name) for name, value in state.items() if name not in drop}


def _halved(state: Any, name: str) -> Any:
    if isinstance(state, Mapping):
        return {key: _halved(value, f"{name}.{key}") for key, value in state.items()}
    if not isinstance(state, Tensor) or state.ndim < 2 or state.dtype not in (torch.float32, torch.float64):
        return state
    half = state.half()
    if not torch.isfinite(half).all():
        raise UnsoundState(f"{name} reaches {state.abs().max():g}, which fp16 cannot hold")
    return half
