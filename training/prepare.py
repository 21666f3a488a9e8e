"""From raw photographs to a set worth training on: align, clean, look for people of the evaluation sets.

Detector and embedders run here as the service runs them; what is done with their answers lies in `training.data`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError

from bundle.decode import Detections
from bundle.folder import digest_of, open_bundle
from bundle.manifest import DetectorSpec
from bundle.preprocess import canvas_for, letterbox
from training.config import REPOSITORY, BadConfig
from training.data.alignment import REJECTS, Find, Policy, align_photographs
from training.data.cleaning import Floats, Limits, findings
from training.data.identities import Faces, Split, load_faces, read_table
from training.data.likeness import difference_hash
from training.data.mtcnn import MTCNN, weights
from training.data.overlap import Overlap, People, overlap, people_of, usual
from training.data.pairs import Pairs
from training.data.pictures import BadData, digest_of_pictures
from training.data.proposals import apply_proposals, write_proposals
from training.data.raw_photographs import Picture
from training.data.sources import open_faces, open_pairs
from training.embedder.distillation import ReferenceEmbedder
from training.export.sessions import ServedGraph, cached, finder

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


@dataclass(frozen=True)
class Embedder:
    """embed: uint8 [n, 112, 112, 3] RGB → float32 [n, d] unit vectors, no flip, with a progress bar of that name."""

    embed: Callable[[np.ndarray, str], np.ndarray]
    digest: str

    def once(self, crops: np.ndarray, key: str, cache: Path, name: str) -> Floats:
        """The embeddings, kept in `cache` under the embedder's digest and `key`, which changes with the pictures."""
        file = cache / f"embedding-{self.digest[:16]}-{key}.npy"
        return np.asarray(cached(file, lambda: self.embed(crops, name)), np.float32)


def bundle_finder(path: Path) -> tuple[Find, str]:
    """A bundle's detector on photographs, as the service looks at them, and its name with its digest."""
    bundle = open_bundle(path)
    spec = bundle.manifest.detector
    graph = ServedGraph(bundle.file(spec.file))
    return photograph_finder(graph, spec), f"detector {graph.digest[:16]}"


def photograph_finder(graph: ServedGraph, spec: DetectorSpec) -> Find:
    """A detector on photographs of any size, at its operating point, as the service looks at them."""
    on_canvas = finder(graph, spec, spec.min_score)

    def find(photograph: Picture) -> Detections:
        height, width = photograph.shape[:2]
        canvas, placed = letterbox(photograph, canvas_for(width, height, spec.canvases))
        found = on_canvas(canvas)
        return Detections(placed.to_picture(found.boxes), placed.to_picture(found.landmarks), found.scores)

    return find


def mtcnn_finder() -> tuple[Find, str]:
    """MTCNN, from the facenet-pytorch wheel. Raises BadConfig where that is not installed."""
    torch.set_num_threads(1)  # a photograph a thread
    folder = weights()
    return MTCNN(folder).detect, f"MTCNN {digest_of(folder / 'onet.pt')[:16]}"


def embedder_at(path: Path, threads: int = 1) -> Embedder:
    """A bundle's embedder (its rewritten form where there is one: the same function, faster), or an ONNX file: a served
    graph, or the reference embedder. Raises BundleError, or BadData for a file that is neither."""
    if path.is_dir():
        bundle = open_bundle(path)
        rewritten = [of.file for of in bundle.manifest.variants if of.kind == "prelu-rewrite"]
        graph = ServedGraph(bundle.file((rewritten or [bundle.manifest.embedder.file])[0]), threads)
        return Embedder(graph.embed, graph.digest)
    match _input_of(path):
        case "image":
            graph = ServedGraph(path, threads)
            return Embedder(graph.embed, graph.digest)
        case "input0":
            reference = ReferenceEmbedder(path, threads)
            return Embedder(lambda crops, name: reference.embed(crops, progress=name), reference.digest)
        case other:
            raise BadData(f"{path}: not an embedder that is known here (its input is {other!r})")


def clean(root: Path, embedder: Embedder, to: Path, cache: Path, limits: Limits) -> dict[str, int]:
    """Write the proposals for the face set `root` (its training split, where it has one) to `to`, and count them."""
    faces = load_faces(root, _trained(root), decoded=0)
    found = findings(
        _embedded(faces, embedder, cache, root.name),
        faces.label,
        np.stack([difference_hash(crop) for crop in faces.crops()]),
        faces.family,
        limits,
    )
    write_proposals(to, faces, found)
    return found.counts(faces.label)


def overlaps(
    root: Path, evaluations: Sequence[Path], embedder: Embedder, cache: Path, threshold: float | None = None
) -> list[Overlap]:
    """The report of each evaluation set: pairs, or faces; of `root` itself the people that are not trained on."""
    train = _people(open_faces(root, _trained(root), decoded=0), embedder, cache, f"{root.name}, training")
    if threshold is None:
        threshold = usual(train.embedding, np.unique(train.person, return_inverse=True)[1])
    reports = []
    for name, of in (named for path in evaluations for named in _evaluation(root, path)):
        reports.append(overlap(train, _people(of, embedder, cache, name), name, threshold))
    return reports


def write_overlaps(file: Path, root: Path, embedder: Embedder, reports: Sequence[Overlap]) -> None:
    """As JSON, for programs."""
    told = {"set": str(root), "embedder": embedder.digest, "evaluations": [of.as_json() for of in reports]}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    partial.replace(file)


def _trained(root: Path) -> Split | None:
    """The split to train on, where a set has splits."""
    return "train" if (root / "split.csv").is_file() else None


