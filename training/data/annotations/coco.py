"""COCO JSON, read and written: boxes are x, y, width and height in pixels, never fractions; a crowd is ignored."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.annotations.entries import Annotations, Finding, Row
from training.data.annotations.folders import Named, classes, listed
from training.data.photographs import Photograph
from training.data.pictures import BadData

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")  # left in the picture


def read_coco(file: Path, pictures: Path | None = None, faces: Sequence[str] | None = None) -> Annotations:
    """The boxes of the categories `faces`, or of those that are called so; five keypoints are landmarks if all five
    are marked, and their coordinates are centres of pixels.

    A listed picture without annotations shows no face. Raises BadData for what is no COCO JSON, and where nobody can
    tell which category is a face.
    """
    try:
        of = json.loads(file.read_text("utf-8-sig"))
        images = {one["id"]: one for one in of["images"]}
        annotations = list(of["annotations"])
        names = {one["id"]: str(one["name"]) for one in of.get("categories", ())}
        category = [names.get(one["category_id"], str(one["category_id"])) for one in annotations]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadData(f"{file}: not COCO JSON ({type(error).__name__}: {error})") from error
    chosen, findings = classes(file, Counter(category), faces)
    rows: defaultdict[Any, list[Row]] = defaultdict(list)
    wrong: defaultdict[Any, list[Finding]] = defaultdict(list)
    unread = 0
    for one, name in zip(annotations, category, strict=True):
        where, image = f"{file}: annotation {one.get('id')}", one.get("image_id")
        if name not in chosen:
            continue
        if not isinstance(image, Hashable) or image not in images:
            findings.append(Finding("no_picture", where, f"no image {image!r}"))
            continue
        unread += bool(one.get("keypoints")) and not _keypoints(one)
        try:
            rows[image].append(_row(where, one))
        except (KeyError, TypeError, ValueError, OverflowError):
            wrong[image].append(Finding("malformed", where, f"bbox is {one.get('bbox')!r}"))
    if unread:
        findings.append(Finding("landmarks_unread", str(file), f"{unread} boxes without five keypoints"))
    every = [
        Named(str(one.get("file_name", key)), f"{file}: image {key}", rows[key], wrong[key], _size(one))
        for key, one in images.items()
    ]
    info = of.get("info")
    told = info.get("points") if isinstance(info, dict) else None
    return replace(
        listed(file, "COCO JSON", every, pictures, findings), points=told if isinstance(told, str) else ""
    )


def _row(where: str, of: dict[str, Any]) -> Row:
    x, y, width, height = map(float, of["bbox"])
    ignored = bool(of.get("iscrowd") or of.get("ignore"))
    landmarks = None
    if keypoints := _keypoints(of):
        points = np.array(keypoints, np.float64).reshape(5, 3)
        landmarks = (points[:, :2] + 0.5).ravel().tolist() if (points[:, 2] > 0).all() else None
    return Row(where, (x, y, x + width, y + height), ignored, landmarks)


def _keypoints(of: dict[str, Any]) -> list[Any] | None:
    """x, y and visibility of five points, where there are five."""
    points = of.get("keypoints")
    return points if isinstance(points, list) and len(points) == 15 else None


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def write_coco(file: Path, photographs: Iterable[Photograph], info: Mapping[str, str] | None = None) -> int:
    """Write the boxes and points of the photographs, in the pixels of each, and return how many photographs there were.

    Pictures are called as their photographs, and are not written. Ignored faces are crowds; landmarks that are not all
    known are left out. info: of the set; `points` says who marked them, `terms` under which terms it stands.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, one in enumerate(photographs, 1):
        height, width = one.pixels.shape[:2]
        images.append({"id": image, "file_name": one.name, "width": width, "height": height})
        for box, ignored, points in zip(one.boxes, one.ignored, one.landmarks, strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": 1}
                | _written(box.astype(np.float64), bool(ignored), points.astype(np.float64))
            )
    category = {"id": 1, "name": "face", "keypoints": list(POINTS), "skeleton": []}
    partial = file.with_name(f"{file.name}.partial")
    lists = {"images": images, "annotations": annotations, "categories": [category]}
    partial.write_text(json.dumps({"info": dict(info or {}), **lists}))
    partial.replace(file)
    return len(images)


def _written(box: Any, ignored: bool, points: Any) -> dict[str, Any]:
    edges = box + 0.5  # from the picture's, where ours count from the first pixel's centre
    if ((edges >= 0) & (edges <= 1)).all() and (edges % 1 != 0).any():
        edges = np.array(
            [0.0, 0, 1, 1]
        )  # a part of the first pixel would be read as fractions of the picture
    left, top, width, height = np.concatenate([edges[:2], edges[2:] - edges[:2]]).tolist()
    known = bool(np.isfinite(points).all())
    keypoints = [number for x, y in points.tolist() for number in (x, y, 2)] if known else [0] * 15
    return {
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": int(ignored),
        "keypoints": keypoints,
        "num_keypoints": 5 * known,
    }
