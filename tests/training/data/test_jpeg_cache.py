"""Photographs come back from the cache as they went in, but for JPEG's loss, and only as large as a crop needs them."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.detection_augment import augment, pyramid
from training.data.jpeg_cache import EncodedPixels, cached
from training.data.photographs import Photograph
from training.data.pictures import BadData
from training.data.scenes import draw_scene


def drawn(number: int, width: int = 640, height: int = 481) -> Photograph:
    scene = draw_scene(number, width, height)
    soft = cv2.GaussianBlur(scene.pixels, (0, 0), 1.5)  # drawn noise is nothing that JPEG keeps
    ignored = np.arange(len(scene.boxes)) == 1
    return Photograph(
        f"d/{number}.webp", np.asarray(soft, np.uint8), 0.5, scene.boxes, ignored, scene.landmarks
    )


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    empty = np.zeros((0, 4), np.float32)
    bare = Photograph("bare", drawn(9).pixels, 1.0, empty, np.zeros(0, bool), np.zeros((0, 5, 2), np.float32))
    return [drawn(1), bare, drawn(2, 333, 655), drawn(3)]


@pytest.fixture
def kept(photographs: list[Photograph], tmp_path: Path) -> list[Photograph]:
    return cached(tmp_path / "runs" / "cache.jpegs", lambda: photographs)


def test_all_but_the_pixels_is_the_same(photographs: list[Photograph], kept: list[Photograph]) -> None:
    for one, again in zip(photographs, kept, strict=True):
        assert (again.name, again.scale) == (one.name, one.scale)
        for name in ("boxes", "ignored", "landmarks"):
            np.testing.assert_array_equal(getattr(again, name), getattr(one, name))
            assert getattr(again, name).dtype == getattr(one, name).dtype
        assert (again.pixels.shape, again.pixels.dtype) == (one.pixels.shape, np.uint8)
        assert np.abs(np.asarray(again.pixels).astype(int) - one.pixels).mean() < 2


def test_it_is_written_once(photographs: list[Photograph], kept: list[Photograph], tmp_path: Path) -> None:
    again = cached(tmp_path / "runs" / "cache.jpegs", lambda: pytest.fail("asked again"))
    assert [one.name for one in again] == [one.name for one in photographs]
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["cache.jpegs"]


def test_halves_are_those_of_the_pyramid(photographs: list[Photograph], kept: list[Photograph]) -> None:
    for one, again in zip(photographs, kept, strict=True):
        levels, halves = pyramid(one.pixels, smallest=60), pyramid(again.pixels, smallest=60)
        assert len(halves) == len(levels) == 4 - (min(one.pixels.shape[:2]) < 480)
        for level, half in zip(levels, halves, strict=True):
            height, width = level.shape[:2]  # the pyramid drops an odd last row, JPEG fills it up
            assert np.abs(half[:height, :width].astype(int) - level).mean() < 3
    assert len(pyramid(kept[0].pixels, smallest=10)) == 4  # an eighth is the least


def test_a_crop_is_the_same_wherever_its_photograph_lies(
    photographs: list[Photograph], kept: list[Photograph]
) -> None:
    for one, again in zip(photographs, kept, strict=True):
        for seed in range(8):
            crops = [augment(of, pyramid(of.pixels), 128, np.random.default_rng(seed)) for of in (one, again)]
            np.testing.assert_array_equal(crops[0].boxes, crops[1].boxes)
            np.testing.assert_array_equal(crops[0].ignored, crops[1].ignored)
            assert np.abs(crops[0].pixels.astype(int) - crops[1].pixels).mean() < 5


def test_a_worker_process_gets_places_and_no_pictures(kept: list[Photograph]) -> None:
    assert len(pickle.dumps(kept)) < 10_000
    assert np.asarray(pickle.loads(pickle.dumps(kept))[2].pixels).shape == (655, 333, 3)


def test_a_picture_that_became_unreadable_is_named(kept: list[Photograph], tmp_path: Path) -> None:
    file, pixels = tmp_path / "runs" / "cache.jpegs", kept[2].pixels
    assert isinstance(pixels, EncodedPixels)
    data = bytearray(file.read_bytes())
    data[pixels.offset + 2 : pixels.offset + pixels.length] = bytes(pixels.length - 2)
    file.write_bytes(data)
    with pytest.raises(BadData, match=r"d/2\.webp: not a readable picture any more, in .*cache\.jpegs"):
        np.asarray(cached(file, list)[2].pixels)
    assert np.asarray(kept[3].pixels).shape == (481, 640, 3)
    file.unlink()
    with pytest.raises(BadData, match=r"d/1\.webp: not a readable picture any more"):
        np.asarray(kept[0].pixels)


def test_another_picture_in_its_place_is_noticed(kept: list[Photograph], tmp_path: Path) -> None:
    pixels = kept[0].pixels
    assert isinstance(pixels, EncodedPixels)
    with pytest.raises(BadData, match=r"d/1\.webp: another picture than it was"):
        EncodedPixels(pixels.name, pixels.file, pixels.offset, pixels.length, (300, 640, 3)).shrunk(0)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_cache_is_refused(kept: list[Photograph], tmp_path: Path, share: float) -> None:
    file = tmp_path / "runs" / "cache.jpegs"
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadData, match=r"cache\.jpegs: damaged, or no cache of photographs; delete it"):
        cached(file, list)


def test_a_cache_whose_index_was_overwritten_is_refused(kept: list[Photograph], tmp_path: Path) -> None:
    file = tmp_path / "runs" / "cache.jpegs"
    end = file.stat().st_size - 22
    begin = int.from_bytes(file.read_bytes()[end : end + 8], "little")
    for start, stop in ((begin, begin + 200), (end - 60, end)):  # its first member, its directory
        data = bytearray(file.read_bytes())
        data[start:stop] = bytes(stop - start)
        (tmp_path / "broken.jpegs").write_bytes(data)
        with pytest.raises(BadData, match=r"broken\.jpegs: its index is damaged .*; delete it"):
            cached(tmp_path / "broken.jpegs", list)


def test_an_interrupted_cache_is_written_again(photographs: list[Photograph], tmp_path: Path) -> None:
    def interrupted():
        yield photographs[0]
        raise KeyboardInterrupt

    file = tmp_path / "cache.jpegs"
    with pytest.raises(KeyboardInterrupt):
        cached(file, interrupted)
    assert not file.exists()
    assert len(cached(file, lambda: photographs)) == 4


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no photograph to keep"):
        cached(tmp_path / "cache.jpegs", list)
