"""A face set is read whole and in its split, or refused with the place that is wrong."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.plain_faces import encoded, levels
from training.config import datasets
from training.data import identities
from training.data.identities import SIDE, BadData, Faces, collect, load_faces
from training.data.pictures import EncodedPictures, decode_face, encoded_pictures


@pytest.fixture
def faces(tmp_path: Path, drawn_sets) -> Path:
    return Path(shutil.copytree(drawn_sets.root / "faces", tmp_path / "faces"))


def rewritten(shard: Path, change: dict[str, bytes]) -> None:
    """The same shard with other bytes under some names."""
    with tarfile.open(shard) as tar:
        data = {member.name: tar.extractfile(member).read() for member in tar}
    with tarfile.open(shard, "w") as tar:
        for name, content in {**data, **change}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def plain_set(folder: Path, pictures: list[bytes]) -> EncodedPictures:
    files = [folder / f"{number}.png" for number in range(len(pictures))]
    for file, data in zip(files, pictures, strict=True):
        file.write_bytes(data)
    return encoded_pictures(files, [(number, 0, len(data)) for number, data in enumerate(pictures)])


def collected(folder: Path, pictures: list[bytes], people: int = 2, **options) -> Faces:
    identity = np.arange(len(pictures)) % people
    return collect(folder, plain_set(folder, pictures), identity, "picture {}".format, **options)


def test_a_split_has_its_people_and_no_one_else(faces: Path) -> None:
    splits = [load_faces(faces, split) for split in ("train", "validation", "calibration")]
    assert [(len(of), of.identities) for of in splits] == [(24, 6), (48, 12), (120, 60)]
    people = [set(of.identity.tolist()) for of in splits]
    assert not people[0] & people[1]
    assert not people[0] & people[2]
    assert not people[1] & people[2]


def test_without_a_split_everyone_is_there(faces: Path) -> None:
    (faces / "split.csv").unlink()
    of = load_faces(faces)
    assert (len(of), of.identities) == (192, 78)


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


def test_a_large_set_stays_encoded_and_shows_the_same_pictures(faces: Path) -> None:
    small, large = load_faces(faces, "train"), load_faces(faces, "train", decoded=23)
    assert isinstance(large.pictures, EncodedPictures)
    assert np.array_equal(large.pictures, small.pictures)
    assert np.array_equal(large.crops()[3:9:2], small.crops()[3:9:2])
    assert np.array_equal(large.label, small.label)


@pytest.mark.parametrize("name", ["train.csv", "split.csv"])
def test_a_missing_table_is_named(faces: Path, name: str) -> None:
    (faces / name).unlink()
    with pytest.raises(BadData, match=f"{name} is missing"):
        load_faces(faces, "train")


def test_a_missing_column_is_named(faces: Path) -> None:
    table = faces / "train.csv"
    table.write_text(table.read_text().replace(",family", ",kin", 1))
    with pytest.raises(BadData, match=r"train\.csv:1: the columns family are missing"):
        load_faces(faces, "train")


def test_a_row_of_another_length_is_named(faces: Path) -> None:
    table = faces / "train.csv"
    table.write_text(table.read_text() + "train-000.tar,a.webp,0\n")
    with pytest.raises(BadData, match=r"train\.csv:194: 3 values, the first line names 6"):
        load_faces(faces, "train")


@pytest.mark.parametrize("identity", ["-1", "1.5", "nan", "", "99999999999999999999"])
def test_an_identity_out_of_range_is_named(faces: Path, identity: str) -> None:
    for name in ("train.csv", "split.csv"):
        table = faces / name
        table.write_text(
            table.read_text().replace(",0,drawn", f",{identity},drawn").replace("\n0,", f"\n{identity},")
        )
    with pytest.raises(
        BadData, match=rf"identity '{identity}' is out of range; identities are whole numbers"
    ):
        load_faces(faces, "train")


def test_a_similarity_that_is_no_number_is_refused(faces: Path) -> None:
    table = faces / "train.csv"
    table.write_text(table.read_text().replace("drawn,1.0", "drawn,high", 1))
    with pytest.raises(BadData, match="similarity_to_own_centroid: could not convert"):
        load_faces(faces, "train")


def test_a_split_without_anybody_is_refused(faces: Path) -> None:
    table = faces / "split.csv"
    table.write_text(table.read_text().replace(",train,", ",validation,"))
    with pytest.raises(BadData, match="no face belongs to the split 'train'"):
        load_faces(faces, "train")


def test_who_has_no_split_is_not_passed_over(faces: Path) -> None:
    table = faces / "split.csv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:1] + lines[4:]))
    with pytest.raises(BadData, match=r"split\.csv: 3 identities of train\.csv have no split, among them "):
        load_faces(faces, "train")


def test_an_unknown_split_is_named(faces: Path) -> None:
    table = faces / "split.csv"
    table.write_text(table.read_text().replace(",train,", ",trian,", 1))
    with pytest.raises(BadData, match=r"split 'trian'; it is one of train, validation, calibration"):
        load_faces(faces, "train")


def test_a_table_that_is_no_text_is_named(faces: Path) -> None:
    (faces / "train.csv").write_bytes(b"\xff\x00\xfe\n")
    with pytest.raises(BadData, match=r"train\.csv: not a table in UTF-8"):
        load_faces(faces, "train")


@pytest.mark.parametrize("kept", [0, 100, 70_000])
def test_a_truncated_shard_is_refused(faces: Path, kept: int) -> None:
    shard = faces / "train-000.tar"
    shard.write_bytes(shard.read_bytes()[:kept])
    with pytest.raises(BadData, match=r"train-000\.tar"):
        load_faces(faces, "calibration")


def test_a_picture_that_the_shard_lacks_is_counted(faces: Path) -> None:
    table = faces / "train.csv"
    table.write_text(table.read_text() + "train-000.tar,nobody/0000.webp,0,drawn,1.0,\n")
    with pytest.raises(BadData, match="1 of 25 pictures"):
        load_faces(faces, "train")


def test_a_picture_named_twice_is_refused(faces: Path) -> None:
    table = faces / "train.csv"
    table.write_text(table.read_text() + "train-000.tar,000000/0000.webp,1,drawn,1.0,\n")
    with pytest.raises(BadData, match=r"train-000\.tar:000000/0000\.webp is named twice"):
        load_faces(faces, "train")


@pytest.mark.parametrize("data", [b"", b"GIF89a"])
def test_an_unreadable_picture_is_named(faces: Path, data: bytes) -> None:
    rewritten(faces / "train-000.tar", {"000000/0000.webp": data})
    message = r"1 of 24 pictures cannot be used, among them train-000\.tar:000000/0000\.webp: not a readable picture"
    with pytest.raises(BadData, match=message):
        load_faces(faces, "train")


def test_one_in_a_hundred_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [encoded(level) for level in range(100)]
    of = collected(tmp_path, [*pictures[:7], pictures[7][:50], *pictures[8:]])
    assert levels(of.pictures) == [*range(7), *range(8, 100)]
    assert of.identity.tolist() == [level % 2 for level in levels(of.pictures)]
    assert of.left_out == ("picture 7: not a readable picture",)
    assert "1 left out:\n  picture 7: not a readable picture" in capsys.readouterr().out


def test_two_in_a_hundred_are_too_many(tmp_path: Path) -> None:
    pictures = [encoded(level) for level in range(98)]
    with pytest.raises(
        BadData, match=r"2 of 100 pictures cannot be used, among them picture 98: .* remove them"
    ):
        collected(tmp_path, [*pictures, b"", b""])


def test_a_large_set_leaves_out_the_same(tmp_path: Path) -> None:
    pictures = [b"", *(encoded(level) for level in range(1, 120))]
    large = collected(tmp_path, pictures, decoded=10)
    assert levels(large.pictures) == list(range(1, 120))
    assert len(large.label) == len(large.family) == len(large.source) == len(large.similarity) == 119


def test_who_has_no_picture_left_has_no_label(tmp_path: Path) -> None:
    pictures = [encoded(level) for level in range(120)]
    of = collect(
        tmp_path,
        plain_set(tmp_path, [b"", *pictures[1:]]),
        range(120),
        "picture {}".format,
        people={number: f"person {number}" for number in range(120)},
    )
    assert of.identities == 119
    assert of.people[of.label].tolist() == [f"person {number}" for number in range(1, 120)]


def test_the_order_does_not_depend_on_how_many_read(tmp_path: Path) -> None:
    pictures = [encoded(level % 250) for level in range(300)]
    of = [collected(tmp_path, pictures, workers=workers) for workers in (1, 5)]
    assert np.array_equal(of[0].pictures, of[1].pictures)
    assert levels(of[0].pictures) == [level % 250 for level in range(300)]


def test_a_file_that_may_not_be_opened_counts_as_unreadable(tmp_path: Path) -> None:
    pictures = plain_set(tmp_path, [encoded(level) for level in range(4)])
    (tmp_path / "2.png").unlink()
    with pytest.raises(BadData, match="1 of 4 pictures cannot be used, among them picture 2: No such file"):
        collect(tmp_path, pictures, [0, 1, 0, 1], "picture {}".format)


def test_an_interrupt_does_not_wait_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def decode(data: bytes, name: str) -> np.ndarray:
        looked.append(name)
        return decode_face(data, name)

    monkeypatch.setattr(identities, "_CHUNK", 1)
    monkeypatch.setattr(identities, "decode_face", decode)
    monkeypatch.setattr(identities.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collected(tmp_path, [encoded(level) for level in range(250)], workers=1)
    assert len(looked) < 250


def test_one_identity_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"all 5 pictures are of one identity; .* add other people"):
        collected(tmp_path, [encoded(level) for level in range(5)], people=1)


def test_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="holds no picture"):
        collected(tmp_path, [])


@pytest.mark.needs_data
def test_the_real_splits_have_the_published_sizes() -> None:
    root = datasets()
    assert root is not None
    validation = load_faces(root / "faces", "validation")
    assert (len(validation), validation.identities) == (2441, 431)
    assert (validation.family != "").sum() > 100
    assert validation.left_out == ()
