"""A step gets as many crops as it asks for, also past pictures that cannot be read; a mosaic keeps its faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from training.data.crops import Unread, draw
from training.data.detection_augment import Crop, augment, pyramid
from training.data.jpeg_cache import EncodedPixels, cached
from training.data.photographs import Photograph
from training.data.pictures import BadData
from training.data.raw_photographs import Picture
from training.data.scenes import draw_scene

SIDE = 96


def drawn(number: int) -> Photograph:
    scene = draw_scene(number, people=(number,))
    count = len(scene.boxes)
    return Photograph(f"d/{number}", scene.pixels, 1.0, scene.boxes, np.zeros(count, bool), scene.landmarks)


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    return [drawn(number) for number in range(5)]


def halves(photographs: Sequence[Photograph]) -> list[Sequence[Picture]]:
    return [pyramid(one.pixels) for one in photographs]


def same(one: Crop, other: Crop) -> bool:
    names = ("pixels", "boxes", "ignored", "landmarks")
    return all(np.array_equal(getattr(one, of), getattr(other, of)) for of in names)


def test_without_options_crops_are_augmented_one_after_the_other(photographs: list[Photograph]) -> None:
    levels, rng = halves(photographs), np.random.default_rng(4)
    expected = [augment(photographs[i], levels[i], SIDE, rng) for i in (3, 0, 3)]
    found = draw(photographs, levels, np.array([3, 0, 3]), SIDE, np.random.default_rng(4))
    assert found.unread == ()
    assert all(same(*of) for of in zip(found.crops, expected, strict=True))


def test_a_corrupt_picture_is_passed_over_and_named_each_step(
    photographs: list[Photograph], tmp_path: Path
) -> None:
    kept = cached(tmp_path / "cache.jpegs", lambda: photographs)
    levels = halves(kept)
    whole = [draw(kept, levels, range(5), SIDE, np.random.default_rng(step)) for step in range(3)]
    spoil(kept[2])
    for step, before in enumerate(whole):
        found, again = (draw(kept, levels, range(5), SIDE, np.random.default_rng(step)) for _ in range(2))
        assert len(found.crops) == 5
        assert [reason.partition(":")[0] for reason in found.unread] == ["d/2"]
        assert all(same(*of) for of in zip(found.crops, again.crops, strict=True))
        assert all(same(*of) for of in zip(found.crops[:2], before.crops[:2], strict=True))


def spoil(photograph: Photograph) -> None:
    pixels = photograph.pixels
    assert isinstance(pixels, EncodedPixels)
    with pixels.file.open("r+b") as opened:
        opened.seek(pixels.offset)
        opened.write(bytes(pixels.length))


def test_when_nothing_can_be_read_the_run_ends(photographs: list[Photograph], tmp_path: Path) -> None:
    kept = cached(tmp_path / "cache.jpegs", lambda: photographs)
    for one in kept:
        spoil(one)
    with pytest.raises(BadData, match="no photograph can be read any more, the first: d/1: not a readable"):
        draw(kept, halves(kept), [1], SIDE, np.random.default_rng(0))


def test_a_mosaic_is_whole_and_its_boxes_are_where_its_faces_are(photographs: list[Photograph]) -> None:
    found = draw(photographs, halves(photographs), [0] * 30, SIDE, np.random.default_rng(1), mosaics=1.0)
    seen = 0
    for crop in found.crops:
        assert crop.pixels.shape == (SIDE, SIDE, 3)
        assert ((crop.boxes >= -0.5) & (crop.boxes <= SIDE - 0.5)).all()
        seen = max(seen, int((~crop.ignored).sum()))
    assert seen >= 2  # each photograph has one face
    assert not any(same(found.crops[0], other) for other in found.crops[1:])


def test_half_of_the_crops_are_mosaics_if_asked(photographs: list[Photograph]) -> None:
    # A picture of one colour has a seam only as a mosaic.
    plain = [
        Photograph(str(level), np.full((200, 200, 3), level, np.uint8), 1.0, *nothing())
        for level in (40, 200)
    ]
    found = draw(plain, halves(plain), [0] * 60, SIDE, np.random.default_rng(2), mosaics=0.5)
    seams = sum(np.abs(np.diff(crop.pixels[..., 1].astype(int), axis=1)).max() > 30 for crop in found.crops)
    assert 10 < seams < 50


def nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, 4), np.float32), np.zeros(0, bool), np.zeros((0, 5, 2), np.float32)


def test_what_could_not_be_read_is_said_once_and_ends_the_run_beyond_a_hundredth(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unread = Unread(photographs=300)
    for _ in range(5):
        unread.note(["a: gone", "b: gone"])
    unread.note(["c: gone"])
    assert len(unread) == 3
    assert capsys.readouterr().out.splitlines() == [f"left out: {name}: gone" for name in "abc"]
    with pytest.raises(BadData, match=r"4 of 300 photographs became unreadable, the first: a: gone"):
        unread.note(["d: gone"])


def test_one_bad_picture_of_a_few_is_no_reason_to_stop() -> None:
    unread = Unread(photographs=5)
    unread.note(["a: gone"])
    with pytest.raises(BadData, match="2 of 5"):
        unread.note(["b: gone"])
