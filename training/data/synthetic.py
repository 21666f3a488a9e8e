"""The synthetic sets: drawn people and scenes, written in the very folders and formats of the real data.

The same readers, trainings and gates run on them, so that a clone without data still walks the whole way. Nothing
about faces follows from a result on drawings.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.io import savemat
from tqdm import tqdm

from bundle.decode import Floats
from training.data.drawing import Picture, aligned
from training.data.identities import SIDE
from training.data.scenes import DrawnScene, draw_scene

# Numbers of drawn people: one range a purpose, so that no one is trained on and measured on.
TRAIN, VALIDATION, CALIBRATION, PAIRS = 0, 100_000, 200_000, 300_000
TERMS = "drawn by this program; Apache-2.0, like the code"
DRAWN_BY = 2  # raise it when the drawing changes: sets on disk are drawn anew
EVENT = "0--Drawn"
OFFICIAL_WIDTH = 1024


@dataclass(frozen=True)
class SyntheticSize:
    """How much is drawn: people of each split with `pictures` each, verification pairs, scenes."""

    train_people: int = 160
    validation_people: int = 60
    calibration_people: int = 150
    pictures: int = 8
    calibration_pictures: int = 4
    pairs_per_fold: int = 30  # mated, and as many non-mated
    train_scenes: int = 320
    validation_scenes: int = 60
    masks: int = 20


SMALL = SyntheticSize(60, 24, 60, 6, 3, 10, 96, 24, 8)


def write_synthetic(root: Path, size: SyntheticSize, landmarks: Path) -> Path:
    """Draw the sets below `root` (faces, lfw, wider, masks) and the scenes' five points as `landmarks` (npz).

    Sets of the same size that are already whole are kept. Returns `root`.
    """
    done, wanted = root / "drawn.json", json.dumps({"drawn_by": DRAWN_BY, **asdict(size)})
    if done.is_file() and done.read_text() == wanted and landmarks.is_file():
        return root
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    _faces(root / "faces", size)
    _pairs(root / "lfw", size.pairs_per_fold)
    points = _wider(root / "wider", size) | _masks(root / "masks", size.masks)
    (root / "TERMS").write_text(f"{TERMS}\n")
    landmarks.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(landmarks, **points)  # type: ignore[arg-type]
    done.write_text(wanted)
    return root


def _faces(root: Path, size: SyntheticSize) -> None:
    root.mkdir()
    splits = {
        "train": (TRAIN, size.train_people, size.pictures),
        "validation": (VALIDATION, size.validation_people, size.pictures),
        "calibration": (CALIBRATION, size.calibration_people, size.calibration_pictures),
    }
    people = [(s, start + i, n) for s, (start, count, n) in splits.items() for i in range(count)]
    with _Shard(root / "train-000.tar") as shard, (root / "train.csv").open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["shard", "file", "identity", "source", "similarity_to_own_centroid", "family"])
        for _, identity, pictures in tqdm(people, desc="drawing people", unit="person", mininterval=5):
            for variation in range(pictures):
                name = f"{identity:06d}/{variation:04d}.webp"
                shard.add(name, aligned(identity, variation, SIDE))
                rows.writerow(["train-000.tar", name, identity, "drawn", 1.0, ""])
    with (root / "split.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["identity", "split", "faces"], *([i, s, n] for s, i, n in people)])


def _pairs(root: Path, per_fold: int, folds: int = 10) -> None:
    """In each fold `per_fold` pairs of one person, then as many of two; every person is in one fold alone."""
    root.mkdir()
    lines = [f"{folds}\t{per_fold}"]
    with _Shard(root / "aligned-000.tar") as shard:
        for fold in range(folds):
            people = [PAIRS + fold * 2 * per_fold + i for i in range(2 * per_fold)]
            for who in people:
                for variation in (0, 1):
                    shard.add(f"P{who}/P{who}_{variation + 1:04d}.webp", aligned(who, variation, SIDE))
            lines += [f"P{who}\t1\t2" for who in people[:per_fold]]
            lines += [f"P{one}\t1\tP{other}\t1" for one, other in zip(people[::2], people[1::2], strict=True)]
    (root / "pairs.txt").write_text("\n".join(lines) + "\n")


def _wider(root: Path, size: SyntheticSize) -> dict[str, Floats]:
    root.mkdir()
    notes: dict[str, object] = {}
    points: dict[str, Floats] = {}
    validation = []
    for split, first, count in (("train", 0, size.train_scenes), ("val", 500_000, size.validation_scenes)):
        with _Shard(root / f"{split}-000.tar") as shard:
            for number, scene in _scenes(first, count):
                name = f"{EVENT}/{number}.webp"
                shard.add(name, scene.pixels)
                notes[f"{split}/{name}"] = {**_note(scene, flag=0), "shard": f"{split}-000.tar"}
                points[f"{split}/{name}"] = scene.landmarks
                if split == "val":
                    # The official lists are in pixels of originals 1,024 wide, whatever the data's size.
                    ratio = OFFICIAL_WIDTH / scene.pixels.shape[1]
                    validation.append((str(number), (scene.boxes + 0.5) * ratio - 0.5))
    (root / "annotations.json").write_text(json.dumps(notes))
    _protocol(root / "val_protocol", validation)
    return points


def _masks(root: Path, count: int) -> dict[str, Floats]:
    root.mkdir()
    notes, points = {}, {}
    with _Shard(root / "photos-000.tar") as shard:
        for number, scene in _scenes(900_000, count):
            notes[f"{number}.webp"] = _note(scene, flag=0)
            points[f"masks/{number}.webp"] = scene.landmarks
            shard.add(f"{number}.webp", scene.pixels)
    (root / "annotations.json").write_text(json.dumps(notes))
    return points


def _scenes(first: int, count: int) -> Iterator[tuple[int, DrawnScene]]:
    for number in tqdm(range(first, first + count), desc="drawing scenes", unit="scene", mininterval=5):
        wide = np.random.default_rng((20_083, number)).random() < 0.7
        yield number, draw_scene(number, *((320, 240) if wide else (240, 320)))


def _note(scene: DrawnScene, flag: int) -> dict[str, object]:
    """As annotated boxes count: x … x + w covers whole pixels, so an edge lies half a pixel out."""
    height, width = scene.pixels.shape[:2]
    rows = [[x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0, flag] for x0, y0, x1, y1 in scene.boxes.tolist()]
    return {"width": width, "height": height, "boxes": rows}


def _protocol(root: Path, scenes: list[tuple[str, Floats]]) -> None:
    """The official lists' form: which boxes count as easy, medium and hard, here by height alone."""
    root.mkdir()
    lists = {"event_list": _cells([EVENT]), "file_list": _cells([_cells([name for name, _ in scenes])])}
    sizes = [np.concatenate([b[:, :2] + 0.5, b[:, 2:] - b[:, :2]], 1).astype(float) for _, b in scenes]
    lists["face_bbx_list"] = _cells([_cells(sizes)])
    savemat(root / "wider_face_val.mat", lists)
    for name, least in (("easy", 100), ("medium", 60), ("hard", 20)):
        counting = [(np.flatnonzero(of[:, 3] >= least) + 1).reshape(-1, 1) for of in sizes]
        savemat(root / f"wider_{name}_val.mat", {**lists, "gt_list": _cells([_cells(counting)])})


def _cells(values: Sequence[Any]) -> npt.NDArray[np.object_]:
    cells = np.empty((len(values), 1), object)
    for index, value in enumerate(values):
        cells[index, 0] = value
    return cells


class _Shard:
    """A tar of WebP pictures, byte for byte the same each time it is written."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w")  # noqa: SIM115 (closed in __exit__)

    def __enter__(self) -> _Shard:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def add(self, name: str, picture: Picture) -> None:
        data = cv2.imencode(
            ".webp", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 92]
        )[1].tobytes()
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))
