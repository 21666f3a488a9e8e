"""Tar shards: sets in the WebDataset convention, and the writer of face sets with their tables and their split.

A WebDataset sample is the files of one shard whose names agree up to the first dot: `0001.jpg` with `0001.cls` (a whole
number) or `0001.json` (`{"identity": number or name, "source"?: …, "family"?: …}`). Plain tar, nothing compressed.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from training.data.identities import COLUMNS, DECODED, Faces, Split, collect, read_table
from training.data.pictures import SUFFIXES, BadData, encode_face, encoded_pictures, members, read_bytes

PARTIAL = "train.csv.partial"  # marks a face set that is being written


def load_webdataset(path: Path, *, decoded: int = DECODED) -> Faces:
    """`path`: one tar, or a folder of them that are read in the order of their names.

    Identities that are names are numbered in the names' order; a set has names or numbers, not both. Raises BadData
    with the shard and the sample, and as `collect` does.
    """
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    samples = [sample for number, shard in enumerate(shards) for sample in _samples(shard, number)]
    names = sorted({of.identity for of in samples if isinstance(of.identity, str)})
    numbered = sum(isinstance(of.identity, int) for of in samples)
    if names and numbered:
        raise BadData(
            f"{path}: {numbered} of {len(samples)} samples number their identity, the others name it"
        )
    number_of = {name: number for number, name in enumerate(names)}
    return collect(
        path,
        encoded_pictures(shards, [(of.shard, of.offset, of.length) for of in samples]),
        [of.identity if isinstance(of.identity, int) else number_of[of.identity] for of in samples],
        lambda row: f"{shards[samples[row].shard].name}:{samples[row].key}",
        source=[of.source or path.stem for of in samples],
        family=[of.family for of in samples],
        people=dict(enumerate(names)),
        decoded=decoded,
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """One picture: who it shows, and where it lies."""

    key: str
    shard: int
    offset: int
    length: int
    identity: int | str
    source: str
    family: str


def _samples(shard: Path, number: int) -> list[_Sample]:
    """In the order of the pictures in the shard."""
    pictures: dict[str, tuple[int, int]] = {}
    labels: dict[str, dict[str, Any]] = {}
    for name, offset, length in members(shard):
        folder, slash, file = name.rpartition("/")
        stem, _, suffix = file.partition(".")
        key, suffix = f"{folder}{slash}{stem}", f".{suffix.lower()}"
        if suffix in SUFFIXES:
            if key in pictures:
                raise BadData(f"{shard.name}:{name}: a second picture of one sample")
            pictures[key] = offset, length
        elif suffix in (".cls", ".json"):
            labels.setdefault(key, {}).update(
                _label(read_bytes(shard, offset, length), suffix, f"{shard.name}:{name}")
            )
    if unlabelled := [key for key in pictures if "identity" not in labels.get(key, {})]:
        raise BadData(
            f"{shard.name}: {len(unlabelled)} pictures have no identity, among them {unlabelled[0]}; each needs a "
            ".cls, or a .json with `identity`, beside it"
        )
    if lonely := [key for key in labels if key not in pictures]:
        raise BadData(f"{shard.name}: {len(lonely)} labels have no picture, among them {lonely[0]}")
    return [
        _Sample(
            key,
            number,
            *place,
            labels[key]["identity"],
            sys.intern(str(labels[key].get("source", ""))),
            sys.intern(str(labels[key].get("family", ""))),
        )
        for key, place in pictures.items()
    ]


def _label(data: bytes, suffix: str, name: str) -> dict[str, Any]:
    """What a .cls or .json says. Raises BadData for anything but a number from 0 or a name."""
    try:
        label = {"identity": int(data)} if suffix == ".cls" else json.loads(data)
    except ValueError as error:
        raise BadData(f"{name}: {error}") from error
    if not isinstance(label, dict):
        raise BadData(f"{name}: expected an object with `identity`")
    identity = label.get("identity", 0)
    if isinstance(identity, bool) or not isinstance(identity, int | str) or identity == "":
        raise BadData(f"{name}: identity {identity!r}; expected a whole number or a name")
    if isinstance(identity, int) and not 0 <= identity < 2**63:
        raise BadData(f"{name}: identity {identity} is out of range; identities are whole numbers from 0")
    return label


def write_shards(
    root: Path, rows: Iterable[tuple[bytes | np.ndarray, str, str]], *, per_shard: int = 10_000
) -> int:
    """Write a face set that `load_faces` reads: train-00000.tar …, then train.csv. Returns the number of pictures.

    rows: (picture, the identity's name, the source's name), a picture as the bytes of a file, which are kept, or as
    uint8 [120, 120, 3] or [112, 112, 3] RGB, which becomes WebP. Identities are numbered as they first appear. A set
    that has its table is whole; one whose writing was interrupted is written anew. The same rows give the same bytes.
    Raises BadData for a folder that holds something else, and for no rows.
    """
    _make_room(root)
    writing, numbers, pictures = iter(rows), dict[str, int](), Counter[str]()
    with (root / PARTIAL).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS["train.csv"], "name"])
        for shard in count():
            first = next(writing, None)
            if first is None:
                break
            tar_name = f"train-{shard:05d}.tar"
            with tarfile.open(root / tar_name, "w") as tar:
                for picture, who, source in chain([first], islice(writing, per_shard - 1)):
                    data = picture if isinstance(picture, bytes) else encode_face(picture)
                    identity = numbers.setdefault(who, len(numbers))
                    name = f"{identity:06d}/{pictures[who]:04d}{_suffix(data, who)}"
                    pictures[who] += 1
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                    table.writerow([tar_name, name, identity, source, 1.0, "", who])
    if not pictures:
        raise BadData(f"{root}: there is no picture to write")
    (root / PARTIAL).replace(root / "train.csv")
    return pictures.total()


def _make_room(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if (root / PARTIAL).is_file():
        for left in root.glob("train-*.tar"):
            left.unlink()
    elif any(root.iterdir()):
        raise BadData(f"{root}: not empty; name a new folder for the face set")


def _suffix(data: bytes, who: str) -> str:
    for magic, suffix in ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"RIFF", ".webp"), (b"BM", ".bmp")):
        if data.startswith(magic):
            return suffix
    raise BadData(f"{who}: a picture that is not JPEG, PNG, WebP or BMP")


def write_split(
    root: Path, seed: int, validation: float = 0.05, calibration: float = 0.1
) -> dict[Split, int]:
    """Give every identity of `root`'s train.csv its split, in split.csv. Returns how many identities each has.

    validation, calibration: shares of the identities in 0–1. Each source is split in these shares as nearly as whole
    families allow, and a family lies in one split. Raises BadData for shares that leave a split without people, and
    where a split.csv is already: another one would train on people that earlier figures were measured on.
    """
    if (root / "split.csv").exists():
        raise BadData(
            f"{root / 'split.csv'} exists; a split is fixed, because earlier results were measured on it"
        )
    if min(validation, calibration) < 0 or validation + calibration >= 1:
        raise BadData(f"shares of {validation} and {calibration} leave nobody to train on")
    table = read_table(root / "train.csv")
    faces = Counter(table["identity"])
    shares: dict[Split, float] = {"validation": validation, "calibration": calibration}
    owed = dict.fromkeys(shares, 0.0)
    split_of: dict[str, Split] = {}
    for group in _kin(table, seed):
        owed = {split: owed[split] + share * len(group) for split, share in shares.items()}
        neediest = max(owed, key=lambda split: owed[split])
        if owed[neediest] >= len(group) / 2:
            owed[neediest] -= len(group)
            split_of |= dict.fromkeys(group, neediest)
        else:
            split_of |= dict.fromkeys(group, "train")
    sizes = Counter(split_of.values())
    if empty := [split for split in get_args(Split) if not sizes[split] and shares.get(split, 1)]:
        raise BadData(
            f"{root}: {len(faces)} identities leave nobody for {empty[0]}; ask for larger shares, or add people"
        )
    partial = root / "split.csv.partial"
    with partial.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["identity", "split", "faces"], *([who, split_of[who], faces[who]] for who in faces)]
        )
    partial.replace(root / "split.csv")
    return {split: sizes[split] for split in get_args(Split)}


def _kin(table: Mapping[str, Sequence[str]], seed: int) -> list[list[str]]:
    """Identities in groups that stay together, source by source, within one in an order of the seed's choosing.

    A group is whoever is linked by families, be it through others (a person can be named in two families); it counts
    for the source of its first face.
    """
    people, who = np.unique(table["identity"], return_inverse=True)
    names, family = np.unique(table["family"], return_inverse=True)
    known = names[family] != ""
    links = (who[known], len(people) + family[known])
    graph = coo_array((np.ones(len(links[0])), links), shape=(len(people) + len(names),) * 2)
    group = connected_components(graph, directed=False)[1][: len(people)]
    first = np.unique(group[who], return_index=True)[1]
    source = np.array(table["source"])[first]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(source[order], kind="stable")]
    members_of = np.split(
        people[np.argsort(group, kind="stable")], np.cumsum(np.unique(group, return_counts=True)[1])[:-1]
    )
    return [members_of[number].tolist() for number in order]
