"""Exported graphs, run as the service runs them: ONNX Runtime on the CPU, one picture at a time unless asked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from tqdm import tqdm

from bundle.decode import Detections
from bundle.folder import Bundle
from bundle.manifest import DetectorSpec
from bundle.preprocess import Picture, enclosing, letterbox
from bundle.views import faces_in, views
from training.evaluation.finding import Find

LEAST_SCORE = 0.02  # of a detection kept while measuring: nearly the whole curve


def session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Any graph on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class ServedGraph:
    """An exported graph: `image` uint8 [n, h, w, 3] RGB in, its outputs out."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.path = path
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self._session = session(path, threads)

    def run(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """image: uint8 [n, h, w, 3] RGB. Returns the outputs in the graph's order."""
        return tuple(self._session.run(None, {"image": np.ascontiguousarray(image)}))

    def embed(self, crops: np.ndarray, progress: str | None = None) -> np.ndarray:
        """An embedder's graph: uint8 [n, 112, 112, 3] RGB → float32 [n, d] unit vectors, no flip."""
        faces = tqdm(range(len(crops)), desc=progress, disable=progress is None, mininterval=5, unit="face")
        return np.concatenate([self.run(crops[i : i + 1])[0] for i in faces])


def served_graph(of: Bundle, role: Literal["embedder", "detector"] = "embedder") -> ServedGraph:
    """A model of a published bundle in the form that is served by ONNX Runtime on a CPU."""
    manifest = of.manifest
    forms = [one.file for one in manifest.variants if one.of == role and "onnxruntime" in one.backends]
    canonical = manifest.embedder.file if role == "embedder" else manifest.detector.file
    return ServedGraph(of.file([*forms, canonical][0]))


def finder(graph: ServedGraph, spec: DetectorSpec, min_score: float = LEAST_SCORE) -> Find:
    """The detector's graph, seeing and decoding a canvas as the service does; one of any size, black up to what the
    strides divide."""
    coarsest = max(spec.anchors.strides)

    def find(canvas: Picture) -> Detections:
        height, width = canvas.shape[:2]
        seen = views(letterbox(canvas, enclosing((width, height), coarsest))[0], spec)
        outputs = [[of[0] for of in graph.run(view.pixels[None])] for view in seen]
        return faces_in(seen, outputs, spec, min_score)

    return find


def embed_once(graph: ServedGraph, crops: np.ndarray, cache: Path, progress: str | None = None) -> np.ndarray:
    """`graph.embed(crops)`, kept in `cache` under the digests of the graph and of the pictures."""
    file = cache / f"embedding-{graph.digest[:16]}-{fingerprint(crops)}.npy"
    return cached(file, lambda: graph.embed(crops, progress))


def fingerprint(pictures: np.ndarray) -> str:
    """16 hexadecimal digits that change with any pixel."""
    return hashlib.sha256(np.ascontiguousarray(pictures).data).hexdigest()[:16]


def cached(file: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `file`, else `compute()`, written there so that `file` never holds half of it."""
    if file.is_file():
        return np.asarray(np.load(file))
    array = compute()
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npy")
    np.save(partial, array)
    partial.replace(file)
    return array
