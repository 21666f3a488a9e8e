"""LFW's list is read in its official order, both line forms, or refused at its line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.plain_faces import encoded, levels
from training.config import datasets
from training.data.identities import BadData
from training.data.pairs import load_pairs, read_pairs


def written(folder: Path, *lines: str) -> Path:
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder / "pairs.txt"


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_both_forms_of_a_line_are_read_in_order(tmp_path: Path, mark: str) -> None:
    rows = f"{mark}1\t1", "Abel_Pacheco\t1\t14", "Zico\t2\tAbel_Pacheco\t1"
    pairs, folds = read_pairs(written(tmp_path, *rows))
    assert folds == 1
    assert pairs == [
        ("Abel_Pacheco/Abel_Pacheco_0001", "Abel_Pacheco/Abel_Pacheco_0014", True),
        ("Zico/Zico_0002", "Abel_Pacheco/Abel_Pacheco_0001", False),
    ]


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (("Abel_Pacheco\t1\t4",), ":1: expected the numbers"),
        (("",), ":1: expected the numbers"),
        (("one\t1", "A\t1\t2"), ":1: expected the numbers"),
        (("1\t1", "A\t1\t2", "A\t1 B 2"), ":3: expected `name i j`"),
        (("1\t1", "A\t1\t2", "A\t1\tB\t2\t1"), ":3: expected `name i j`"),
        (("1\t1", "A\t1\t2", "A\t1\tB\t-2"), ":3: expected `name i j`"),
        (("1\t1", "A\t1\t2", ""), ":3: expected `name i j`"),
        (("0\t0",), "0 pairs, the first line promises 0"),
        (("1\t1", "A\tx\t2", "A\t1\tB\t2"), ":2: expected `name i j`"),
        (("1\t2", "A\t1\t2", "A\t1\tB\t2"), "2 pairs, the first line promises 4"),
    ],
)
def test_a_wrong_list_is_refused_at_its_line(tmp_path: Path, lines: tuple[str, ...], named: str) -> None:
    with pytest.raises(BadData, match=named):
        read_pairs(written(tmp_path, *lines))


def test_a_list_without_folds_counts_its_halves_and_blanks_may_separate(tmp_path: Path) -> None:
    pairs, folds = read_pairs(written(tmp_path, "2", "A 1 2", "B 1 3", "A 1 B 2", "B 2 C 1"))
    assert folds == 1
    assert [mated for _, _, mated in pairs] == [True, True, False, False]
    assert pairs[3][:2] == ("B/B_0002", "C/C_0001")


def test_names_with_blanks_need_tabs(tmp_path: Path) -> None:
    pairs, _ = read_pairs(written(tmp_path, "1\t1", "van der Berg\t1\t2", "van der Berg\t1\tB\t2"))
    assert pairs[0][0] == "van der Berg/van der Berg_0001"


@pytest.mark.parametrize("data", [None, b"10\t300\n\xff\xfe"])
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "pairs.txt").write_bytes(data)
    with pytest.raises(BadData, match=r"pairs\.txt: cannot be read as a list of pairs"):
        load_pairs(tmp_path)


def test_pictures_may_lie_in_a_folder_per_person(tmp_path: Path) -> None:
    written(tmp_path, "1\t1", "A\t1\t2", "A\t1\tB\t1")
    for level, name in (
        (10, "A/A_0001.png"),
        (20, "A/A_0002.jpg"),
        (30, "B/B_0001.webp"),
        (40, "B/B_0002.png"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(level, suffix=Path(name).suffix))
    pairs = load_pairs(tmp_path)
    assert pairs.names == ("A/A_0001", "A/A_0002", "B/B_0001")
    assert np.abs(np.array(levels(pairs.crops)) - (10, 20, 30)).max() <= 3
    assert (pairs.first.tolist(), pairs.second.tolist()) == ([0, 0], [1, 2])


def test_a_truncated_shard_is_named(tmp_path: Path, drawn_sets) -> None:
    root = Path(shutil.copytree(drawn_sets.root / "lfw", tmp_path / "lfw"))
    shard = root / "aligned-000.tar"
    shard.write_bytes(shard.read_bytes()[:50_000])
    with pytest.raises(BadData, match=r"aligned-000\.tar: (truncated|cannot be read)"):
        load_pairs(root)


def test_pictures_and_pairs_belong_together(drawn_sets) -> None:
    pairs = load_pairs(drawn_sets.root / "lfw")
    assert pairs.crops.shape == (60, 112, 112, 3)
    assert (len(pairs.same), int(pairs.same.sum()), pairs.folds) == (40, 20, 10)
    for first, second, same in zip(pairs.first, pairs.second, pairs.same, strict=True):
        assert (pairs.names[first].split("/")[0] == pairs.names[second].split("/")[0]) == same


def test_a_pair_s_score_is_the_cosine_of_its_two_pictures(drawn_sets) -> None:
    pairs = load_pairs(drawn_sets.root / "lfw")
    embedding = np.random.default_rng(0).normal(size=(len(pairs.crops), 8))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    expected = embedding[pairs.first[3]] @ embedding[pairs.second[3]]
    assert pairs.similarity(embedding)[3] == pytest.approx(expected)


def test_a_picture_that_no_shard_holds_is_named(tmp_path: Path) -> None:
    written(tmp_path, "1\t1", "A\t1\t2", "A\t1\tB\t2")
    with pytest.raises(
        BadData, match=r"3 pictures of pairs\.txt are in no shard and no folder, among them A/A_0001"
    ):
        load_pairs(tmp_path)


@pytest.mark.needs_data
def test_the_official_list_has_six_thousand_pairs_in_ten_folds() -> None:
    root = datasets()
    assert root is not None
    pairs, folds = read_pairs(root / "lfw" / "pairs.txt")
    assert (len(pairs), folds) == (6000, 10)
    fold = [mated for _, _, mated in pairs[600:1200]]
    assert fold == [True] * 300 + [False] * 300
    assert len({name for one, other, _ in pairs for name in (one, other)}) == 7701
