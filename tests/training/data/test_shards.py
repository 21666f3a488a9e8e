"""WebDataset shards are read sample by sample; a written face set is whole, and its split keeps kin together."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.plain_faces import encoded, levels, plain
from training.data.identities import BadData, load_faces
from training.data.shards import load_webdataset, write_shards, write_split

Members = list[tuple[str, bytes]]


def write_tar(path: Path, members: Members) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def sample(key: str, level: int, identity: int) -> Members:
    return [(f"{key}.png", encoded(level)), (f"{key}.cls", str(identity).encode())]


def named(key: str, level: int, **label: object) -> Members:
    return [(f"{key}.json", json.dumps(label).encode()), (f"{key}.png", encoded(level))]


def test_samples_come_in_the_order_of_shards_and_within_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", [*sample("1", 30, 7), *sample("0", 40, 9)])
    write_tar(tmp_path / "a.tar", [*sample("x/1", 10, 9), *sample("1", 20, 7)])
    of = load_webdataset(tmp_path)
    assert levels(of.pictures) == [10, 20, 30, 40]
    assert of.identity.tolist() == [9, 7, 7, 9]
    assert of.label.tolist() == [1, 0, 0, 1]
    assert (of.people.tolist(), set(of.source.tolist())) == ([], {tmp_path.name})


def test_names_sources_and_families_come_from_json(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "a.tar",
        named("1", 10, identity="bea", source="door")
        + named("2", 20, identity="ada", family="F1")
        + named("3", 30, identity="bea"),
    )
    of = load_webdataset(shard)
    assert of.people.tolist() == ["ada", "bea"]
    assert of.identity.tolist() == [1, 0, 1]
    assert of.source.tolist() == ["door", "a", "a"]
    assert of.family.tolist() == ["", "F1", ""]


def test_a_number_and_more_about_the_sample_go_together(tmp_path: Path) -> None:
    more = ("1.json", b'{"source": "door"}')
    of = load_webdataset(write_tar(tmp_path / "a.tar", [*sample("1", 10, 3), more, *sample("2", 20, 4)]))
    assert (of.identity.tolist(), of.source.tolist()) == ([3, 4], ["door", "a"])


def test_other_files_of_a_sample_do_not_matter(tmp_path: Path) -> None:
    members = [*sample("1", 10, 3), ("1.txt", b"a caption"), *sample("2", 20, 4), ("README", b"")]
    assert len(load_webdataset(write_tar(tmp_path / "a.tar", members))) == 2


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.png", encoded(1))], r"a\.tar: 1 pictures have no identity, among them 1; each needs a \.cls"),
        ([("1.png", encoded(1)), ("1.json", b"{}")], r"1 pictures have no identity"),
        ([("1.cls", b"3")], r"a\.tar: 1 labels have no picture, among them 1"),
        (
            sample("1", 1, -1),
            r"a\.tar:1\.cls: identity -1 is out of range; identities are whole numbers from 0",
        ),
        (sample("1", 1, 2**63), "out of range"),
        ([("1.cls", b"ada"), ("1.png", encoded(1))], r"a\.tar:1\.cls: invalid literal"),
        ([("1.json", b'{"identity"'), ("1.png", encoded(1))], r"a\.tar:1\.json: "),
        ([("1.json", b"[3]"), ("1.png", encoded(1))], r"a\.tar:1\.json: expected an object with `identity`"),
        (named("1", 1, identity=1.5), r"identity 1\.5; expected a whole number or a name"),
        (named("1", 1, identity=True), r"identity True; expected a whole number or a name"),
        (named("1", 1, identity=""), r"identity ''; expected a whole number or a name"),
        ([*sample("1", 1, 1), ("1.jpg", encoded(1))], r"a\.tar:1\.jpg: a second picture of one sample"),
        (
            sample("1", 1, 1) + named("2", 2, identity="ada"),
            "1 of 2 samples number their identity, the others name it",
        ),
        ([], "holds no picture"),
        (sample("1", 1, 1) + sample("2", 2, 1), "of one identity"),
        (
            [*sample("1", 1, 1), ("2.png", b""), ("2.cls", b"2")],
            r"among them a\.tar:2: not a readable picture",
        ),
    ],
)
def test_a_wrong_sample_is_refused_by_name(tmp_path: Path, members: Members, message: str) -> None:
    with pytest.raises(BadData, match=message):
        load_webdataset(write_tar(tmp_path / "a.tar", members))


def test_a_truncated_shard_is_refused_by_name(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", sample("1", 1, 1))
    shard = write_tar(tmp_path / "b.tar", sample("2", 2, 2) + sample("3", 3, 3))
    shard.write_bytes(shard.read_bytes()[:2500])
    with pytest.raises(BadData, match=r"b\.tar"):
        load_webdataset(tmp_path)


ROWS = [
    (encoded(10), "bea", "door"),
    (plain(20), "ada", "street"),
    (encoded(30, suffix=".jpg"), "bea", "street"),
    (plain(40, side=120), "cleo", "door"),
]


def test_a_written_set_is_read_again(tmp_path: Path) -> None:
    assert write_shards(tmp_path / "set", ROWS, per_shard=3) == 4
    of = load_faces(tmp_path / "set")
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "train-00000.tar",
        "train-00001.tar",
        "train.csv",
    ]
    assert np.abs(np.array(levels(of.pictures)) - (10, 20, 30, 40)).max() <= 3
    assert of.identity.tolist() == [0, 1, 0, 2]
    assert of.people[of.label].tolist() == ["bea", "ada", "bea", "cleo"]
    assert of.source.tolist() == ["door", "street", "street", "door"]
    assert (set(of.family.tolist()), set(of.similarity.tolist())) == ({""}, {1.0})


def test_encoded_pictures_are_kept_byte_for_byte(tmp_path: Path) -> None:
    write_shards(tmp_path / "set", ROWS)
    assert load_faces(tmp_path / "set", decoded=0).pictures.encoded(2) == ROWS[2][0]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_shards(tmp_path / name, ROWS, per_shard=2)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_an_interrupted_set_has_no_table_and_is_written_anew(tmp_path: Path) -> None:
    def stopped() -> Iterator[tuple[bytes, str, str]]:
        yield from (ROWS * 3)[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, stopped(), per_shard=2)
    assert not (tmp_path / "train.csv").exists()
    write_shards(tmp_path, ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train-00000.tar", "train.csv"]
    assert len(load_faces(tmp_path)) == 4


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "train-000.tar").write_bytes(b"precious")
    with pytest.raises(BadData, match="not empty; name a new folder"):
        write_shards(tmp_path, ROWS)
    assert (tmp_path / "train-000.tar").read_bytes() == b"precious"


def test_nothing_to_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="there is no picture to write"):
        write_shards(tmp_path, [])


def test_bytes_that_are_no_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="ada: a picture that is not JPEG, PNG, WebP or BMP"):
        write_shards(tmp_path, [(b"GIF89a", "ada", "door")])


def table(root: Path, rows: list[tuple[int, str, str]]) -> Path:
    """A train.csv of (identity, source, family)."""
    with (root / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["shard", "file", "identity", "source", "similarity_to_own_centroid", "family"])
        writer.writerows(
            [("a.tar", f"{n}.webp", who, source, 1.0, family) for n, (who, source, family) in enumerate(rows)]
        )
    return root


def split_of(root: Path) -> dict[str, str]:
    with (root / "split.csv").open(newline="") as file:
        return {row["identity"]: row["split"] for row in csv.DictReader(file)}


def test_each_source_is_split_in_the_asked_shares(tmp_path: Path) -> None:
    rows = [(who, f"source {who % 3}", "") for who in range(600) for _ in range(1 + who % 4)]
    sizes = write_split(table(tmp_path, rows), seed=3)
    assert sizes == {"train": 510, "validation": 30, "calibration": 60}
    of = split_of(tmp_path)
    for source in range(3):
        shares = Counter(split for who, split in of.items() if int(who) % 3 == source)
        assert abs(shares["validation"] - 10) <= 1
        assert abs(shares["calibration"] - 20) <= 1


def test_a_family_lies_in_one_split_even_through_a_third_member(tmp_path: Path) -> None:
    rows = [(who, "fiw", f"F{who // 4}") for who in range(200)]
    rows += [
        (4 * family, "fiw", f"F{family + 1}") for family in range(0, 50, 2)
    ]  # married into the next family
    write_split(table(tmp_path, rows), seed=1, validation=0.2, calibration=0.2)
    of = split_of(tmp_path)
    for family in range(0, 50, 2):
        assert len({of[str(who)] for who in range(4 * family, 4 * family + 8)}) == 1
    sizes = Counter(of.values())
    assert abs(sizes["validation"] - 40) <= 8
    assert abs(sizes["calibration"] - 40) <= 8


def test_the_split_says_how_many_faces_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    splits = []
    for seed in (1, 1, 2):
        root = tmp_path / str(len(splits))
        root.mkdir()
        write_split(table(root, [(who, "x", "") for who in range(100) for _ in range(3)]), seed)
        splits.append((root / "split.csv").read_text())
    assert splits[0] == splits[1] != splits[2]
    assert splits[0].splitlines()[0] == "identity,split,faces"
    assert all(line.endswith(",3") for line in splits[0].splitlines()[1:])


def test_a_written_set_with_its_split_is_trainable(tmp_path: Path) -> None:
    write_shards(tmp_path, [(encoded(level), f"person {level // 2}", "door") for level in range(80)])
    sizes = write_split(tmp_path, seed=5)
    sets = {split: load_faces(tmp_path, split) for split in sizes}
    assert (
        {split: of.identities for split, of in sets.items()}
        == sizes
        == {"train": 34, "validation": 2, "calibration": 4}
    )
    assert sum(len(of) for of in sets.values()) == 80


def test_an_existing_split_stays(tmp_path: Path) -> None:
    table(tmp_path, [(who, "x", "") for who in range(100)])
    write_split(tmp_path, seed=1)
    before = (tmp_path / "split.csv").read_text()
    with pytest.raises(BadData, match="a split is fixed"):
        write_split(tmp_path, seed=2)
    assert (tmp_path / "split.csv").read_text() == before


def test_too_few_people_for_a_split_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        BadData, match="6 identities leave nobody for validation; ask for larger shares, or add people"
    ):
        write_split(table(tmp_path, [(who, "x", "") for who in range(6)]), seed=1)
    assert write_split(tmp_path, 1, validation=0.34, calibration=0.34) == {
        "train": 2,
        "validation": 2,
        "calibration": 2,
    }


def test_a_share_of_none_leaves_a_split_out(tmp_path: Path) -> None:
    sizes = write_split(table(tmp_path, [(who, "x", "") for who in range(20)]), 1, calibration=0)
    assert sizes == {"train": 19, "validation": 1, "calibration": 0}


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.1), (1.0, 0.1)])
def test_impossible_shares_are_refused(tmp_path: Path, shares: tuple[float, float]) -> None:
    with pytest.raises(BadData, match="leave nobody to train on"):
        write_split(table(tmp_path, [(who, "x", "") for who in range(20)]), 1, *shares)
