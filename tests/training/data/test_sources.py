"""Whatever the format, the same faces come out; what is no format is refused with the list of those that are."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.data.plain_faces import encoded, levels
from training.data.identities import BadData
from training.data.recordio import write_recordio
from training.data.shards import write_shards
from training.data.sources import open_faces, open_pairs

LEVELS = [10, 20, 30, 40]


def tables(root: Path) -> Path:
    write_shards(root, [(encoded(level), f"p{level // 25}", "door") for level in LEVELS])
    return root


def folders(root: Path) -> Path:
    for level in LEVELS:
        (root / f"p{level // 25}").mkdir(parents=True, exist_ok=True)
        (root / f"p{level // 25}" / f"{level}.png").write_bytes(encoded(level))
    return root


def recordio(root: Path) -> Path:
    write_recordio(root, [(encoded(level), level // 25) for level in LEVELS])
    return root


def webdataset(root: Path) -> Path:
    root.mkdir()
    with tarfile.open(root / "a.tar", "w") as tar:
        for level in LEVELS:
            for suffix, data in (("png", encoded(level)), ("cls", b"%d" % (level // 25))):
                path = root.parent / "member"
                path.write_bytes(data)
                tar.add(path, f"{level}.{suffix}")
    return root


@pytest.mark.parametrize(
    ("make", "inside", "form"),
    [
        (tables, "", "a face set with tables"),
        (folders, "", "a folder per person"),
        (recordio, "", "RecordIO"),
        (recordio, "train.rec", "RecordIO"),
        (webdataset, "", "WebDataset shards"),
        (webdataset, "a.tar", "a WebDataset shard"),
    ],
)
@pytest.mark.parametrize("decoded", [2, 50])
def test_every_format_gives_the_same_faces_and_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], Path],
    inside: str,
    form: str,
    decoded: int,
) -> None:
    path = make(tmp_path / "set") / inside
    of = open_faces(path, decoded=decoded)
    assert levels(of.pictures[:]) == LEVELS
    assert of.crops().shape == (4, 112, 112, 3)
    assert of.label.tolist() == [0, 0, 1, 1]
    assert f"{path}: {form}\n" in capsys.readouterr().out


def test_a_set_with_tables_has_splits(drawn_sets) -> None:
    assert len(open_faces(drawn_sets.root / "faces", "validation")) == 48
    assert len(open_faces(drawn_sets.root / "faces")) == 192


@pytest.mark.parametrize("make", [folders, recordio, webdataset])
def test_the_others_have_none(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    with pytest.raises(BadData, match=r"has no split 'train'; only a set with train\.csv and split\.csv has"):
        open_faces(make(tmp_path / "set"), "train")


def test_an_empty_folder_and_a_missing_one_are_answered_with_the_formats(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    for name, what in (
        ("empty", "an empty folder"),
        ("none", "no such file or folder"),
        ("other", "not a set of faces"),
        ("other/notes.txt", "not a set of faces"),
    ):
        with pytest.raises(
            BadData, match=f"{name}: {what}; a set of faces is one of\n.*train.csv"
        ) as refused:
            open_faces(tmp_path / name)
        assert ".rec file" in str(refused.value)
        assert "WebDataset" in str(refused.value)


def test_a_set_that_is_still_being_written_is_not_taken_for_another_format(tmp_path: Path) -> None:
    root = tables(tmp_path / "set")
    (root / "train.csv").rename(root / "train.csv.partial")
    with pytest.raises(BadData, match="its writing was interrupted, or goes on; write it again"):
        open_faces(root)


def test_pairs_come_as_a_list_or_as_a_pack(tmp_path: Path, drawn_sets) -> None:
    assert len(open_pairs(drawn_sets.root / "lfw").same) == 40
    (tmp_path / "lfw.bin").write_bytes(
        pickle.dumps(([encoded(level) for level in range(20)], [True, False] * 5))
    )
    assert len(open_pairs(tmp_path / "lfw.bin").same) == 10
    for path in (tmp_path, tmp_path / "none.bin"):
        with pytest.raises(BadData, match=r"(?s)no pairs found; .*pairs\.txt, or a \.bin pack"):
            open_pairs(path)
