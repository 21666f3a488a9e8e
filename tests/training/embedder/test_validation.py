"""Rates are of the average, and only those that the pairs can carry."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training.embedder.tiny import Tiny
from training.data.identities import Faces
from training.embedder import validation


def of_people(identity: np.ndarray) -> Faces:
    """Faces that share one black picture, which takes no memory."""
    count = len(identity)
    return Faces(
        pictures=np.broadcast_to(np.uint8(0), (count, 120, 120, 3)),
        identity=identity,
        label=identity,
        family=np.full(count, ""),
        similarity=np.ones(count, np.float32),
        source=np.full(count, "drawn"),
    )


def test_a_set_that_is_not_too_large_is_compared_whole() -> None:
    faces = of_people(np.arange(validation.MOST) // 2)
    assert validation.compared(faces) == slice(None)


def test_of_a_larger_set_the_same_people_are_compared_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MOST", 30)
    identity = np.random.default_rng(0).permutation(np.repeat(np.arange(100), 4))
    rows = validation.compared(of_people(identity))
    assert len(rows) == 30
    assert (np.diff(rows) > 0).all()
    pictures = np.bincount(identity[rows], minlength=100)
    assert sorted(pictures[pictures > 0]) == [2, *[4] * 7]  # of each all, but for where the end is
    again = validation.compared(replace(of_people(identity), family=np.full(400, "kin")))
    np.testing.assert_array_equal(rows, again)


def test_validation_s_memory_and_work_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 faces: all their pairs would be 5 · 10⁹, in 100 GB."""
    monkeypatch.setattr(validation, "MOST", 1000)
    embedded = []

    def random_embedding(model: torch.nn.Module, crops: np.ndarray) -> np.ndarray:
        embedded.append(len(crops))
        vectors = np.random.default_rng(0).normal(size=(len(crops), 16)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    monkeypatch.setattr(validation, "embed", random_embedding)
    faces = of_people(np.arange(100_000) // 2)
    tracemalloc.start()
    try:
        measured = validation.validate(Tiny(16), faces)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert embedded == [1000]
    assert measured.keys() == {"fnmr@0.01", "fnmr@0.001"}
    assert most < 100e6


def test_rates_are_of_the_average_and_of_the_rates_that_the_pairs_carry() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 120, 120, 3), np.uint8)
    identity = np.repeat(np.arange(12), 4)  # each person's four pictures are one: 1,056 impostor pairs
    faces = Faces(
        pictures=noise[identity],
        identity=identity,
        label=identity,
        family=np.full(48, ""),
        similarity=np.ones(48, np.float32),
        source=np.full(48, "noise"),
    )
    model = Tiny(16)
    assert validation.validate(model, faces) == {"fnmr@0.01": 0.0}
    embedding = validation.embed(model, faces.crops(), batch=5)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, atol=1e-6)
    with torch.inference_mode():
        alone = model((torch.from_numpy(faces.crops()[7:8].copy()).permute(0, 3, 1, 2) - 127.5) / 127.5)
    np.testing.assert_allclose(embedding[7], (alone / alone.norm()).numpy()[0], atol=1e-6)
