"""Drawn sets that every test of training may read: tiny, made once, in the real data's own formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.folder import Bundle
from tests.training.untrained import NO_FLOORS, POLICY, paced, write_checkpoints
from training.data.drawing import aligned
from training.data.identities import SIDE, Faces, load_faces
from training.data.synthetic import SyntheticSize, write_synthetic
from training.order import Order
from training.publish import publish

TINY = SyntheticSize(
    train_people=6,
    validation_people=12,
    calibration_people=60,
    pictures=4,
    calibration_pictures=2,
    pairs_per_fold=2,
    train_scenes=16,
    validation_scenes=8,
    masks=2,
)


@dataclass(frozen=True)
class DrawnSets:
    root: Path
    landmarks: Path


@pytest.fixture(scope="session")
def drawn_sets(tmp_path_factory: pytest.TempPathFactory) -> DrawnSets:
    """The folders faces, lfw, wider and masks, and the scenes' landmarks."""
    folder = tmp_path_factory.mktemp("drawn")
    sets = DrawnSets(folder / "sets", folder / "landmarks.npz")
    write_synthetic(sets.root, TINY, sets.landmarks)
    return sets


@pytest.fixture(scope="session")
def drawn_faces() -> Faces:
    """Four people with four pictures each."""
    identity = np.repeat(np.arange(4), 4)
    return Faces(
        pictures=np.stack([aligned(int(who), n, SIDE) for n, who in enumerate(identity)]),
        identity=identity + 50,
        label=identity,
        family=np.full(16, ""),
        similarity=np.ones(16, np.float32),
        source=np.full(16, "drawn"),
    )


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def order(drawn_sets: DrawnSets, tmp_path_factory: pytest.TempPathFactory) -> Order:
    """To publish two untrained models from drawn sets; what is at `order.to` is `published`: do not replace it."""
    folder = tmp_path_factory.mktemp("published")
    return Order(
        *write_checkpoints(folder / "runs", load_faces(drawn_sets.root / "faces", "train")),
        data=drawn_sets.root,
        to=folder / "models" / "synthetic",
        work=folder / "work",
        floors=NO_FLOORS,
        command="python -m training publish",
        synthetic=True,
        policy=POLICY,
    )


@pytest.fixture(scope="session")
def published(order: Order) -> Bundle:
    with paced():
        return publish(order)
