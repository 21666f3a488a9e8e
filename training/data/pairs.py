"""Verification pairs in LFW's form: the official list and the aligned pictures that it names.

The order of the list is the protocol (ten folds of mated, then non-mated pairs); it is never sorted or shuffled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.pictures import BORDER, SUFFIXES, BadData, decode_face, members, read_bytes


@dataclass(frozen=True)
class Pairs:
    """crops: uint8 [m, 112, 112, 3] RGB; first, second: int64 [n] rows of `crops`; same: bool [n]; folds: how many."""

    crops: np.ndarray
    names: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    folds: int

    def similarity(self, embedding: np.ndarray) -> np.ndarray:
        """Cosine of each pair, float32 [n], from unit vectors [m, d] of `crops`."""
        return np.asarray((embedding[self.first] * embedding[self.second]).sum(1))


def read_pairs(path: Path) -> tuple[list[tuple[str, str, bool]], int]:
    """The list as (picture, picture, mated) by name `Person/Person_0001`, and the number of folds.

    The first line is `folds<TAB>pairs per half fold`, or the pairs per half of a list without folds; then `name i j`
    (mated) or `name i other j`. Blanks may stand for a line's tabs. Raises BadData with the line's number.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: cannot be read as a list of pairs ({error})") from error
    header = lines[0].split() if lines else []
    if len(header) not in (1, 2) or not all(part.isdigit() for part in header):
        raise BadData(f"{path}:1: expected the numbers of folds and of pairs, separated by a tab")
    pairs = []
    for number, line in enumerate(lines[1:], 2):
        match line.split("\t" if "\t" in line else None):
            case [name, i, j] if i.isdigit() and j.isdigit():
                pairs.append((_picture(name, i), _picture(name, j), True))
            case [name, i, other, j] if i.isdigit() and j.isdigit():
                pairs.append((_picture(name, i), _picture(other, j), False))
            case _:
                raise BadData(f"{path}:{number}: expected `name i j` or `name i other j`, separated by tabs")
    folds, half = int(header[0]) if len(header) == 2 else 1, int(header[-1])
    if len(pairs) != 2 * folds * half or not pairs:
        raise BadData(f"{path}: {len(pairs)} pairs, the first line promises {2 * folds * half}")
    return pairs, folds


def load_pairs(root: Path) -> Pairs:
    """Read `pairs.txt` and the pictures below `root`: `aligned-*.tar`, or else a folder per person.

    Raises BadData for a pair whose picture is not there.
    """
    pairs, folds = read_pairs(root / "pairs.txt")
    wanted = {name for first, second, _ in pairs for name in (first, second)}
    shards = sorted(root.glob("aligned-*.tar"))
    pictures = _from_shards(shards, wanted) if shards else _from_folders(root, wanted)
    missing = sorted(wanted - set(pictures))
    if missing:
        raise BadData(
            f"{root}: {len(missing)} pictures of pairs.txt are in no shard and no folder, among them {missing[0]}"
        )
    names = tuple(sorted(pictures))
    place = {name: index for index, name in enumerate(names)}
    return Pairs(
        crops=np.stack([pictures[name] for name in names])[:, BORDER:-BORDER, BORDER:-BORDER],
        names=names,
        first=np.array([place[first] for first, _, _ in pairs]),
        second=np.array([place[second] for _, second, _ in pairs]),
        same=np.array([mated for _, _, mated in pairs]),
        folds=folds,
    )


def _picture(person: str, number: str) -> str:
    return f"{person}/{person}_{int(number):04d}"


def _from_shards(shards: list[Path], wanted: set[str]) -> dict[str, np.ndarray]:
    return {
        stem: decode_face(read_bytes(shard, offset, length), f"{shard.name}:{name}")
        for shard in shards
        for name, offset, length in members(shard)
        if (stem := name.rpartition(".")[0]) in wanted
    }


def _from_folders(root: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    return {
        name: decode_face(file.read_bytes(), str(file))
        for name in wanted
        for file in (root / f"{name}{suffix}" for suffix in SUFFIXES)
        if file.is_file()
    }
