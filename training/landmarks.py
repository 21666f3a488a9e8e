"""What a detector's five points cost recognition: verification pairs, aligned from original photographs by it.

    python -m training landmarks --photographs lfw-deepfunneled --pairs pairs.txt --bundle models/default

The same embedder answers for every detector, so the difference is the points' alone (and that of faces not found).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from bundle.align import CROP, align
from training.config import REPOSITORY, BadConfig, datasets
from training.data.alignment import Find, prominence
from training.data.pairs import read_pairs
from training.data.pictures import BadData
from training.data.raw_photographs import read_photograph
from training.data.yunet import YuNet
from training.evaluation.verification import fold_accuracies, mean_and_error
from training.export.sessions import cached
from training.prepare import Embedder, bundle_finder, embedder_at, mtcnn_finder

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

YUNET_SCORE = 0.5  # least, of a face
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Through:
    """Verification through one detector.

    missed: photographs of `photographs` without a face; their pairs count as similarity −1. accuracy: ten folds, 0–1,
    with its standard error over the folds. mated: mean cosine of the mated pairs whose two faces were found. less: the
    accuracy less the first detector's on the same folds, 0–1, with the standard error of that; None for the first.
    """

    name: str
    photographs: int
    missed: int
    accuracy: float
    error: float
    mated: float
    less: tuple[float, float] | None

    def __str__(self) -> str:
        told = f"{self.name}: {self.accuracy:.2%} ± {self.error:.2%}, mated similarity {self.mated:.3f}, no face in "
        told += f"{self.missed} of {self.photographs}"
        if self.less:
            told += f"; {100 * self.less[0]:+.2f} ± {100 * self.less[1]:.2f} points against the first"
        return told


def through(
    finders: dict[str, tuple[Find, str]], embedder: Embedder, photographs: Path, pairs: Path, cache: Path
) -> list[Through]:
    """Each detector's figures, in their order. finders: name → detector and what tells it from another.

    Raises BadData for a list of pairs, or a photograph, that is not there or cannot be read.
    """
    listed, folds = read_pairs(pairs)
    names = sorted({name for first, second, _ in listed for name in (first, second)})
    files = [_file(photographs, name) for name in names]
    place = {name: row for row, name in enumerate(names)}
    first = np.array([place[one] for one, _, _ in listed])
    second = np.array([place[other] for _, other, _ in listed])
    same = np.array([mated for *_, mated in listed])
    done: list[Through] = []
    before = None
    for name, (find, digest) in finders.items():
        key = hashlib.sha256(f"{digest} {embedder.digest} {photographs.resolve()} {names}".encode())
        embedding = cached(
            cache / f"through-{key.hexdigest()[:16]}.npy",
            partial(_embedded, find, files, embedder, name),
        )
        found = np.asarray(embedding.any(1))
        both = found[first] & found[second]
        similarity = np.where(both, (embedding[first] * embedding[second]).sum(1), -1.0)
        accuracies = fold_accuracies(similarity, same, folds)
        done.append(
            Through(
                name,
                len(files),
                int((~found).sum()),
                *mean_and_error(accuracies),
                float(similarity[same & both].mean()),
                None if before is None else mean_and_error(accuracies - before),
            )
        )
        before = accuracies if before is None else before
    return done


def crops_by(find: Find, photographs: Sequence[Path], progress: str) -> np.ndarray:
    """uint8 [n, 112, 112, 3]: each photograph's most prominent face; all zeros where none is found.

    Raises BadData for an unreadable photograph.
    """
    crops = np.zeros((len(photographs), CROP, CROP, 3), np.uint8)
    for row, path in enumerate(tqdm(photographs, desc=progress, unit="photo", mininterval=5)):
        photograph = read_photograph(path.read_bytes())
        found = find(photograph)
        if len(found):
            height, width = photograph.shape[:2]
            best = int(prominence(found.boxes, width, height).argmax())
            crops[row] = align(photograph, found.landmarks[best])
    return crops


def _embedded(find: Find, photographs: Sequence[Path], embedder: Embedder, name: str) -> np.ndarray:
    """float32 [n, d]: unit vectors, and zeros where there is no face."""
    crops = crops_by(find, photographs, name)
    found = np.asarray(crops.any((1, 2, 3)))
    embedding = embedder.embed(crops, f"{name}, embedding")
    embedding[~found] = 0
    return embedding


def _file(photographs: Path, name: str) -> Path:
    for suffix in SUFFIXES:
        if (path := photographs / f"{name}{suffix}").is_file():
            return path
    raise BadData(f"{photographs} has no photograph {name} ({', '.join(SUFFIXES)}), which the pairs name")


def add_landmarks(verbs: Verbs) -> None:
    """The verb `landmarks`."""
    text = "what a detector's five points cost recognition, on verification pairs of original photographs"
    verb = verbs.add_parser("landmarks", help=text, description=text)
    verb.set_defaults(act=_landmarks)
    verb.add_argument("--photographs", type=Path, required=True, help="originals: Person/Person_0001.jpg")
    verb.add_argument("--pairs", type=Path, help="pairs.txt (default: the data sets' lfw)")
    verb.add_argument(
        "--bundle",
        type=Path,
        nargs="+",
        default=[REPOSITORY / "models" / "default"],
        help="whose detectors (default: models/default)",
    )
    verb.add_argument("--embedder", type=Path, help="a bundle or an ONNX file (default: the first bundle's)")
    verb.add_argument(
        "--reference",
        choices=["yunet", "mtcnn"],
        default="yunet",
        help="the detector that the others are compared with (default: yunet, of the data sets)",
    )
    verb.add_argument(
        "--runs", type=Path, default=REPOSITORY / "runs", help="where crops and landmarks.json are kept"
    )


def _landmarks(asked: argparse.Namespace) -> None:
    data = datasets()
    pairs = asked.pairs or (data / "lfw" / "pairs.txt" if data else None)
    if pairs is None:
        raise BadConfig("no data sets found: set FACET_DATASETS, or give --pairs")
    finders = {asked.reference: mtcnn_finder() if asked.reference == "mtcnn" else _yunet(data)}
    finders |= {str(path): bundle_finder(path) for path in asked.bundle}
    embedder = embedder_at(asked.embedder or asked.bundle[0])
    done = through(finders, embedder, asked.photographs, pairs, asked.runs / "cache")
    asked.runs.mkdir(parents=True, exist_ok=True)
    (asked.runs / "landmarks.json").write_text(json.dumps([asdict(of) for of in done], indent=2) + "\n")
    print("\n".join(map(str, done)))


def _yunet(data: Path | None) -> tuple[Find, str]:
    path = data / "reference" / "yunet_n_dynamic.onnx" if data else None
    if path is None or not path.is_file():
        raise BadConfig(
            "YuNet is not here (reference/yunet_n_dynamic.onnx of the data sets): ask for --reference mtcnn"
        )
    return YuNet(path, YUNET_SCORE).detect, f"YuNet {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
