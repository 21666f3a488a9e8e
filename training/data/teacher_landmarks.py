"""Five points for faces that come with a box only: asked of an independent detector, kept where it agrees.

A face whose box the teacher does not confirm trains without landmarks; a guess would teach worse than nothing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from bundle.decode import Detections, iou
from bundle.folder import digest_of
from training.data.photographs import Floats, Photograph, with_landmarks
from training.data.pictures import BadData
from training.data.raw_photographs import Picture
from training.data.widerface import masks, wider
from training.data.yunet import YuNet

AGREEMENT_IOU = 0.5
SCALES = (0.4, 1.0, 1.6)  # of a picture that YuNet looks at: a tall face is not found at its own size
TEACHER = "teacher"  # under this name a cache says who taught; no photograph is called so

Detect = Callable[[Picture], Detections]  # faces of an RGB picture (h, w, 3), in its pixels


def teach(datasets: Path, cache: Path) -> dict[str, Floats]:
    """YuNet's landmarks of every training photograph of WIDER FACE and the masks; see `taught`.

    About four minutes on one core.
    """
    file = datasets / "reference" / "yunet_n_dynamic.onnx"
    teacher = f"{file.name} at {', '.join(map(str, SCALES))}"
    if cache.exists():
        return _read(cache, teacher)
    photographs = chain(wider(datasets / "wider", "train"), masks(datasets / "masks"))
    return taught(photographs, yunet(file)[0], cache, teacher)


def yunet(file: Path) -> tuple[Detect, str]:
    """YuNet as a teacher of points, and its name with its digest. Raises BadData for a file that is no such graph."""
    if not file.is_file():
        raise BadData(f"{file}: no such file; the teacher of points is YuNet (yunet_n_dynamic.onnx)")
    try:
        net = YuNet(file, min_score=0.3)
        net.detect(np.zeros((64, 64, 3), np.uint8))
    except cv2.error as error:
        raise BadData(f"{file}: not a YuNet graph that OpenCV reads ({error.err or error})") from error
    return lambda picture: net.detect(picture, SCALES), f"{file.name} sha256:{digest_of(file)}"


def taught(photographs: Iterable[Photograph], detect: Detect, cache: Path, teacher: str) -> dict[str, Floats]:
    """Landmarks (faces, 5, 2) in annotated pixels of every photograph by name, for `with_landmarks`; NaN where unknown.

    Asked once and kept in `cache`, an npz, with the name of the teacher; one that names none is taken for this one's.
    Raises BadData for another teacher's cache.
    """
    if not cache.exists():
        asked = tqdm(photographs, desc="teacher's landmarks", unit="picture", mininterval=5)
        points = {one.name: annotated(one) for one in completed(asked, detect)}
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.stem}.partial.npz")
        np.savez_compressed(partial, **points, **{TEACHER: np.array(teacher)})  # type: ignore[arg-type]
        partial.rename(cache)
    return _read(cache, teacher)


def _read(cache: Path, teacher: str) -> dict[str, Floats]:
    try:
        with cache.open("rb") as file, np.load(file) as kept:
            points = {name: kept[name] for name in kept.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BadData(f"{cache}: damaged ({error}); delete it, and the teacher is asked again") from error
    by = str(points.pop(TEACHER, teacher))
    if by != teacher:
        raise BadData(f"{cache}: landmarks of {by!r}, not of {teacher!r}; delete it, or name another cache")
    return points


def lent(photographs: Iterable[Photograph], taught: dict[str, Floats], cache: Path) -> Iterator[Photograph]:
    """The photographs with the landmarks that `cache` holds for them. Raises BadData where it holds others."""
    for one in photographs:
        points = taught.get(one.name)
        if points is None or points.shape != (len(one.boxes), 5, 2):
            raise BadData(
                f"{cache}: no landmarks for the {len(one.boxes)} faces of {one.name}: the set has changed since; "
                "delete it, and the teacher is asked again"
            )
        yield with_landmarks(one, points)


def completed(
    photographs: Iterable[Photograph], detect: Detect, at_least: float = AGREEMENT_IOU
) -> Iterator[Photograph]:
    """The photographs with `detect`'s points for the faces that had none and that it agrees about; others keep theirs.

    Prints for how many faces points are known in the end.
    """
    faces = known = 0
    for one in photographs:
        points = agreed(one, detect(np.asarray(one.pixels)), at_least)
        unknown = np.isnan(one.landmarks).any((1, 2), keepdims=True)
        whole = replace(one, landmarks=np.where(unknown, points, one.landmarks))
        faces += int((~one.ignored).sum())
        known += int((np.isfinite(whole.landmarks).all((1, 2)) & ~one.ignored).sum())
        yield whole
    tqdm.write(f"landmarks of {known:,} of {faces:,} faces")


def agreed(photograph: Photograph, found: Detections, at_least: float = AGREEMENT_IOU) -> Floats:
    """(faces, 5, 2): the points of the detection that overlaps each official box best, NaN below `at_least`."""
    points = np.full((len(photograph.boxes), 5, 2), np.nan, np.float32)
    if len(found) and len(photograph.boxes):
        overlap = iou(photograph.boxes, found.boxes)
        best = overlap.argmax(1)
        # The other way round too: in a crowd, one detection must not lend its points to two faces.
        sure = (overlap.max(1) >= at_least) & (overlap.argmax(0)[best] == np.arange(len(best)))
        points[sure] = found.landmarks[best[sure]]
    return points


def annotated(photograph: Photograph) -> Floats:
    """Its landmarks in annotated pixels: the inverse of `with_landmarks`."""
    half = np.float32(0.5)
    return (photograph.landmarks + half) / np.float32(photograph.scale) - half
