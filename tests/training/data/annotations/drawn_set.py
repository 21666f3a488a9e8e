"""One small set of drawn pictures, written in every format that is read: tests compare what comes out."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

from training.data.photographs import Photograph

WIDTH, HEIGHT = 64, 48
# x, y, width, height in pixels from the picture's edge, and whether WIDER would call the face invalid
FACES = {
    "0--Door/one.png": [(10, 6, 20, 24, 0)],
    "0--Door/two.png": [(2, 3, 16, 20, 0), (40, 8, 12, 16, 1)],
    "1--Empty/none.png": [],
}
POINTS = np.array([(4, 8), (14, 8), (9, 13), (5, 18), (13, 18)], float)  # centres, from the box's corner


def picture(name: str) -> np.ndarray:
    """uint8 (48, 64, 3) RGB: noise, another for each name."""
    rng = np.random.default_rng(sum(map(ord, name)))
    small = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(name: str, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, picture(name)[..., ::-1])[1].tobytes()


def draw_pictures(folder: Path, names: list[str] | None = None) -> Path:
    for name in FACES if names is None else names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(name))
    return folder


def wider_text(root: Path) -> Path:
    draw_pictures(root / "WIDER_train" / "images")
    lines = []
    for name, faces in FACES.items():
        lines += [name, str(len(faces))]
        lines += [f"{x} {y} {w} {h} 0 0 0 {invalid} 0 0 " for x, y, w, h, invalid in faces] or ["0 " * 10]
    (root / "wider_face_split").mkdir()
    file = root / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    file.write_text("\n".join(lines) + "\n")
    return file


def wider_mat(root: Path) -> Path:
    draw_pictures(root / "WIDER_val" / "images")
    events = sorted({name.split("/")[0] for name in FACES})
    of = {event: [name for name in FACES if name.startswith(event)] for event in events}
    boxes = {n: np.array([f[:4] for f in faces] or [[0, 0, 0, 0]]) for n, faces in FACES.items()}
    flags = {n: np.array([[f[4]] for f in faces] or [[0]], np.uint8) for n, faces in FACES.items()}
    lists = {
        "event_list": cells(events),
        "file_list": cells([cells([Path(name).stem for name in of[event]]) for event in events]),
        "face_bbx_list": cells([cells([boxes[name] for name in of[event]]) for event in events]),
        "invalid_label_list": cells([cells([flags[name] for name in of[event]]) for event in events]),
    }
    (root / "split").mkdir()
    savemat(root / "split" / "wider_face_val.mat", lists)
    return root / "split" / "wider_face_val.mat"


def cells(values: list) -> np.ndarray:
    """As MATLAB keeps a column of things."""
    column = np.empty((len(values), 1), object)
    for row, value in enumerate(values):
        column[row, 0] = value
    return column


def retinaface(root: Path) -> Path:
    draw_pictures(root / "images")
    lines = []
    for name, faces in FACES.items():
        lines.append(f"# {name}")
        for number, (x, y, w, h, _) in enumerate(faces):
            known = "".join(f" {x + px:.3f} {y + py:.3f} 0.0" for px, py in POINTS)
            lines.append(f"{x} {y} {w} {h}{' -1.0 -1.0 -1.0' * 5 if number else known} 0.82")
    (root / "label.txt").write_text("\n".join(lines) + "\n")
    return root / "label.txt"


def yolo(root: Path) -> Path:
    draw_pictures(root / "images" / "train")
    for name, faces in FACES.items():
        lines = []
        for number, (x, y, w, h, _) in enumerate(faces):
            box = f"0 {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}"
            inside = [f"{(x + px + 0.5) / WIDTH} {(y + py + 0.5) / HEIGHT}" for px, py in POINTS]
            lines.append(box + (" -1" * 10 if number else " " + " ".join(inside)))
        file = (root / "labels" / "train" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines))
    return root


def voc(root: Path) -> Path:
    draw_pictures(root / "JPEGImages")
    for name, faces in FACES.items():
        objects = "".join(
            f"<object><name>face</name><difficult>{invalid}</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for x, y, w, h, invalid in faces
        )
        file = (root / "Annotations" / name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        file.write_text(f"<annotation>{size}{objects}</annotation>")
    return root


def coco(root: Path) -> Path:
    draw_pictures(root / "images")
    images, annotations = [], []
    for image, (name, faces) in enumerate(FACES.items(), 7):
        images.append({"id": image, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for number, (x, y, w, h, invalid) in enumerate(faces):
            points = [[x + px, y + py, 0 if number else 2] for px, py in POINTS.tolist()]
            keypoints = [value for point in points for value in point]
            one = {"bbox": [x, y, w, h], "iscrowd": invalid, "category_id": 3, "keypoints": keypoints}
            annotations.append({"id": len(annotations), "image_id": image, **one})
    categories = [{"id": 3, "name": "face"}]
    file = root / "faces.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def shards(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    notes = {}
    with tarfile.open(root / "train-000.tar", "w") as tar:
        for name, faces in FACES.items():
            member = tarfile.TarInfo(name)
            member.size = len(encoded(name))
            tar.addfile(member, io.BytesIO(encoded(name)))
            note = {"width": WIDTH, "height": HEIGHT, "boxes": faces, "shard": "train-000.tar"}
            notes[f"train/{name}"] = note
    (root / "annotations.json").write_text(json.dumps(notes))
    return root


FORMATS: dict[str, Callable[[Path], Path]] = {
    "WIDER FACE text": wider_text,
    "WIDER FACE .mat": wider_mat,
    "RetinaFace text": retinaface,
    "YOLO text": yolo,
    "Pascal VOC": voc,
    "COCO JSON": coco,
    "notes with tar shards": shards,
}
WITH_POINTS = {"RetinaFace text", "YOLO text", "COCO JSON"}
WITHOUT_FLAGS = {"RetinaFace text", "YOLO text"}  # no box of theirs is ignored


def expected_boxes(name: str) -> np.ndarray:
    """float (n, 4) xyxy, centres of pixels at integers."""
    rows = np.array(FACES[name], float).reshape(-1, 5)
    return np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1) - 0.5


def by_name(photographs) -> dict[str, Photograph]:
    """By their names in `FACES`: a set that is a folder calls them by the folders between, too."""
    return {"/".join(of.name.split("/")[-2:]): of for of in photographs}
