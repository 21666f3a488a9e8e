"""Verification on any pairs: LFW's folder and list, or the `.bin` packs in which CFP-FP, AgeDB-30 and others come.

    python -m training verify --embedder runs/embedder/mine/last.pt --pairs my-data/lfw packs/agedb_30.bin

A bundle answers with the graph that is served, a run's checkpoint with its averaged weights in fp32; one crop, no flip.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bundle.folder import open_bundle
from training.config import REPOSITORY, BadConfig, datasets
from training.data.pairs import Pairs
from training.data.pictures import BadData
from training.data.sources import open_pairs
from training.embedder.distillation import TorchTeacher
from training.evaluation.markdown import NOTHING, table
from training.evaluation.verification import (
    MIN_FALSE_MATCHES,
    NotUnitVectors,
    PairScores,
    TooFewImpostors,
    fnmr_at_fmr,
    require_unit_vectors,
    ten_folds,
)
from training.export.checkpoints import trained_embedder
from training.export.measure import PAIRS
from training.export.sessions import ServedGraph, cached, fingerprint, served_graph
from training.prepare import Embedder, embedder_at, positive

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

FMR = 1e-3
REFERENCE = "reference"
HEAD = ["set", "embedder", "pictures", "pairs", "accuracy", f"FNMR at FMR {FMR:g}"]
NOTE = f"""Accuracy: the mean over the set's folds, each at the threshold that is best on the others, ± its standard
error. FNMR: over the set's own pairs, at the threshold that this share of the non-mated ones reaches. A dash: the list
has no folds, or fewer than the {MIN_FALSE_MATCHES / FMR:,.0f} non-mated pairs that carry that rate.
Nothing may be selected (a checkpoint, a recipe, a threshold) on a set that one claims with: select on `validation`."""


@dataclass(frozen=True)
class Verified:
    """What an embedder does with a set of pairs. accuracy: over the folds, with its standard error, 0–1; None where the
    list has no folds. fnmr: at FMR, 0–1; None where the non-mated pairs do not carry it."""

    pictures: int
    pairs: int
    accuracy: tuple[float, float] | None
    fnmr: float | None

    @staticmethod
    def measured(pairs: Pairs, embedding: np.ndarray) -> Verified:
        """pairs: mated ones and others; embedding: float32 [m, d] of `pairs.crops`. Raises NotUnitVectors."""
        require_unit_vectors(embedding)
        similarity = pairs.similarity(embedding)
        try:
            fnmr, _ = fnmr_at_fmr(PairScores(similarity[pairs.same], similarity[~pairs.same]), FMR)
        except TooFewImpostors:
            fnmr = None
        accuracy = ten_folds(similarity, pairs.same, pairs.folds) if pairs.folds > 1 else None
        return Verified(len(pairs.crops), len(pairs.same), accuracy, fnmr)

    def cells(self) -> list[str]:
        """For the table, after the names."""
        told = f"{self.accuracy[0]:.2%} ± {self.accuracy[1]:.2%}" if self.accuracy else NOTHING
        missed = NOTHING if self.fnmr is None else f"{self.fnmr:.2%}"
        return [f"{self.pictures:,}", f"{self.pairs:,}", told, missed]


def opened(path: Path, threads: int) -> Embedder:
    """A bundle's served graph, or the averaged weights of a run's checkpoint.

    Raises BundleError, UnreadableCheckpoint.
    """
    if path.is_dir():
        graph = ServedGraph(served_graph(open_bundle(path)).path, threads)
        return Embedder(graph.embed, graph.digest)
    torch.set_num_threads(threads)
    model = TorchTeacher(trained_embedder(path).model)
    return Embedder(lambda crops, name: model.embed(crops, progress=name), model.digest)


def verify(embedders: dict[str, Embedder], sets: Sequence[Path], cache: Path) -> str:
    """A Markdown table, a row for each set and embedder. What they answer is kept in `cache` under the names that
    publishing gives it, which counts how many graphs LFW was measured on.

    Raises BadData for what holds no pairs, for pairs that cannot be measured, and for answers that are no unit vectors.
    """
    rows = []
    for path in sets:
        pairs = open_pairs(path)
        if pairs.same.all() or not pairs.same.any():
            raise BadData(f"{path}: all pairs are of one kind: give mated and non-mated ones")
        key = fingerprint(pairs.crops)
        for name, embedder in embedders.items():
            kind = REFERENCE if name == REFERENCE else "embedding"
            file = cache / f"{kind}-{embedder.digest[:16]}-{key}.npy"
            embedding = cached(file, partial(embedder.embed, pairs.crops, f"{name} on {path}"))
            try:
                found = Verified.measured(pairs, embedding)
            except NotUnitVectors as error:
                raise BadData(f"{name} on {path}: {error}") from error
            rows.append([str(path), name, *found.cells()])
    return table(HEAD, rows)


def add_verify(verbs: Verbs) -> None:
    """The verb `verify`."""
    text = "how well an embedder verifies pairs: LFW's, or any list or pack"
    verb = verbs.add_parser("verify", help=text, description=text)
    verb.set_defaults(act=_verify)
    verb.add_argument("--embedder", type=Path, required=True, help="a run's checkpoint, or a bundle's folder")
    verb.add_argument(
        "--pairs",
        type=Path,
        nargs="+",
        metavar="SET",
        help="folders with pairs.txt, or .bin packs (default: the data sets' lfw)",
    )
    verb.add_argument(
        "--reference",
        action="store_true",
        help="beside the data sets' reference embedder, MobileFaceNet.onnx",
    )
    verb.add_argument("--threads", type=positive, default=1, help="default: 1")
    verb.add_argument(
        "--runs", type=Path, default=REPOSITORY / "runs", help="where embeddings are kept (publish/cache)"
    )


def _verify(asked: argparse.Namespace) -> None:
    data = datasets()
    sets = asked.pairs or [data / name for name in PAIRS if data and (data / name).exists()]
    if not sets:
        raise BadConfig(
            f"no pairs among the data sets ({' or '.join(PAIRS)}): set FACET_DATASETS, or give --pairs"
        )
    for path in sets:  # the last one too, before the first is embedded
        if not path.exists():
            raise BadData(f"{path}: no such file or folder")
    embedders = {str(asked.embedder): opened(asked.embedder, asked.threads)}
    if asked.reference:
        embedders[REFERENCE] = _reference(data, asked.threads)
    print(f"{verify(embedders, sets, asked.runs / 'publish' / 'cache')}\n\n{NOTE}")


def _reference(data: Path | None, threads: int) -> Embedder:
    path = data / "reference" / "MobileFaceNet.onnx" if data else None
    if path is None or not path.is_file():
        raise BadConfig("the reference embedder is not here (reference/MobileFaceNet.onnx of the data sets)")
    return embedder_at(path, threads)
