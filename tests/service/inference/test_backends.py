"""Exactly the backend that was asked for, or a failed start (invariant 7); and the same answer from each (9)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.decode import detections
from bundle.folder import Bundle, open_bundle
from bundle.preprocess import letterbox
from service.config import BackendKind
from service.errors import StartFailed
from service.inference import engines
from service.inference.backend import Array, Model, open_backend
from service.inference.backends import onnxruntime
from service.inference.engines import Role, model_of, open_engines
from service.telemetry.metrics import Metrics
from tests.synthetic_bundle import draw_scene


@pytest.fixture(scope="module")
def bundle(synthetic_bundle: Path) -> Bundle:
    return open_bundle(synthetic_bundle)


@pytest.fixture(scope="module")
def embedder(bundle: Bundle) -> Model:
    return model_of(bundle, "embedder", "onnxruntime")


def crops(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(5).integers(0, 255, (count, 112, 112, 3), np.uint8)


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.ort.get_available_providers(), reason="CUDA is installed"
)
@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_asking_for_a_device_that_is_not_there_fails_the_start_and_says_what_to_do(
    kind: BackendKind, bundle: Bundle
) -> None:
    with pytest.raises(StartFailed, match=f"FACET_BACKEND={kind}.*FACET_BACKEND=auto"):
        open_engines(bundle, kind, lanes=1, queue_limit=4, max_batch=None, metrics=Metrics())


def test_a_runtime_that_falls_back_without_a_word_fails_the_start(
    embedder: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the GPU package but no GPU, CUDA is "available" and the session runs on the CPU."""
    real = onnxruntime.ort.InferenceSession

    def falling_back(path: str, options: Any, providers: list[str]) -> Any:
        assert providers == ["CUDAExecutionProvider"]
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime.ort, "InferenceSession", falling_back)
    with pytest.raises(StartFailed, match="no device answers"):
        open_backend("cuda", embedder, 1)


def test_auto_takes_what_works_and_says_what_it_took(bundle: Bundle) -> None:
    opened = open_engines(bundle, "auto", lanes=1, queue_limit=4, max_batch=None, metrics=Metrics())
    opened.close()
    assert opened.backend in ("onnxruntime", "cuda")
    assert opened.detector.backend.name == opened.embedder.backend.name == opened.backend


def test_openvino_that_is_not_installed_fails_the_start_and_says_what_to_do(
    embedder: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "service.inference.backends.openvino", raising=False)
    with pytest.raises(StartFailed, match="pip install openvino"):
        open_backend("openvino", embedder, 1)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_a_file_that_is_no_model_fails_the_start(kind: BackendKind, tmp_path: Path) -> None:
    pytest.importorskip(kind)
    broken = tmp_path / "embedder.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(StartFailed, match=r"embedder\.onnx cannot be loaded"):
        open_backend(kind, Model(broken, "image", ("embedding",)), 1)


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("wanted_input", "wanted_output"), [("picture", "embedding"), ("image", "vector")])
def test_a_model_with_other_ends_than_the_manifest_says_fails_the_start(
    kind: BackendKind, wanted_input: str, wanted_output: str, embedder: Model
) -> None:
    pytest.importorskip(kind)
    with pytest.raises(StartFailed, match="other inputs or outputs"):
        open_backend(kind, Model(embedder.path, wanted_input, (wanted_output,)), 1)


@pytest.mark.parametrize("count", [1, 3])
def test_openvino_and_onnx_runtime_embed_alike(count: int, bundle: Bundle) -> None:
    (one,), (other,) = _answers("embedder", crops(count), bundle)
    np.testing.assert_allclose(one, other, atol=2e-4)


@pytest.mark.slow  # compiling takes seconds
def test_openvino_and_onnx_runtime_find_the_same_faces(bundle: Bundle) -> None:
    canvas, _ = letterbox(draw_scene([1, 2, 3], size=120), (640, 480))
    found = [
        detections(*(of[0] for of in answer), 640, 480, bundle.manifest.detector.anchors, 0.3, 0.4, 100)
        for answer in _answers("detector", canvas[None], bundle)
    ]
    assert len(found[0]) == len(found[1]) == 3
    np.testing.assert_allclose(found[0].scores, found[1].scores, atol=1e-3)
    np.testing.assert_allclose(found[0].boxes, found[1].boxes, atol=0.1)
    np.testing.assert_allclose(found[0].landmarks, found[1].landmarks, atol=0.1)


def _answers(role: Role, batch: Array, bundle: Bundle) -> list[tuple[Array, ...]]:
    pytest.importorskip("openvino")
    answers = []
    for kind in ("onnxruntime", "openvino"):
        backend = open_backend(kind, model_of(bundle, role, kind), 2)
        answers.append(backend.run(batch))
        backend.close()
    return answers


def test_what_openvino_answered_is_not_overwritten_by_the_next_batch(embedder: Model) -> None:
    pytest.importorskip("openvino")
    backend = open_backend("openvino", embedder, 1)
    batch = crops(2)
    (first,) = backend.run(batch[:1])
    kept = first.copy()
    backend.run(batch[1:])
    np.testing.assert_array_equal(first, kept)
    backend.close()


def test_the_variant_made_for_a_backend_is_run_on_it_and_on_no_other(bundle: Bundle) -> None:
    manifest = bundle.manifest
    variant = {
        "file": "embedder.rewritten.onnx", "of": "embedder", "kind": "prelu-rewrite", "backends": ("onnxruntime",),
        "derived_from": manifest.files[manifest.embedder.file].sha256, "cost": {},
    }  # fmt: skip
    files = {**manifest.files, "embedder.rewritten.onnx": manifest.files[manifest.embedder.file]}
    told = manifest.model_copy(update={"files": files, "variants": (engines_variant(variant),)})
    changed = Bundle(bundle.path, told)
    assert model_of(changed, "embedder", "onnxruntime").path.name == "embedder.rewritten.onnx"
    assert model_of(changed, "embedder", "openvino").path.name == manifest.embedder.file
    assert model_of(changed, "detector", "onnxruntime").path.name == manifest.detector.file


def engines_variant(fields: dict[str, Any]) -> Any:
    from bundle.manifest import Variant

    return Variant(**fields)


def test_a_batch_is_small_on_a_cpu_unless_the_configuration_says_otherwise(bundle: Bundle) -> None:
    for asked, expected in ((None, engines.CPU_BATCH), (5, 5)):
        opened = open_engines(
            bundle, "onnxruntime", lanes=1, queue_limit=4, max_batch=asked, metrics=Metrics()
        )
        assert opened.embedder.max_batch == expected
        opened.close()
