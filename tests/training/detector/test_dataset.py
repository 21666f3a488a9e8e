"""A batch is a function of its step; what cannot be learnt from is replaced and said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.decode import anchors, decode
from tests.training.detector.oblongs import SMALL, oblongs
from training.data.identities import BadData
from training.data.jpeg_cache import EncodedPixels, cached
from training.data.photographs import Photograph
from training.detector.config import Augmentation
from training.detector.dataset import Batch, Photographs, batch_of, keep, side_of


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    return keep(oblongs(8))


FOUR = np.arange(4)


def same(a: Batch, b: Batch) -> bool:
    return all(
        torch.equal(getattr(a, name).nan_to_num(), getattr(b, name).nan_to_num())
        for name in ("pixels", "label", "boxes", "offsets", "anchors")
    )


@pytest.fixture
def in_a_file(photographs: Photographs, tmp_path: Path) -> Path:
    """The photographs as JPEG; the file's bytes can be damaged."""
    file = tmp_path / "photographs.jpegs"
    cached(file, lambda: photographs.every)
    return file


def damage(photographs: Photographs, *places: int) -> None:
    for place in places:
        pixels = photographs.every[place].pixels
        assert isinstance(pixels, EncodedPixels)
        with pixels.file.open("r+b") as file:
            file.seek(pixels.offset)
            file.write(bytes(pixels.length))


def test_a_batch_depends_on_the_step_and_the_rank_alone(photographs: Photographs) -> None:
    first, again = (batch_of(photographs, FOUR, 5, 0, SMALL) for _ in range(2))
    assert same(first, again)
    assert not same(first, batch_of(photographs, FOUR, 6, 0, SMALL))
    assert not same(first, batch_of(photographs, FOUR, 5, 1, SMALL))


@pytest.mark.parametrize("name", ["iou", "atss"])
def test_targets_lead_back_to_the_boxes(photographs: Photographs, name: str) -> None:
    config = SMALL.model_copy(update={"assignment": SMALL.assignment.model_copy(update={"name": name})})
    batch = batch_of(photographs, FOUR, 0, 0, config)
    assert batch.pixels.shape == (4, 64, 64, 3)
    assert batch.label.shape == (4, len(anchors(64, 64, SMALL.anchors)))
    assert int((batch.label == 1).sum()) == len(batch.boxes) == len(batch.anchors) > 0
    _, points = decode(
        np.zeros((len(batch.boxes), 4)), batch.offsets.numpy(), batch.anchors.numpy(), SMALL.anchors
    )
    inside = (points >= batch.boxes[:, None, :2].numpy() - 8) & (
        points <= batch.boxes[:, None, 2:].numpy() + 8
    )
    assert inside.mean() > 0.9  # boxes are clipped to the crop, points are not


def test_the_parts_of_a_batch_hold_their_own_targets(photographs: Photographs) -> None:
    whole = batch_of(photographs, FOUR, 0, 0, SMALL)
    parts = [whole[slice(0, 1)], whole[slice(1, 3)], whole[slice(3, 4)]]
    for name in ("pixels", "label", "boxes", "offsets", "anchors"):
        torch.testing.assert_close(
            torch.cat([getattr(of, name) for of in parts]), getattr(whole, name), equal_nan=True
        )
    assert all(len(of.boxes) == int((of.label == 1).sum()) for of in parts)


def test_each_step_has_a_side_from_the_list_and_all_ranks_the_same(photographs: Photographs) -> None:
    config = SMALL.model_copy(update={"sides": (64, 96, 128)})
    sides = [side_of(step, config) for step in range(60)]
    assert {sides.count(side) > 9 for side in config.sides} == {True}
    step = sides.index(96)
    for rank in (0, 1):
        batch = batch_of(photographs, FOUR, step, rank, config)
        assert batch.pixels.shape[1:3] == (96, 96)
        assert batch.label.shape[1] == len(anchors(96, 96, config.anchors))


def test_photographs_in_a_file_give_crops_of_the_same_places(
    photographs: Photographs, in_a_file: Path
) -> None:
    decoded, encoded = (
        batch_of(of, FOUR, 3, 0, SMALL) for of in (photographs, keep(cached(in_a_file, list)))
    )
    torch.testing.assert_close(encoded.boxes, decoded.boxes)
    assert (
        encoded.pixels.float() - decoded.pixels.float()
    ).abs().mean() < 12  # noise is what JPEG keeps worst


def test_a_picture_that_becomes_corrupt_is_replaced_and_said(in_a_file: Path) -> None:
    some = keep(cached(in_a_file, list))
    damage(some, 1, 2)
    batch = batch_of(some, FOUR, 0, 0, SMALL)
    assert len(batch) == 4
    assert [reason.split(":")[0] for reason in batch.unread] == ["drawn/1", "drawn/2"]
    assert same(batch, batch_of(some, FOUR, 0, 0, SMALL))
    assert not batch_of(some, np.array([0, 3, 4, 5]), 0, 0, SMALL).unread


def test_a_set_without_a_readable_picture_ends_the_run(in_a_file: Path) -> None:
    none = keep(cached(in_a_file, list))
    damage(none, *range(8))
    with pytest.raises(BadData, match=r"no photograph can be read any more.*drawn/0"):
        batch_of(none, FOUR, 0, 0, SMALL)


def test_a_face_without_area_ends_the_run_by_name(photographs: Photographs) -> None:
    """Readers of annotations mark such faces as ignored; learnt, they are a logarithm of 0."""
    flat = replace(photographs.every[0], boxes=np.array([[40, 20, 40, 60]], np.float32))
    with pytest.raises(BadData, match="without area"):
        batch_of(keep([flat]), np.zeros(64, int), 0, 0, SMALL)  # the face is in some of the crops


def test_mosaics_and_what_hides_faces_are_drawn_where_they_are_asked_for(photographs: Photographs) -> None:
    plain = batch_of(photographs, FOUR, 0, 0, SMALL)
    for name in ("mosaics", "hiding", "turning", "degrading"):
        config = SMALL.model_copy(update={"augmentation": Augmentation(**{name: 1.0})})
        assert not torch.equal(batch_of(photographs, FOUR, 0, 0, config).pixels, plain.pixels)


def test_the_teacher_is_asked_about_the_clear_crops(photographs: Photographs) -> None:
    plain = batch_of(photographs, FOUR, 0, 0, SMALL)
    assert plain.clear is None
    np.testing.assert_array_equal(plain.asked, plain.pixels.numpy())
    some = SMALL.model_copy(update={"augmentation": Augmentation(degrading=0.5)})
    mixed = [batch_of(photographs, FOUR, step, 0, some) for step in range(8)]
    poor = [of for of in mixed if of.clear is not None]
    assert poor
    for of in poor:
        same = (of.asked == of.pixels.numpy()).all((1, 2, 3))
        assert not same.all()  # what was degraded is asked about as it was, the others as they are
    assert any((of.asked == of.pixels.numpy()).all((1, 2, 3)).any() for of in poor)


@pytest.mark.parametrize("shape", [(1, 1), (90, 12_000)])
def test_a_picture_of_any_shape_gives_a_crop(photographs: Photographs, shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 90, np.uint8)
    empty = np.zeros((0, 4), np.float32)
    odd = Photograph("odd", pixels, 1.0, empty, np.zeros(0, bool), np.zeros((0, 5, 2), np.float32))
    batch = batch_of(keep([odd]), np.zeros(4, int), 0, 0, SMALL)
    assert batch.pixels.shape == (4, 64, 64, 3)
    assert len(batch.boxes) == 0
