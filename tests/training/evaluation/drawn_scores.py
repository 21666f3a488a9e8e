"""Embeddings of people who do not exist, with a known geometry."""

from __future__ import annotations

import numpy as np


def drawn_people(
    people: int, pictures: int | np.ndarray, dimension: int = 32, noise: float = 0.6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """embedding float32 [n, d] unit vectors, identity int [n] (starting at 100), family str [n] (empty).

    `noise`: length of a picture's departure from its person's direction, which has length 1.
    """
    random = np.random.default_rng(seed)
    counts = np.broadcast_to(pictures, people)
    identity = np.repeat(np.arange(people) + 100, counts)
    centre = random.normal(size=(people, dimension)) / dimension**0.5
    face = centre[identity - 100] + noise * random.normal(size=(len(identity), dimension)) / dimension**0.5
    face /= np.linalg.norm(face, axis=1, keepdims=True)
    shuffled = random.permutation(len(face))
    return face[shuffled].astype(np.float32), identity[shuffled], np.full(len(face), "", dtype="<U8")
