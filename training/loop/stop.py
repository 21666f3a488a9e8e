"""Ctrl-C between two steps instead of within one, and in one line while a command is still importing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_S = 0.5  # what comes sooner is the same request: a service manager tells every process, torchrun its ranks again


class Stop:
    """Turns the first SIGINT or SIGTERM of its block into a flag; another one, later, ends the program at once.

        with Stop() as stop:
            while step < total and not stop.requested:
                …
            checkpoint.save(…)

    The block's end passes the signal on (KeyboardInterrupt, or SystemExit 143), so that what would have come after
    the run, publishing say, does not take place. In a thread other than the main one signals are left alone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._signal: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether to save and end."""
        return self._signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal) or signal.SIG_DFL
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            if self._clock() - self._at >= AGAIN_S:
                self._end(number)
            return
        self._signal, self._at = number, self._clock()
        # not print: the signal may have come in the middle of one
        os.write(2, b"\nstopping with a checkpoint after this step; once more to stop at once\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._signal is not None and error is None:
            self._end(self._signal)

    @staticmethod
    def _end(number: int) -> None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)


def in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook` for Ctrl-C that no `main` answers: torch takes seconds to import. The status is 130."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("stopped; the same command goes on from what is finished", file=sys.stderr)
    sys.exit(130)
