"""MTCNN without its package: the cascade's geometry, and, where the wheel lies, what it finds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from training.config import BadConfig
from training.data.mtcnn import (
    CELL,
    MTCNN,
    PYRAMID,
    _apart,
    _crops,
    _Output,
    _Proposal,
    _Refinement,
    scales,
    weights,
)

wheel = pytest.mark.skipif(
    importlib.util.find_spec("facenet_pytorch") is None, reason="facenet-pytorch's wheel is not here"
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random weights."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, network in (("pnet", _Proposal()), ("rnet", _Refinement()), ("onet", _Output())):
        torch.save(network.state_dict(), folder / f"{name}.pt")
    return folder


def test_without_the_wheel_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadConfig, match=r"pip install --no-deps facenet-pytorch==2\.5\.3"):
        weights()


def test_other_weights_are_refused_by_name(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"pnet.pt: not MTCNN's weights"):
        MTCNN(tmp_path)
    for name, source in (("pnet", "pnet"), ("rnet", "onet"), ("onet", "onet")):
        (tmp_path / f"{name}.pt").write_bytes((untrained / f"{source}.pt").read_bytes())
    with pytest.raises(BadConfig, match=r"rnet.pt: not MTCNN's weights"):
        MTCNN(tmp_path)


def test_the_networks_are_as_small_as_published() -> None:
    sizes = [sum(p.numel() for p in network().parameters()) for network in (_Proposal, _Refinement, _Output)]
    assert sizes == [6_632, 100_178, 389_040]


def test_the_pyramid_goes_from_the_least_face_to_the_picture_itself() -> None:
    found = scales(640, 480)
    assert found[0] == CELL / 20
    assert np.allclose(np.divide(found[1:], found[:-1]), PYRAMID)
    assert 480 * found[-1] >= CELL > 480 * found[-1] * PYRAMID
    assert scales(6000, 4000)[0] * 6000 == pytest.approx(
        CELL * 32
    )  # a large photograph costs no more than a small one
    assert scales(11, 400) == []


@pytest.mark.parametrize("shape", [(5, 3), (64, 48), (48, 200)])
def test_any_picture_is_answered_in_shape(untrained: Path, shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = MTCNN(untrained).detect(picture)
    assert found.boxes.shape == (len(found), 4)
    assert found.landmarks.shape == (len(found), 5, 2)
    assert found.boxes.dtype == found.landmarks.dtype == found.scores.dtype == np.float32


def test_a_crop_beyond_the_picture_is_padded_with_black() -> None:
    white = np.full((20, 30, 3), 255, np.uint8)
    boxes = np.array([(-10, -10, 10, 10), (20, 10, 40, 30), (100, 100, 124, 124), (5, 5, 15, 15)], np.float32)
    brightness = (_crops(white, boxes, 24).mean((1, 2, 3)) * 128 + 127.5) / 255
    assert brightness.tolist() == pytest.approx([0.25, 0.25, 0, 1], abs=0.04)


def test_a_box_inside_a_better_one_goes_whatever_its_overlap() -> None:
    boxes = np.array([(0, 0, 100, 100), (40, 40, 60, 60), (90, 0, 190, 100)], np.float32)
    assert _apart(boxes, np.array([0.9, 0.8, 0.95], np.float32), 0.7).tolist() == [2, 0]


@wheel
def test_the_astronaut_is_found_where_she_is() -> None:
    photograph = skimage.data.astronaut()
    found = MTCNN(weights()).detect(photograph)
    assert len(found) == 1
    assert found.scores[0] > 0.99
    assert np.abs(found.boxes[0] - (181, 62, 268, 172)).max() < 4  # as published for these weights
    eyes = np.array([(204, 102), (247, 103.5)])
    assert np.abs(found.landmarks[0, :2] - eyes).max() < 3


@wheel
def test_a_mirrored_picture_has_mirrored_points() -> None:
    photograph = skimage.data.astronaut()
    detector = MTCNN(weights())
    points = detector.detect(photograph).landmarks[0]
    mirrored = detector.detect(np.ascontiguousarray(photograph[:, ::-1])).landmarks[0]
    mirrored[:, 0] = 511 - mirrored[:, 0]
    assert np.abs(mirrored[[1, 0, 2, 4, 3]] - points).max() < 2
