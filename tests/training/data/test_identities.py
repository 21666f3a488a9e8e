"""A face set is read whole and in its split, or refused with the place that is wrong."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from training.config import datasets
from training.data.identities import SIDE, BadData, decode_face, load_faces


@pytest.fixture
def faces(tmp_path: Path, drawn_sets) -> Path:
    return Path(shutil.copytree(drawn_sets.root / "faces", tmp_path / "faces"))


def test_a_split_has_its_people_and_no_one_else(faces: Path) -> None:
    splits = [load_faces(faces, split) for split in ("train", "validation", "calibration")]
    assert [(len(of), of.identities) for of in splits] == [(24, 6), (48, 12), (120, 60)]
    people = [set(of.identity.tolist()) for of in splits]
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]


def test_labels_are_dense_and_follow_identity(faces: Path) -> None:
    of = load_faces(faces, "train")
    assert sorted(set(of.label.tolist())) == list(range(6))
    assert len(set(zip(of.identity.tolist(), of.label.tolist(), strict=True))) == 6


def test_the_crop_is_the_middle_of_the_picture(faces: Path) -> None:
    of = load_faces(faces, "train")
    assert of.pictures.shape[1:] == (SIDE, SIDE, 3)
    assert np.array_equal(of.crops()[0], of.pictures[0, 4:116, 4:116])


def test_every_row_got_its_own_picture(faces: Path) -> None:
    of = load_faces(faces, "train")
    assert len({picture.tobytes() for picture in of.pictures}) == len(of)


@pytest.mark.parametrize("name", ["train.csv", "split.csv"])
def test_a_missing_table_is_named(faces: Path, name: str) -> None:
    (faces / name).unlink()
    with pytest.raises(BadData, match=f"{name} is missing"):
        load_faces(faces, "train")


def test_a_split_without_anybody_is_refused(faces: Path) -> None:
    (faces / "split.csv").write_text("identity,split,faces\n")
    with pytest.raises(BadData, match="no face belongs to the split 'train'"):
        load_faces(faces, "train")


@pytest.mark.parametrize("kept", [0, 100, 70_000])
def test_a_truncated_shard_is_refused(faces: Path, kept: int) -> None:
    shard = faces / "train-000.tar"
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(BadData, match=r"train-000\.tar|are not in the shards"):
        load_faces(faces, "calibration")


def test_a_picture_that_the_shard_lacks_is_counted(faces: Path) -> None:
    table = faces / "train.csv"
    table.write_text(table.read_text() + "train-000.tar,nobody/0000.webp,0,drawn,1.0,\n")
    with pytest.raises(BadData, match="1 of 25 pictures"):
        load_faces(faces, "train")


def test_an_unreadable_picture_is_named(faces: Path) -> None:
    with tarfile.open(faces / "train-000.tar", "w") as tar:
        member = tarfile.TarInfo("000000/0000.webp")
        tar.addfile(member)
    with pytest.raises(BadData, match=r"train-000\.tar:000000/0000\.webp: not a readable picture"):
        load_faces(faces, "train")


def test_a_picture_of_another_size_is_named() -> None:
    data = cv2.imencode(".png", np.zeros((112, 120, 3), np.uint8))[1].tobytes()
    with pytest.raises(BadData, match=r"a\.png: 120 × 112 pixels, expected 120 × 120"):
        decode_face(data, "a.png")


def test_colours_come_out_red_first() -> None:
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 2] = 200  # OpenCV writes blue first
    assert decode_face(cv2.imencode(".png", red)[1].tobytes(), "red.png")[0, 0].tolist() == [200, 0, 0]


@pytest.mark.needs_data
def test_the_real_splits_have_the_published_sizes() -> None:
    root = datasets()
    assert root is not None
    validation = load_faces(root / "faces", "validation")
    assert (len(validation), validation.identities) == (2441, 431)
    assert (validation.family != "").sum() > 100
