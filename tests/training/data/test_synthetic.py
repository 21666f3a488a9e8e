"""The drawn sets are what they say: the same each time, in the real formats, with boxes and points that fit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from bundle.align import TEMPLATE, align, similarity
from training.data.drawing import aligned, portrait
from training.data.scenes import draw_scene
from training.data.synthetic import SyntheticSize, write_synthetic
from training.data.widerface import masks, wider
from training.evaluation.wider_protocol import protocol

SMALLEST = SyntheticSize(1, 1, 1, 2, 1, 1, 2, 2, 1)


def test_a_drawing_is_a_function_of_its_numbers() -> None:
    assert np.array_equal(aligned(3, 1), aligned(3, 1))
    assert not np.array_equal(aligned(3, 1), aligned(3, 2))
    assert not np.array_equal(aligned(3, 1), aligned(4, 1))


def thumbnail(crop: np.ndarray) -> np.ndarray:
    """Eyes to mouth in 6 × 4 cells of colour, whatever the light."""
    face = crop[24:96, 24:88].astype(float).reshape(6, 12, 4, 16, 3).mean((1, 3)).ravel()
    return (face - face.mean()) / face.std()


def apart(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(thumbnail(one) - thumbnail(other)).mean())


def test_two_pictures_of_a_person_are_nearer_than_two_people() -> None:
    same = [apart(aligned(i, 0), aligned(i, 1)) for i in range(20)]
    other = [apart(aligned(i, 0), aligned(i + 1, 1)) for i in range(20)]
    assert np.median(same) < 0.75 * np.median(other)


def test_the_five_points_of_a_drawing_lead_to_the_template() -> None:
    for who in range(12):
        points = portrait(who, 0).landmarks
        matrix = similarity(points)
        assert np.abs(points @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE).max() < 6


def test_a_scene_is_a_function_of_its_arguments() -> None:
    one, other = draw_scene(5), draw_scene(5)
    assert np.array_equal(one.pixels, other.pixels)
    assert np.array_equal(one.boxes, other.boxes)
    assert not np.array_equal(one.pixels, draw_scene(6).pixels)


def test_boxes_lie_in_the_picture_and_do_not_touch_and_points_lie_in_boxes() -> None:
    seen = 0
    for number in range(30):
        scene = draw_scene(number, 240, 320)
        assert scene.pixels.shape == (320, 240, 3)
        assert len(scene.boxes) == len(scene.landmarks) == len(scene.people)
        for box, points in zip(scene.boxes, scene.landmarks, strict=True):
            assert (box[:2] >= -0.6).all()
            assert (box[2:] <= np.array([240, 320]) - 0.4).all()
            assert ((points > box[:2]) & (points < box[2:])).all()
            seen += 1
        for i, box in enumerate(scene.boxes):
            for other in scene.boxes[:i]:
                assert (np.minimum(box[2:], other[2:]) <= np.maximum(box[:2], other[:2])).any()
    assert seen > 30


def test_a_named_person_is_in_the_scene_and_aligns_to_the_drawn_crop() -> None:
    scene = draw_scene(8, 320, 240, people=[77])
    assert scene.people == (77,)
    crop = align(scene.pixels, scene.landmarks[0])
    assert apart(crop, aligned(77, 0)) < np.quantile(
        [apart(crop, aligned(who, 0)) for who in range(20)], 0.15
    )


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("smallest")
    return write_synthetic(folder / "sets", SMALLEST, folder / "points.npz"), folder / "points.npz"


def digests(root: Path) -> dict[str, str]:
    files = [of for of in root.rglob("*") if of.is_file() and of.suffix != ".mat"]  # MATLAB files hold a date
    return {str(of.relative_to(root)): hashlib.sha256(of.read_bytes()).hexdigest() for of in files}


def test_the_same_sets_are_written_byte_for_byte(smallest: tuple[Path, Path], tmp_path: Path) -> None:
    again = write_synthetic(tmp_path / "sets", SMALLEST, tmp_path / "points.npz")
    assert digests(again) == digests(smallest[0])


def test_sets_that_are_whole_are_kept_and_half_ones_drawn_anew(smallest: tuple[Path, Path]) -> None:
    root, points = smallest
    touched = root / "lfw" / "pairs.txt"
    before = touched.stat().st_mtime_ns
    write_synthetic(root, SMALLEST, points)
    assert touched.stat().st_mtime_ns == before
    (root / "drawn.json").unlink()
    write_synthetic(root, SMALLEST, points)
    assert touched.stat().st_mtime_ns != before


def test_the_real_readers_read_boxes_and_points_as_drawn(drawn_sets) -> None:
    with np.load(drawn_sets.landmarks) as points:
        photographs = [*wider(drawn_sets.root / "wider", "val"), *masks(drawn_sets.root / "masks")]
        assert len(photographs) == 10
        for photograph in photographs:
            number = int(photograph.name.split("/")[-1].removesuffix(".webp"))
            height, width = photograph.pixels.shape[:2]
            scene = draw_scene(number, width, height)
            assert not photograph.ignored.any()
            np.testing.assert_allclose(photograph.boxes, scene.boxes, atol=1e-3)
            np.testing.assert_allclose(points[photograph.name], scene.landmarks, atol=1e-4)


def test_training_and_selection_share_no_scene_and_all_have_points(drawn_sets) -> None:
    with np.load(drawn_sets.landmarks) as points:
        train, selection = (
            {of.name for of in wider(drawn_sets.root / "wider", s)} for s in ("train", "selection")
        )
        assert not train & selection
        assert train | selection <= set(points.files)


def test_the_protocol_s_lists_name_the_scenes_and_nest(drawn_sets) -> None:
    lists = drawn_sets.root / "wider" / "val_protocol"
    easy, medium, hard = (protocol(lists, setting) for setting in ("easy", "medium", "hard"))
    notes = json.loads((drawn_sets.root / "wider" / "annotations.json").read_text())
    assert {f"val/{name}.webp" for name in easy} == {name for name in notes if name.startswith("val/")}
    for name in easy:
        assert len(hard[name].counts) == len(notes[f"val/{name}.webp"]["boxes"])
        assert not (easy[name].counts & ~medium[name].counts).any()
        assert not (medium[name].counts & ~hard[name].counts).any()
