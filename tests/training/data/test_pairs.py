"""LFW's list is read in its official order, both line forms, or refused at its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.config import datasets
from training.data.identities import BadData
from training.data.pairs import load_pairs, read_pairs


def written(folder: Path, *lines: str) -> Path:
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return folder / "pairs.txt"


def test_both_forms_of_a_line_are_read_in_order(tmp_path: Path) -> None:
    pairs, folds = read_pairs(written(tmp_path, "1\t1", "Abel_Pacheco\t1\t14", "Zico\t2\tAbel_Pacheco\t1"))
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
        (("1\t1", "A\t1\t2", "A 1 B 2"), ":3: expected `name i j`"),
        (("1\t1", "A\tx\t2", "A\t1\tB\t2"), ":2: expected `name i j`"),
        (("1\t2", "A\t1\t2", "A\t1\tB\t2"), "2 pairs, the first line promises 4"),
    ],
)
def test_a_wrong_list_is_refused_at_its_line(tmp_path: Path, lines: tuple[str, ...], named: str) -> None:
    with pytest.raises(BadData, match=named):
        read_pairs(written(tmp_path, *lines))


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
    with pytest.raises(BadData, match=r"3 pictures of pairs\.txt are not in the shards, among them A/A_0001"):
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
