"""Which format a set of faces, or of pairs, comes in: recognised by what lies there, and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from training.data.folder import load_folder
from training.data.identities import DECODED, Faces, Split, load_faces
from training.data.packs import load_pack
from training.data.pairs import Pairs, load_pairs
from training.data.pictures import BadData
from training.data.recordio import load_recordio
from training.data.shards import PARTIAL, load_webdataset

SUPPORTED = """a set of faces is one of
  a folder with train.csv, split.csv and tar shards (what `align` writes)
  a folder of folders, one for each person, with aligned pictures of 112 × 112 or 120 × 120 pixels
  a .rec file with its .idx beside it, or a folder that holds one
  tar shards in the WebDataset convention, or one of them
and a set of pairs is a folder with pairs.txt, or a .bin pack"""


def open_faces(path: Path, split: Split | None = None, *, decoded: int = DECODED) -> Faces:
    """The faces at `path`, or those of a split, which only a set with tables has. Prints the format that it took.

    Sets of more than `decoded` pictures stay encoded. Raises BadData for what no reader takes, listing what they do,
    and as the readers do.
    """
    form, load = _reader(path)
    if split is not None and load is not load_faces:
        raise BadData(
            f"{path}: {form} has no split {split!r}; only a set with train.csv and split.csv has: align the pictures "
            "into one"
        )
    tqdm.write(f"{path}: {form}")
    return load_faces(path, split, decoded=decoded) if load is load_faces else load(path, decoded=decoded)


def open_pairs(path: Path) -> Pairs:
    """The verification pairs at `path`: a .bin pack, or a folder with pairs.txt. Raises BadData."""
    if path.suffix == ".bin" and path.is_file():
        return load_pack(path)
    if (path / "pairs.txt").is_file():
        return load_pairs(path)
    raise BadData(f"{path}: no pairs found; {SUPPORTED}")


def _reader(path: Path) -> tuple[str, Callable[..., Faces]]:
    """What lies at `path`, in words, and who reads it."""
    if path.is_file() and path.suffix in (".rec", ".tar"):
        return (
            ("RecordIO", load_recordio) if path.suffix == ".rec" else ("a WebDataset shard", load_webdataset)
        )
    if not path.is_dir():
        raise BadData(
            f"{path}: {'not a set of faces' if path.exists() else 'no such file or folder'}; {SUPPORTED}"
        )
    if (path / PARTIAL).is_file():
        raise BadData(f"{path}: its writing was interrupted, or goes on; write it again")
    if (path / "train.csv").is_file():
        return "a face set with tables", load_faces
    if any(path.glob("*.rec")):
        return "RecordIO", load_recordio
    if any(path.glob("*.tar")):
        return "WebDataset shards", load_webdataset
    if any(of.is_dir() for of in path.iterdir()):
        return "a folder per person", load_folder
    raise BadData(
        f"{path}: {'not a set of faces' if any(path.iterdir()) else 'an empty folder'}; {SUPPORTED}"
    )
