"""Bare loops: the same ONNX files and the same arithmetic as the service, with nothing around them.

No queue, no checks, no database, no threshold, no metrics: the fastest plain program that turns JPEG bytes into the
nearest person. A loop takes its pictures from memory, or from the load generator's sockets, read with the least code.
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from benchmarks.load import HEAD_END, picture_of
from bundle.align import align
from bundle.folder import Bundle, open_bundle
from bundle.preprocess import Letterbox, canvas_for, letterbox
from bundle.views import View, faces_in, views

BODY = b'{"decision":"match"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


class Session(Protocol):
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]: ...


@dataclass(frozen=True)
class Form:
    """How a bare loop uses the machine: so many processes with so many threads each, pictures in batches of `batch`."""

    runtime: str
    processes: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.runtime}, {self.processes} process(es) × {self.threads} thread(s), batch {self.batch}"


def forms(runtimes: Sequence[str], batches: Sequence[int]) -> list[Form]:
    """One process a core, and one process with all cores as threads; every runtime and batch."""
    cores = len(os.sched_getaffinity(0))
    shapes = {(cores, 1), (1, cores)}
    return [Form(r, p, t, b) for r in runtimes for p, t in sorted(shapes, reverse=True) for b in batches]


def open_session(path: Path, runtime: str, threads: int) -> Session:
    if runtime == "openvino":
        from openvino import Core

        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        request = Core().compile_model(str(path), "CPU", options).create_infer_request()
        return lambda images: tuple(np.array(value) for value in request.infer({0: images}).values())
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: tuple(session.run(None, {name: images}))


class BareLoop:
    """JPEG bytes → the embedding of the largest face, one thread of Python."""

    def __init__(self, folder: Path, runtime: str, threads: int) -> None:
        self.bundle: Bundle = open_bundle(folder)
        self.spec = self.bundle.manifest.detector
        self.detector = open_session(self._fastest("detector", runtime), runtime, threads)
        self.embedder = open_session(self._fastest("embedder", runtime), runtime, threads)
        cv2.setNumThreads(threads)
        self.gallery = np.eye(8, self.bundle.manifest.embedder.dimension, dtype=np.float32)

    def _fastest(self, role: str, runtime: str) -> Path:
        """The file that the service would run too: a variant made for the runtime, else the canonical one."""
        manifest = self.bundle.manifest
        made = [of.file for of in manifest.variants if of.of == role and runtime in of.backends]
        spec = manifest.detector if role == "detector" else manifest.embedder
        return self.bundle.file(made[0] if made else spec.file)

    def prepare(self, data: bytes) -> tuple[np.ndarray, tuple[View, ...], Letterbox]:
        """(picture, the views of its canvas, how it lies on the canvas)."""
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        canvas, placed = letterbox(
            picture, canvas_for(picture.shape[1], picture.shape[0], self.spec.canvases)
        )
        return picture, views(canvas, self.spec), placed

    def crop(
        self,
        picture: np.ndarray,
        seen: Sequence[View],
        placed: Letterbox,
        outputs: Sequence[Sequence[np.ndarray]],
    ) -> np.ndarray | None:
        """The aligned crop of the largest face, or None. outputs: of each view."""
        found = faces_in(seen, outputs, self.spec, self.spec.min_score)
        if not len(found.scores):
            return None
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        return align(picture, placed.to_picture(found.landmarks[int(np.argmax(sides.prod(1)))]))

    def identify(self, pictures: Sequence[bytes]) -> int:
        """Identify a batch. Returns how many faces were found."""
        prepared = [self.prepare(data) for data in pictures]
        crops: list[np.ndarray] = []
        for shape in {seen[0].pixels.shape for _, seen, _ in prepared}:
            group = [entry for entry in prepared if entry[1][0].pixels.shape == shape]
            each = zip(*(seen for _, seen, _ in group), strict=True)  # a view of every picture at a time
            outputs = [self.detector(np.stack([view.pixels for view in of])) for of in each]
            for i, (picture, seen, placed) in enumerate(group):
                crop = self.crop(picture, seen, placed, [[rows[i] for rows in of] for of in outputs])
                if crop is not None:
                    crops.append(crop)
        if crops:
            (self.embedder(np.stack(crops))[0] @ self.gallery.T).argmax(1)
        return len(crops)


def from_memory(folder: Path, form: Form, pictures: Sequence[bytes], seconds: float) -> float:
    """Pictures a second of all processes of `form` together, without any load generator."""
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(form.processes)
    with spawn.Pool(form.processes, _share, (ready,)) as pool:
        work = (folder, form, pictures, seconds)
        rates = pool.map(_loop, [work] * form.processes, chunksize=1)
    return float(sum(rates))


_ready: Any = None


def _share(ready: Any) -> None:
    global _ready
    _ready = ready


def _loop(work: tuple[Path, Form, Sequence[bytes], float]) -> float:
    folder, form, pictures, seconds = work
    bare = BareLoop(folder, form.runtime, form.threads)
    bare.identify(pictures[: form.batch])
    _ready.wait()
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        bare.identify([pictures[(done + i) % len(pictures)] for i in range(form.batch)])
        done += form.batch
    return done / (time.perf_counter() - started)


class BareServers:
    """`form` behind sockets, so that the load generator can be the same: one listener a process.

    Opened once and idle between measurements (they block in select), so the contenders can be interleaved.
    """

    def __init__(self, folder: Path, form: Form) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.form = form
        self.addresses: list[tuple[str, int]] = []
        self._processes = []
        for _ in range(form.processes):
            here, there = spawn.Pipe()
            process = spawn.Process(target=_answer_sockets, args=(folder, form, there), daemon=True)
            process.start()
            self._processes.append(process)
            self.addresses.append(here.recv())

    @property
    def pids(self) -> list[int]:
        return [int(process.pid or 0) for process in self._processes]

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join()


def _answer_sockets(folder: Path, form: Form, parent: Connection) -> None:
    bare = BareLoop(folder, form.runtime, form.threads)
    listener = socket.create_server(("127.0.0.1", 0))
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ, None)
    parent.send(listener.getsockname())
    waiting: list[tuple[socket.socket, bytes]] = []
    while True:
        for key, _ in selector.select(None if not waiting else 0):
            if key.fileobj is listener:
                selector.register(listener.accept()[0], selectors.EVENT_READ, bytearray())
            elif (request := _receive(selector, key)) is not None:
                waiting.append((key.fileobj, request))  # type: ignore[arg-type]
        batch, waiting = waiting[: form.batch], waiting[form.batch :]
        if batch:
            bare.identify([picture_of(request) for _, request in batch])
            for connection, _ in batch:
                connection.sendall(ANSWER)


def _receive(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> bytes | None:
    """A whole request, once its last byte is here; a connection that ended is forgotten."""
    connection, buffer = key.fileobj, key.data
    assert isinstance(connection, socket.socket)
    received = connection.recv(1 << 20)
    if not received:
        selector.unregister(connection)
        connection.close()
        return None
    buffer += received
    head = buffer.find(HEAD_END)
    if head < 0:
        return None
    length = int(bytes(buffer[:head]).split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
    if len(buffer) < head + 4 + length:
        return None
    request = bytes(buffer)
    buffer.clear()
    return request
