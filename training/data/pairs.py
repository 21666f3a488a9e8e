"""LFW's verification pairs: the official list and the aligned pictures that it names.

The order of the list is the protocol (ten folds of mated, then non-mated pairs); it is never sorted or shuffled.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.identities import BORDER, BadData, decode_face


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

    The first line is `folds<TAB>pairs per half fold`; then `name i j` (mated) or `name i other j`. Raises BadData with
    the line's number.
    """
    lines = path.read_text().splitlines()
    header = lines[0].split("\t") if lines else []
    if len(header) != 2 or not all(part.isdigit() for part in header):
        raise BadData(f"{path}:1: expected the numbers of folds and of pairs, separated by a tab")
    pairs = []
    for number, line in enumerate(lines[1:], 2):
        match line.split("\t"):
            case [name, i, j] if i.isdigit() and j.isdigit():
                pairs.append((_picture(name, i), _picture(name, j), True))
            case [name, i, other, j] if i.isdigit() and j.isdigit():
                pairs.append((_picture(name, i), _picture(other, j), False))
            case _:
                raise BadData(f"{path}:{number}: expected `name i j` or `name i other j`, separated by tabs")
    folds, half = int(header[0]), int(header[1])
    if len(pairs) != 2 * folds * half:
        raise BadData(f"{path}: {len(pairs)} pairs, the first line promises {2 * folds * half}")
    return pairs, folds


def load_pairs(root: Path) -> Pairs:
    """Read `pairs.txt` and `aligned-*.tar` below `root`. Raises BadData for a pair whose picture is not there."""
    pairs, folds = read_pairs(root / "pairs.txt")
    wanted = {name for first, second, _ in pairs for name in (first, second)}
    pictures: dict[str, np.ndarray] = {}
    for shard in sorted(root.glob("aligned-*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                name = member.name.removesuffix(".webp")
                file = tar.extractfile(member) if name in wanted else None
                if file is not None:
                    pictures[name] = decode_face(file.read(), f"{shard.name}:{member.name}")
    missing = sorted(wanted - set(pictures))
    if missing:
        raise BadData(
            f"{root}: {len(missing)} pictures of pairs.txt are not in the shards, among them {missing[0]}"
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
