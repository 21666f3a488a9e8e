"""One picture in another size or compression is recognised; two pictures are not taken for one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from training.data.likeness import NEAR, Looks, alike, difference_hash, near_pairs
from training.data.scenes import draw_scene

SCENES = [(f"scene {number}", draw_scene(number).pixels) for number in range(40)]


@pytest.mark.parametrize("quality", [30, 80])
@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7])
def test_a_copy_is_found_whatever_its_size_and_compression(scale: float, quality: int) -> None:
    copy = cv2.resize(SCENES[7][1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    copy = cv2.imdecode(cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    assert alike([("copy", copy)], SCENES) == [("copy", "scene 7")]


def test_different_pictures_are_not_alike() -> None:
    assert alike(SCENES[:20], SCENES[20:]) == []


def test_with_nothing_to_compare_nothing_is_alike() -> None:
    assert alike([("one", np.zeros((9, 9, 3), np.uint8))], []) == []


def test_the_nearest_picture_is_named_and_a_stranger_is_not() -> None:
    looks = Looks.of(SCENES[:20])
    assert looks.bits.shape == (20, 256)
    assert looks.nearest(SCENES[7][1]) == "scene 7"
    assert looks.nearest(SCENES[30][1]) is None
    assert Looks.of([]).nearest(SCENES[7][1]) is None


def test_pairs_of_one_set_are_named_once_and_of_two_sets_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.likeness._ROWS", 3)  # so that blocks meet
    hashes = np.stack([difference_hash(picture) for _, picture in SCENES[:8]])
    hashes = np.concatenate([hashes, hashes[[2, 5]]])
    hashes[8, :NEAR] ^= True
    hashes[9, : NEAR + 1] ^= True
    assert list(near_pairs(hashes)) == [(2, 8)]
    assert list(near_pairs(hashes[:3], hashes)) == [(0, 0), (1, 1), (2, 2), (2, 8)]
    assert list(near_pairs(hashes[:0])) == list(near_pairs(hashes, hashes[:0])) == []
