"""What runs a model, and how one is opened: exactly the backend that was asked for, or a failed start.

Heavy imports stay inside the arms of `open_backend`. Only "auto" may choose; a backend's `name` says what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, assert_never

import numpy.typing as npt

from service.config import BackendKind
from service.errors import StartFailed

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Model:
    """A model file and the names of its ends: one input of uint8 (n, …), outputs (n, …) in this order."""

    path: Path
    input: str
    outputs: Sequence[str]


class Backend(Protocol):
    """A model, loaded. `run` is called from several threads at once."""

    name: str  # "onnxruntime", "openvino", "cuda" …

    def run(self, batch: Array) -> tuple[Array, ...]:
        """uint8 (n, …) → one array (n, …) an output. The arrays belong to the caller; any failure is an exception."""
        ...

    def close(self) -> None:
        """Release the model; `run` is not called again."""
        ...


def open_backend(kind: BackendKind, model: Model, threads: int) -> Backend:
    """Load `model` on exactly `kind`, for `threads` lanes; "auto" takes CUDA where it works, else the CPU.

    Raises `StartFailed`, with what to do, when that backend is not installed, has no device, or refuses the model.
    """
    match kind:
        case "auto":
            return _first_that_works(model, threads)
        case "onnxruntime" | "cuda" | "tensorrt":
            from service.inference.backends.onnxruntime import OnnxRuntime

            return OnnxRuntime(kind, model)
        case "openvino":
            from service.inference.backends.openvino import OpenVino

            return OpenVino(model, threads)
        case _ as never:
            assert_never(never)


def _first_that_works(model: Model, threads: int) -> Backend:
    try:
        return open_backend("cuda", model, threads)
    except StartFailed:
        return open_backend("onnxruntime", model, threads)
