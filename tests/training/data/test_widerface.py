from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.data.pictures import BadData
from training.data.widerface import Photograph, Split, held_out, masks, wider, with_landmarks


def shard(path: Path, pictures: dict[str, np.ndarray]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, pixels in pictures.items():
            data = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training pictures, of 40 × 30 red pixels, and a validation picture."""
    red = np.zeros((30, 40, 3), np.uint8)
    red[..., 0] = 200
    shard(tmp_path / "train-000.tar", {"a/one.webp": red, "a/two.webp": red})
    shard(tmp_path / "val-000.tar", {"a/three.webp": red})
    note = {"width": 40, "height": 30, "shard": "train-000.tar"}
    boxes = [[10, 5, 8, 10, 0], [0, 0, 4, 4, 1], [3, 3, 0, 5, 0], [3, 3, -2, 5, 0]]
    notes = {
        "train/a/one.webp": {**note, "boxes": boxes},
        "train/a/two.webp": {**note, "boxes": []},
        "val/a/three.webp": {**note, "shard": "val-000.tar", "boxes": boxes[:1]},
    }
    (tmp_path / "annotations.json").write_text(json.dumps(notes))
    return tmp_path


def every_training(root: Path, longest: int | None = None) -> dict[str, Photograph]:
    return {one.name: one for split in ("train", "selection") for one in wider(root, split, longest)}  # type: ignore[arg-type]


def test_boxes_pixels_and_flags_are_read(root: Path) -> None:
    found = every_training(root)
    assert set(found) == {"train/a/one.webp", "train/a/two.webp"}
    one = found["train/a/one.webp"]
    assert one.pixels.shape == (30, 40, 3)
    assert one.pixels[0, 0].tolist() == [200, 0, 0]
    np.testing.assert_allclose(
        one.boxes[0], [9.5, 4.5, 17.5, 14.5]
    )  # edges half a pixel outside the pixels' centres
    assert one.ignored.tolist() == [False, True, True, True]
    assert np.isnan(one.landmarks).all()
    assert found["train/a/two.webp"].boxes.shape == (0, 4)
    assert [one.name for one in wider(root, "val")] == ["val/a/three.webp"]


def test_a_smaller_copy_keeps_faces_where_they_are(root: Path) -> None:
    one = every_training(root, longest=20)["train/a/one.webp"]
    assert one.pixels.shape == (15, 20, 3)
    np.testing.assert_allclose(one.boxes[0], [4.5, 2.0, 8.5, 7.0])
    taught = np.full((4, 5, 2), np.nan, np.float32)
    taught[0] = 12.5
    np.testing.assert_allclose(with_landmarks(one, taught).landmarks[0], 6.0)
    with pytest.raises(ValueError, match="4 faces"):
        with_landmarks(one, taught[:1])


def test_the_held_out_tenth_is_fixed_and_about_a_tenth() -> None:
    names = [f"train/event/{i}.webp" for i in range(5000)]
    kept = [name for name in names if held_out(name)]
    assert 0.08 < len(kept) / len(names) < 0.12
    assert kept == [name for name in names if held_out(name)]
    assert held_out(kept[0], one_in=1)


def test_a_picture_that_is_not_as_annotated_is_refused(root: Path) -> None:
    shard(root / "val-000.tar", {"a/three.webp": np.zeros((30, 41, 3), np.uint8)})
    with pytest.raises(BadData, match=r"val/a/three\.webp: wrong_size: 41 × 30 pixels, annotated as 40 × 30"):
        list(wider(root, "val"))


def test_the_kind_of_mask_is_no_flag(tmp_path: Path) -> None:
    shard(
        tmp_path / "photos-000.tar",
        {"m0.webp": np.zeros((30, 40, 3), np.uint8), "other": np.zeros((3, 3, 3), np.uint8)},
    )
    note = {"width": 40, "height": 30, "boxes": [[10, 5, 8, 10, 2]]}
    (tmp_path / "annotations.json").write_text(json.dumps({"m0.webp": note}))
    found = list(masks(tmp_path))
    assert [one.name for one in found] == ["masks/m0.webp"]
    assert not found[0].ignored.any()


@pytest.mark.parametrize(("split", "left"), [("train", 199), ("val", None)])
def test_a_corrupt_picture_costs_training_that_picture_and_a_measurement_everything(
    tmp_path: Path, split: Split, left: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{split}/e/{i}.webp" for i in range(400)]
    names = [name for name in names if not held_out(name)][:200]
    small = np.full((8, 8, 3), 90, np.uint8)
    inside = [name.removeprefix(f"{split}/") for name in names]
    shard(tmp_path / "s.tar", dict.fromkeys(inside, small))
    note = {"width": 8, "height": 8, "shard": "s.tar", "boxes": []}
    (tmp_path / "annotations.json").write_text(json.dumps(dict.fromkeys(names, note)))
    data = bytearray((tmp_path / "s.tar").read_bytes())
    with tarfile.open(tmp_path / "s.tar") as archive:
        begin = archive.getmember(inside[60]).offset_data
    data[begin : begin + 8] = b"not PNG!"
    (tmp_path / "s.tar").write_bytes(data)
    if left is None:
        with pytest.raises(BadData, match=rf"1 of 200 pictures cannot be used, among them .*{inside[60]}"):
            list(wider(tmp_path, split))
    else:
        assert [one.name for one in wider(tmp_path, split)] == names[:60] + names[61:]
        assert f"1 unreadable (the picture is left out), the first: {tmp_path / 's.tar'}: {names[60]}" in (
            capsys.readouterr().out
        )


def test_notes_without_their_pictures_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = json.loads((root / "annotations.json").read_text())
    notes["train/a/gone.webp"] = notes["train/a/one.webp"]
    (root / "annotations.json").write_text(json.dumps(notes))
    assert len(every_training(root)) == 2
    assert "1 no_picture (the annotation is left out), the first:" in capsys.readouterr().out


@pytest.mark.needs_data
def test_the_real_sets_have_the_pictures_that_are_stated(datasets: Path) -> None:
    notes = json.loads((datasets / "wider" / "annotations.json").read_text())
    training = [name for name in notes if name.startswith("train/")]
    assert len(training) == 1239
    assert sum(held_out(name) for name in training) == 130
    first = next(iter(wider(datasets / "wider", "selection", longest=400)))
    assert max(first.pixels.shape) <= 400
    assert len(first.boxes) == len(notes[first.name]["boxes"])
