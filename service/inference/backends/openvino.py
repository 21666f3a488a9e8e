"""OpenVINO on the CPU: one compiled model a shape of batch, one request a lane.

Shapes are compiled as they come, because OpenVINO is slower where a dimension is open; they are few (the bundle's
canvases and their small copies, times the batch sizes), and one more than `_MAX_SHAPES` is refused, not compiled.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from service.errors import StartFailed
from service.inference.backend import Array, Model

try:
    import openvino
except ImportError:
    raise StartFailed(
        "FACET_BACKEND=openvino: openvino is not installed; pip install openvino, or set FACET_BACKEND=auto"
    ) from None

_MAX_SHAPES = 128


class OpenVino:
    """`threads` lanes share the compiled models; float32 arithmetic, so that answers agree with the other backends."""

    name = "openvino"

    def __init__(self, model: Model, threads: int) -> None:
        self._outputs = list(model.outputs)
        self._input = model.input
        self._core = openvino.Core()
        self._hints = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._path = model.path
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._lock = threading.Lock()
        self._requests = threading.local()  # of_shape: this lane's requests
        try:
            read = self._core.read_model(self._path)
        except Exception as error:  # its kinds are private to the runtime
            raise StartFailed(f"FACET_BACKEND=openvino: {model.path.name} cannot be loaded") from error
        self._check_names(read, model)

    def run(self, batch: Array) -> tuple[Array, ...]:
        request = self._request(batch.shape)
        request.infer({self._input: np.ascontiguousarray(batch)}, share_inputs=True)
        # The request's own memory is written again by the next batch of this lane.
        return tuple(np.array(request.get_tensor(name).data) for name in self._outputs)

    def close(self) -> None:
        self._compiled.clear()
        self._requests = threading.local()

    def _request(self, shape: tuple[int, ...]) -> Any:
        if not hasattr(self._requests, "of_shape"):
            self._requests.of_shape = {}
        mine: dict[tuple[int, ...], Any] = self._requests.of_shape
        if shape not in mine:
            mine[shape] = self._compile(shape).create_infer_request()
        return mine[shape]

    def _compile(self, shape: tuple[int, ...]) -> Any:
        with self._lock:
            if shape not in self._compiled:
                if len(self._compiled) >= _MAX_SHAPES:
                    raise ValueError(f"more than {_MAX_SHAPES} shapes of batches")
                model = self._core.read_model(self._path)
                model.reshape({self._input: list(shape)})
                self._compiled[shape] = self._core.compile_model(model, "CPU", self._hints)
            return self._compiled[shape]

    def _check_names(self, read: Any, model: Model) -> None:
        inputs = [name for of in read.inputs for name in of.names]
        outputs = {name for of in read.outputs for name in of.names}
        if inputs != [model.input] or set(model.outputs) - outputs:
            raise StartFailed(
                f"{model.path.name} has other inputs or outputs than the bundle's manifest says"
            )
