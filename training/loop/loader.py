"""Batches prepared in the background, in the order of the steps.

    with Prefetch(lambda step: batch_of(faces, step, config), start=student.step, stop=total, workers=2) as batches:
        for batch in batches:
            …

A batch is a function of its step alone, so the number of workers changes nothing but the time: `make` draws from a
generator that it seeds with the step, never from a global one.

Workers are forked processes: they see the parent's data without a copy, and augmentation is not held up by the
interpreter's lock. They prepare arrays on the CPU, also beside a GPU that the parent uses already: its driver's state
does not survive a fork, so that a `make` that touches a GPU in a worker ends in torch's error. Step s is made by worker
(s − start) mod n, which begins its next batch once the one before was taken; so n batches wait at most, and no queue
can grow.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import cv2
import torch
from torch import Tensor

from training.config import BadConfig
from training.loop.stop import SIGNALS

Batch = TypeVar("Batch")


class LoaderFailed(Exception):
    """A batch could not be made; the message holds the worker's traceback, or how the worker ended."""


class Prefetch(Generic[Batch]):
    """The batches make(start), make(start + 1), … up to `stop` (without it, for ever).

    `workers` = 0 makes each when it is asked for, in this process. What `make` raises is raised here, with the worker's
    traceback as its cause; a worker that was killed raises LoaderFailed. Close it (the end of its block does)
    also after an error.
    """

    def __init__(
        self, make: Callable[[int], Batch], start: int = 0, *, stop: int | None = None, workers: int = 0
    ) -> None:
        self._make = make
        self._step = self._start = start
        self._stop = stop
        self._closed = False
        self._workers: list[tuple[BaseProcess, int]] = []  # and the pipe that it writes to
        try:
            for first in range(start, start + workers):
                self._workers.append(self._worker(first, workers))
        except BaseException:
            self.close()
            raise

    def _worker(self, first: int, stride: int) -> tuple[BaseProcess, int]:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise BadConfig("this system cannot fork, which workers need: set workers = 0")
        reader, writer = os.pipe()
        # a worker holds no end of a pipe but its own, so that it ends with its parent
        foreign = [reader, *(other for _, other in self._workers)]
        process = multiprocessing.get_context("fork").Process(
            target=_work, args=(self._make, first, self._stop, stride, writer, foreign), daemon=True
        )
        before = signal.pthread_sigmask(
            signal.SIG_BLOCK, SIGNALS
        )  # until the worker knows what to do with them
        try:
            with warnings.catch_warnings():
                # of threads: torch's idle ones hold no lock that the worker needs
                warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writer)
        return process, reader

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._stop is not None and self._step >= self._stop:
            raise StopIteration
        step, self._step = self._step, self._step + 1
        if self._closed:
            raise LoaderFailed("this loader is closed; open a new one at the step to go on from")
        if not self._workers:
            return self._make(step)
        process, reader = self._workers[(step - self._start) % len(self._workers)]
        try:
            made, value = pickle.loads(_receive(reader))
        except EOFError as error:
            process.join(timeout=5)
            code = process.exitcode
            self.close()
            raise LoaderFailed(
                f"the worker that prepared step {step} ended with exit code {code}: −9 means killed, "
                "most often because memory ran out (use fewer workers)"
            ) from error
        if made:
            return value
        self.close()
        failure, text = value
        if failure is None:
            raise LoaderFailed(text)
        raise failure from LoaderFailed(f"\n{text}")

    def close(self) -> None:
        """End the workers at once: they hold nothing that is worth keeping."""
        self._closed = True
        for process, _ in self._workers:
            process.kill()
        for process, reader in self._workers:
            process.join()
            process.close()
            os.close(reader)
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _work(
    make: Callable[[int], Any],
    first: int,
    stop: int | None,
    stride: int,
    writer: int,
    foreign: list[int],
) -> None:
    for pipe in foreign:
        os.close(pipe)
    for (
        number
    ) in SIGNALS:  # they reach the whole group, by Ctrl-C or from a service manager: the parent decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    torch.set_num_threads(1)  # thread pools do not survive a fork
    cv2.setNumThreads(0)
    step = first
    while stop is None or step < stop:
        try:
            message = _packed((True, make(step)))
        except Exception as error:
            message = _packed((False, (_sendable(error), traceback.format_exc())))
            stop = step
        try:
            _send(writer, message)
        except BrokenPipeError:
            return  # the parent is gone
        step += stride


def _sendable(error: Exception) -> Exception | None:
    """The error itself if it survives the way, else None: not every class can be built from its own arguments."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return error


class _Pickler(pickle.Pickler):
    """Sends a tensor as the array that it is; torch's own way copies it several times over."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and value.device.type == "cpu" and value.dtype != torch.bfloat16:
            return torch.from_numpy, (value.detach().numpy(),)
        return NotImplemented


def _packed(message: Any) -> memoryview:
    data = io.BytesIO()
    _Pickler(data, protocol=5).dump(message)
    return data.getbuffer()


def _send(pipe: int, message: memoryview) -> None:
    for part in (len(message).to_bytes(8, "little"), message):
        left = memoryview(part)
        while left:
            left = left[os.write(pipe, left) :]


def _receive(pipe: int) -> bytearray:
    """One message. Raises EOFError when the worker is gone."""
    return _exactly(pipe, int.from_bytes(_exactly(pipe, 8), "little"))


def _exactly(pipe: int, size: int) -> bytearray:
    message = bytearray(size)
    left = memoryview(message)
    while left:
        read = os.readv(pipe, [left])
        if not read:
            raise EOFError
        left = left[read:]
    return message
