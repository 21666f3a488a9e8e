"""A backend for tests, beside the real ones: a function in place of a model."""

from __future__ import annotations

import threading
from collections.abc import Callable

from service.inference.backend import Array


class Fake:
    """Runs `function` on every batch and remembers the batches' shapes; `gate`, when given, is waited for first."""

    name = "fake"

    def __init__(
        self, function: Callable[[Array], tuple[Array, ...]], gate: threading.Event | None = None
    ) -> None:
        self._function = function
        self._gate = gate
        self.shapes: list[tuple[int, ...]] = []
        self.closed = False

    def run(self, batch: Array) -> tuple[Array, ...]:
        self.shapes.append(batch.shape)
        if self._gate is not None:
            self._gate.wait()
        return self._function(batch)

    def close(self) -> None:
        self.closed = True
