"""Rates are of the average, and only those that the pairs can carry."""

from __future__ import annotations

import numpy as np
import torch

from tests.training.embedder.tiny import Tiny
from training.data.identities import Faces
from training.embedder import validation


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
