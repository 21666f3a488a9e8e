"""A step takes the faces that the configuration asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.training.embedder.tiny import PK_FOUR, tiny
from training.data.identities import BadData, Faces
from training.data.sampling import PK
from training.embedder.sampling import sampler_of
from training.loop.distributed import ALONE

pytestmark = pytest.mark.usefixtures("tiny_backbone")


def test_triplets_are_made_of_faces_whose_labels_can_be_believed(drawn_faces: Faces) -> None:
    doubted = replace(drawn_faces, similarity=np.where(np.arange(16) % 4 == 1, 0.1, 0.9).astype(np.float32))
    sampler = sampler_of(tiny(sampling=PK_FOUR), doubted, ALONE)
    drawn = np.concatenate([sampler.batch(step) for step in range(20)])
    assert set(drawn) == {n for n in range(16) if n % 4 != 1}
    assert sampler.batches_per_epoch == PK(drawn_faces.label, 2, 2, 7).batches_per_epoch


def test_every_epoch_sees_every_face_once_whatever_was_before(drawn_faces: Faces) -> None:
    sampler = sampler_of(tiny(), drawn_faces, ALONE)
    steps = [sampler.batch(step) for step in range(8)]
    for epoch in (steps[:4], steps[4:]):
        assert sorted(np.concatenate(epoch)) == list(range(16))
    assert not np.array_equal(np.concatenate(steps[:4]), np.concatenate(steps[4:]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch": 64}, "lower `batch`"),
        ({"batch": 8, "sampling": {"name": "pk", "people": 4, "pictures": 2}}, None),
        ({"batch": 10, "sampling": {"name": "pk", "people": 5, "pictures": 2}}, "lower `people`"),
    ],
)
def test_fewer_faces_than_a_batch_are_refused_with_the_way_out(
    changed: dict[str, Any], message: str | None, drawn_faces: Faces
) -> None:
    if message is None:
        assert sampler_of(tiny(**changed), drawn_faces, ALONE).batches_per_epoch == 1
    else:
        with pytest.raises(BadData, match=message):
            sampler_of(tiny(**changed), drawn_faces, ALONE)
