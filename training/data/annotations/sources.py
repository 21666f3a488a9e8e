"""Which format a set of boxed photographs comes in: recognised by what lies there, and said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from training.data.annotations.coco import read_coco
from training.data.annotations.entries import Annotations
from training.data.annotations.folders import files_below
from training.data.annotations.intake import TOLERATED, photographs
from training.data.annotations.voc import read_voc
from training.data.annotations.wider import read_mat, read_retinaface, read_shards, read_text
from training.data.annotations.yolo import is_yolo, read_yolo
from training.data.photographs import Photograph
from training.data.pictures import SUFFIXES, BadData

SUPPORTED = """a set of boxed photographs is one of
  wider_face_*_bbx_gt.txt or wider_face_*.mat, WIDER FACE's own lists
  label.txt, RetinaFace's list with landmarks
  a COCO JSON
  a folder of YOLO text files or Pascal VOC XML files, one for each picture
  a folder with annotations.json and tar shards
or a folder that holds one of the lists"""

Read = Callable[[Path, Path | None, Sequence[str] | None], Annotations]


def open_photographs(
    path: Path,
    *,
    pictures: Path | None = None,
    longest: int | None = None,
    faces: Sequence[str] | None = None,
    tolerated: float = TOLERATED,
) -> Iterator[Photograph]:
    """The photographs of the set at `path`, decoded one at a time and scaled down to `longest` pixels. Prints the
    format that it took, and in the end what it left out.

    pictures: their folder, where it is not near the list; faces: the classes that are faces, where there are several.
    Raises BadData as `open_annotations` and `photographs` do.
    """
    return photographs(open_annotations(path, pictures, faces), longest, tolerated)


def open_annotations(
    path: Path, pictures: Path | None = None, faces: Sequence[str] | None = None
) -> Annotations:
    """What the set at `path` says, its pictures not yet looked at. Prints the format.

    Raises BadData for what no reader takes, listing what they do, and for a set without pictures.
    """
    of = _reader(path)(path, pictures, faces)
    if not of.entries:
        first = f", {of.findings[0]}" if of.findings else ""
        raise BadData(f"{path}: {of.form} without a picture that has an annotation{first}")
    tqdm.write(f"{path}: {of.form}")
    return of


def _reader(path: Path) -> Read:
    if path.is_file():
        return _of_file(path)
    if not path.is_dir():
        raise BadData(f"{path}: no such file or folder; {SUPPORTED}")
    if (path / "annotations.json").is_file() and any(path.glob("*.tar")):
        return lambda root, pictures, faces: read_shards(root)
    lists = [*path.glob("label.txt"), *path.glob("*_bbx_gt.txt"), *path.glob("*.mat"), *path.glob("*.json")]
    if len(lists) > 1:
        raise BadData(f"{path}: holds {', '.join(sorted(of.name for of in lists))}; name one of them")
    if lists:
        read = _of_file(lists[0])
        return lambda root, pictures, faces: read(lists[0], pictures, faces)
    if files_below(path, (".xml",)):
        return read_voc
    if is_yolo(path):
        return read_yolo
    raise BadData(f"{path}: {'no annotation' if any(path.iterdir()) else 'an empty folder'}; {SUPPORTED}")


def _of_file(file: Path) -> Read:
    match file.suffix.lower():
        case ".mat":
            return lambda list_, pictures, faces: read_mat(list_, pictures)
        case ".json":
            return read_coco
        case ".txt":
            lines = file.read_text("utf-8-sig", errors="replace").splitlines()
            first = next((line for line in lines if line.strip()), "")
            if first.startswith("#"):
                return lambda list_, pictures, faces: read_retinaface(list_, pictures)
            if first.strip().lower().endswith(SUFFIXES):
                return lambda list_, pictures, faces: read_text(list_, pictures)
            raise BadData(f"{file}:1: no picture's name; of YOLO labels name the folder; {SUPPORTED}")
        case _:
            raise BadData(f"{file}: not a list of boxes; {SUPPORTED}")
