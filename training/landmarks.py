"""What a detector's five points cost recognition: verification pairs, aligned from original photographs by it.

    python -m training landmarks --photographs lfw-deepfunneled --pairs pairs.txt --bundle models/default

The same embedder answers for every detector, so the difference is the points' alone (and that of faces not found).
`publish` takes what is found here into the report, where it was found of the graph that is published.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from bundle.align import CROP, align
from bundle.folder import digest_of, open_bundle
from training.config import REPOSITORY, BadConfig, datasets
from training.data.alignment import Find, prominence
from training.data.pairs import read_pairs
from training.data.pictures import BadData
from training.data.raw_photographs import read_photograph
from training.data.yunet import YuNet
from training.evaluation.aligned import FILE, Through, write_aligned
from training.evaluation.verification import fold_accuracies, mean_and_error
from training.export.checkpoints import trained_detector
from training.export.graphs import spec_of
from training.export.onnx import export_detector
from training.export.sessions import ServedGraph, cached
from training.prepare import Embedder, bundle_finder, embedder_at, mtcnn_finder, photograph_finder

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT = REPOSITORY / "models" / "default"
YUNET_SCORE = 0.5  # least, of a face
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Detector:
    """find: on photographs; key: what tells it from another; sha256: of its graph, empty where it has several."""

    find: Find
    key: str
    sha256: str = ""


def through(
    detectors: Mapping[str, Detector], embedder: Embedder, photographs: Path, pairs: Path, cache: Path
) -> list[Through]:
    """Each detector's figures, by name and in their order.

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
    for name, of in detectors.items():
        key = hashlib.sha256(f"{of.key} {embedder.digest} {photographs.resolve()} {names}".encode())
        embedding = cached(
            cache / f"through-{key.hexdigest()[:16]}.npy",
            partial(_embedded, of.find, files, embedder, name),
        )
        found = np.asarray(embedding.any(1))
        both = found[first] & found[second]
        similarity = np.where(both, (embedding[first] * embedding[second]).sum(1), -1.0)
        accuracies = fold_accuracies(similarity, same, folds)
        accuracy, error = mean_and_error(accuracies)
        done.append(
            Through(
                name=name,
                photographs=len(files),
                missed=int((~found).sum()),
                accuracy=accuracy,
                error=error,
                mated=float(similarity[same & both].mean()),
                less=None if before is None else mean_and_error(accuracies - before),
                folds=folds,
                sha256=of.sha256,
                embedder=embedder.digest,
                pairs=f"{len(same):,} pairs of {photographs.resolve().name}",
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
        default=[DEFAULT],
        help="whose detectors; a run's checkpoint too, before it is published (default: models/default)",
    )
    verb.add_argument(
        "--embedder",
        type=Path,
        help="a bundle or an ONNX file (default: the first bundle's, beside checkpoints alone models/default's)",
    )
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
    reference = Detector(*mtcnn_finder()) if asked.reference == "mtcnn" else _yunet(data)
    detectors = {asked.reference: reference} | {str(path): detector_at(path) for path in asked.bundle}
    embedder = embedder_at(asked.embedder or next((of for of in asked.bundle if of.is_dir()), DEFAULT))
    done = through(detectors, embedder, asked.photographs, pairs, asked.runs / "cache")
    write_aligned(asked.runs / FILE, done)
    print("\n".join(map(str, done)))


def detector_at(path: Path) -> Detector:
    """A bundle's detector, or that of a run's checkpoint, exported as publishing does and at the usual operating point.

    Raises BundleError for a damaged bundle, UnreadableCheckpoint.
    """
    if path.is_dir():
        manifest = open_bundle(path).manifest
        return Detector(*bundle_finder(path), manifest.files[manifest.detector.file].sha256)
    trained = trained_detector(path)
    spec = spec_of(trained.config)
    with TemporaryDirectory() as folder:
        export_detector(trained.model, Path(folder) / spec.file)
        graph = ServedGraph(Path(folder) / spec.file)
    return Detector(
        photograph_finder(graph, spec), f"detector {graph.digest[:16]} from {spec.min_score:g}", graph.digest
    )


def _yunet(data: Path | None) -> Detector:
    path = data / "reference" / "yunet_n_dynamic.onnx" if data else None
    if path is None or not path.is_file():
        raise BadConfig(
            "YuNet is not here (reference/yunet_n_dynamic.onnx of the data sets): ask for --reference mtcnn"
        )
    digest = digest_of(path)
    return Detector(YuNet(path, YUNET_SCORE).detect, f"YuNet {digest[:16]}", digest)
