"""ONNX Runtime on the CPU, CUDA or TensorRT; a session that fell back to another device is refused.

ONNX Runtime falls back to the CPU without a word when a device is missing: only the session's own list of providers
tells, so it is compared with what was asked for after every load.
"""

from __future__ import annotations

import onnxruntime as ort

from service.errors import StartFailed
from service.inference.backend import Array, Model

_PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_FATAL_ONLY = 4  # the failure to get a device is told by StartFailed, in one line


class OnnxRuntime:
    """One session, shared by all lanes: each lane is one thread, and the session adds none."""

    def __init__(self, kind: str, model: Model) -> None:
        self.name = kind
        self._input = model.input
        self._outputs = list(model.outputs)
        self._session = _session(kind, model)

    def run(self, batch: Array) -> tuple[Array, ...]:
        return tuple(self._session.run(self._outputs, {self._input: batch}))

    def close(self) -> None:
        del self._session


def _session(kind: str, model: Model) -> ort.InferenceSession:
    wanted = _PROVIDERS[kind]
    if wanted not in ort.get_available_providers():
        raise StartFailed(
            f"FACET_BACKEND={kind}: the installed onnxruntime has no {wanted}; install the gpu extra on a machine "
            "with a GPU, or set FACET_BACKEND=auto"
        )
    try:
        session = ort.InferenceSession(str(model.path), _options(kind), providers=[wanted])
    except Exception as error:  # its kinds are private to the runtime
        raise StartFailed(
            f"FACET_BACKEND={kind}: {model.path.name} cannot be loaded ({type(error).__name__})"
        ) from error
    if session.get_providers()[0] != wanted:
        raise StartFailed(
            f"FACET_BACKEND={kind}: no device answers (the runtime fell back to {session.get_providers()[0]}); "
            "check the driver and its libraries, or set FACET_BACKEND=auto"
        )
    _check_names(session, model)
    return session


def _options(kind: str) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _FATAL_ONLY
    # One spinning thread would take a core from the lane beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _check_names(session: ort.InferenceSession, model: Model) -> None:
    inputs = [of.name for of in session.get_inputs()]
    missing = set(model.outputs) - {of.name for of in session.get_outputs()}
    if inputs != [model.input] or missing:
        raise StartFailed(f"{model.path.name} has other inputs or outputs than the bundle's manifest says")