def _evaluation(root: Path, path: Path) -> list[tuple[str, Faces | Pairs]]:
    if path.suffix == ".bin" or (path / "pairs.txt").is_file():
        return [(path.name, open_pairs(path))]
    if path.resolve() == root.resolve():
        present = set(read_table(path / "split.csv")["split"])
        return [
            (f"{path.name}, {split}", open_faces(path, split, decoded=0))
            for split in get_args(Split)
            if split != "train" and split in present
        ]
    return [(path.name, open_faces(path, decoded=0))]


def _people(of: Faces | Pairs, embedder: Embedder, cache: Path, name: str) -> People:
    person, named = people_of(of)
    return People(_embedded(of, embedder, cache, name), person, named)


def _embedded(of: Faces | Pairs, embedder: Embedder, cache: Path, name: str) -> Floats:
    crops = of.crops() if isinstance(of, Faces) else of.crops
    return embedder.once(crops, digest_of_pictures(crops)[:16], cache, f"embedding {name}")


def _input_of(path: Path) -> str:
    """The name of an ONNX graph's first input, empty for a graph without."""
    try:
        inputs = onnx.load(path, load_external_data=False).graph.input
    except DecodeError as error:
        raise BadData(f"{path}: not a bundle and not an ONNX file") from error
    return str(inputs[0].name) if inputs else ""


def add_verbs(verbs: Verbs) -> None:
    """`align`, `clean` and `overlap`, in the order in which a new set goes through them."""
    runs = REPOSITORY / "runs"

    text = "raw photographs, a folder for each person, to an aligned set; stopped, it goes on where it was"
    verb = verbs.add_parser("align", help=text, description=text)
    verb.set_defaults(act=_align)
    verb.add_argument("photographs", type=Path)
    verb.add_argument("--to", type=Path, required=True, help="the set's folder, new or empty")
    verb.add_argument("--bundle", type=Path, default=REPOSITORY / "models" / "default", help="whose detector")
    verb.add_argument(
        "--detector", choices=["bundle", "mtcnn"], default="bundle", help="what finds the five points"
    )
    verb.add_argument(
        "--least", type=float, default=Policy.least, help="pixels of a face (default: %(default)s)"
    )
    verb.add_argument(
        "--threads", type=positive, default=1, help="photographs looked at at once (default: 1)"
    )
    verb.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")

    text = "propose which copies, outliers and colliding identities leave a set; nothing goes by itself"
    verb = verbs.add_parser("clean", help=text, description=text)
    verb.set_defaults(act=_clean)
    verb.add_argument("set", type=Path, help="a face set with train.csv; its training split is looked at")
    verb.add_argument(
        "--embedder", type=Path, help="a bundle, or an ONNX file; without one --to is only applied"
    )
    verb.add_argument("--to", type=Path, required=True, help="the table of proposals")
    verb.add_argument(
        "--apply", action="store_true", help="do what the table says; the old train.csv is kept"
    )
    for name, meaning in (
        ("copy", "least similarity of two copies"),
        ("own", "similarity to the own people below which a face is an outlier"),
        ("collision", "similarity of two identities that are one person"),
    ):
        verb.add_argument(
            f"--{name}", type=float, default=getattr(Limits, name), help=f"{meaning} (default: %(default)s)"
        )
    verb.add_argument("--threads", type=positive, default=1, help="of the runtime (default: 1)")
    verb.add_argument("--runs", type=Path, default=runs, help="where embeddings are kept")

    text = "who of the evaluation sets may have been trained on"
    verb = verbs.add_parser("overlap", help=text, description=text)
    verb.set_defaults(act=_overlap)
    verb.add_argument("set", type=Path, help="a set of faces; its training split, where it has one")
    verb.add_argument(
        "--evaluation", type=Path, nargs="+", required=True, metavar="PATH", help="sets of pairs or faces"
    )
    verb.add_argument("--embedder", type=Path, required=True, help="a bundle, or an ONNX file")
    verb.add_argument("--threshold", type=float, help="similarity (default: what most training faces have)")
    verb.add_argument(
        "--to", type=Path, default=runs / "overlap.json", help="the report (default: %(default)s)"
    )
    verb.add_argument("--threads", type=positive, default=1, help="of the runtime (default: 1)")
    verb.add_argument("--runs", type=Path, default=runs, help="where embeddings are kept")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _align(asked: argparse.Namespace) -> None:
    find, detector = mtcnn_finder() if asked.detector == "mtcnn" else bundle_finder(asked.bundle)
    policy = Policy(least=asked.least)
    done = align_photographs(
        asked.photographs, asked.to, find, detector, policy, threads=asked.threads, seed=asked.seed
    )
    print(done)
    print(f"{asked.to}: the set, and {REJECTS} with every photograph that is not in it and why")


def _clean(asked: argparse.Namespace) -> None:
    if asked.embedder is None and not asked.apply:
        raise BadConfig("clean needs --embedder to look for proposals, or --apply to do what --to says")
    if asked.embedder is not None:
        limits = Limits(copy=asked.copy, own=asked.own, collision=asked.collision)
        embedder = embedder_at(asked.embedder, asked.threads)
        counts = clean(asked.set, embedder, asked.to, asked.runs / "cache", limits)
        print("\n".join(f"{name.replace('_', ' '):<28}{number:>9,}" for name, number in counts.items()))
        print(f"{asked.to}: one line a proposal; edit it, then apply it with --apply and without --embedder")
    if asked.apply:
        print(apply_proposals(asked.set, asked.to))


def _overlap(asked: argparse.Namespace) -> None:
    embedder = embedder_at(asked.embedder, asked.threads)
    reports = overlaps(asked.set, asked.evaluation, embedder, asked.runs / "cache", asked.threshold)
    for of in reports:
        print(of)
    write_overlaps(asked.to, asked.set, embedder, reports)
    print(f"{asked.to}: who, and how sure")
