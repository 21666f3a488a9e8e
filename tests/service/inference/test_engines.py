"""A bundle is opened as it was published, or the start fails and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle import sentinel
from bundle.folder import Bundle
from service.errors import StartFailed
from service.inference.backend import open_backend
from service.inference.engines import Engines, model_of, open_engines
from service.telemetry.metrics import Metrics
from tests.synthetic_bundle import write_synthetic_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_synthetic_bundle(tmp_path / "bundle")


def opened(bundle: Bundle) -> Engines:
    return open_engines(bundle, "onnxruntime", lanes=1, queue_limit=4, max_batch=None, metrics=Metrics())


def with_sentinel(bundle: Bundle, *, swapped: bool) -> Bundle:
    """The bundle with the answer of its own embedder, to the picture or to the one with red and blue swapped."""
    embedder = open_backend("onnxruntime", model_of(bundle, "embedder", "onnxruntime"), 1)

    def run(crops: np.ndarray) -> np.ndarray:
        return embedder.run(np.ascontiguousarray(crops[..., ::-1]) if swapped else crops)[0]

    expected = sentinel.sentinel(run)
    embedder.close()
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"sentinel": expected}))


def test_a_bundle_whose_embedder_answers_its_test_picture_opens(bundle: Bundle) -> None:
    engines = opened(with_sentinel(bundle, swapped=False))
    assert engines.backend == "onnxruntime"
    engines.close()


def test_an_embedder_that_takes_blue_for_red_fails_the_start(bundle: Bundle) -> None:
    with pytest.raises(StartFailed, match="red and blue are swapped"):
        opened(with_sentinel(bundle, swapped=True))
