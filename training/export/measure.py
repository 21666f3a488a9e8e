"""What the exported graphs can do, beside the reference models in the same run; the calibration split stays unread.

The references are yardsticks that never change: their answers are kept in a cache, under digests of model and data.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bundle.calibration import Calibration, ExcludedPair
from bundle.folder import Bundle
from bundle.manifest import DetectorSpec
from bundle.views import views
from training.data import overlap as likest
from training.data.annotations.terms import terms_of
from training.data.identities import BadData, Faces, load_faces
from training.data.likeness import alike
from training.data.pairs import Pairs
from training.data.sources import open_pairs
from training.data.widerface import masks, wider
from training.embedder.distillation import ReferenceEmbedder, reference_input
from training.evaluation.bootstrap import Interval
from training.evaluation.calibration import Models, TooFewPeople, fit_calibration
from training.evaluation.calibration_set import CalibrationSet
from training.evaluation.detection import recall_at_false_positives
from training.evaluation.one_person import one_person_pairs
from training.evaluation.promise import calibration_report
from training.evaluation.recognition import Embedded, Overlap, Recognition, recognition
from training.evaluation.verification import TooFewImpostors
from training.export.difference import (
    DetectorDifference,
    TooFewPictures,
    detector_difference,
    fnmr_differences,
)
from training.export.graphs import Graphs
from training.export.looks import digest_of_files, found_alike, looked
from training.export.pace import milliseconds
from training.export.parity import golden_crops, golden_scenes
from training.export.sessions import ServedGraph, cached, embed_once, fingerprint, served_graph, session

OPERATING_FALSE_POSITIVES = 0.1  # a picture, at the score from which the service reports a face
OVERLAP_PICTURES = 10  # of a training identity that are compared with the evaluation's people
COMMERCIAL = re.compile(r"licence: commercial(;|$)")
DRAWN = "drawn.json"  # what training/data/synthetic.py leaves beside sets that it drew
SCORES = (0.2, 0.9)  # a tiny selection set must not choose an absurd operating point
PAIRS = "lfw", "lfw.bin"  # verification pairs below the data sets' folder: a folder with pairs.txt, or a pack
PEOPLE_LEAST = 42  # of the calibration split: each half has to carry a calibration that the other half checks


def measure_recognition(
    graph: ServedGraph, data: Path, validation: Faces, cache: Path
) -> tuple[list[Recognition], dict[float, Interval] | None, Overlap | None]:
    """Validation and, where there are pairs, LFW for ours and, where it is present, the reference; the ratio of the two
    FNMRs; and who of both sets looks like somebody of the training set, which only the reference, an independent
    embedder, can tell."""
    lfw = verification_pairs(data)
    embedded = [
        Embedded(
            "facet",
            embed_once(graph, validation.crops(), cache, "embedder, validation"),
            embed_once(graph, lfw.crops, cache, "embedder, LFW") if lfw else None,
        )
    ]
    reference = data / "reference" / "MobileFaceNet.onnx"
    overlap = None
    if reference.is_file():
        seen = Embedded(
            "reference",
            _by_reference(reference, validation.crops(), cache, "validation"),
            _by_reference(reference, lfw.crops, cache, "LFW") if lfw else None,
        )
        embedded.append(seen)
        overlap = _overlap(reference, data, validation, lfw, seen, cache)
    results, ratio = recognition(embedded, validation, lfw, overlap=overlap)
    return results, ratio or None, overlap


def verification_pairs(data: Path) -> Pairs | None:
    """LFW, or pairs in its form, below the data sets' folder; None where there are none. Raises BadData."""
    found = [data / name for name in PAIRS if (data / name).exists()]
    if len(found) > 1:
        raise BadData(f"{data}: holds {' and '.join(PAIRS)}; which of them is measured on? Move one away")
    return open_pairs(found[0]) if found else None


def _overlap(
    reference: Path, data: Path, validation: Faces, lfw: Pairs | None, seen: Embedded, cache: Path
) -> Overlap:
    """seen: the reference's vectors of the validation faces and of LFW's pictures."""
    train = load_faces(data / "faces", "train")
    rows = _first_of_each(train.label, OVERLAP_PICTURES)
    person, named = likest.people_of(train)
    looks = _by_reference(reference, train.crops()[rows], cache, "train, to find overlap")
    trained = likest.People(looks, person[rows], named)
    who = likest.people_of(validation)
    of_validation = likest.overlap(trained, likest.People(seen.validation, *who), "validation")
    of_lfw = None
    if lfw is not None and seen.lfw is not None:
        people = likest.People(seen.lfw, *likest.people_of(lfw))
        of_lfw = frozenset(likest.overlap(trained, people, "LFW").overlapping)
    known = np.isin(who[0], sorted(of_validation.overlapping))
    return Overlap(
        lfw=of_lfw,
        validation=frozenset(validation.identity[known].tolist()),
        how=f"cosine of the reference embedder at least {of_validation.threshold:.2f}, which three quarters of the "
        f"training faces have to their own people; up to {OVERLAP_PICTURES} pictures of each",
    )


def _first_of_each(label: np.ndarray, most: int) -> np.ndarray:
    """int [≤ n]: rows of at most `most` faces of each label, in their order."""
    order = np.argsort(label, kind="stable")
    place = np.arange(len(label)) - np.searchsorted(label[order], label[order])
    return np.sort(order[place < most])


def measure_incumbent(
    old: Bundle, served: ServedGraph, validation: Faces, cache: Path, fmr: float
) -> Interval | None:
    """FNMR on validation of `served` less that of the embedder of `old`, both as served; None where the faces do not
    carry `fmr`."""
    ours, theirs = (
        embed_once(graph, validation.crops(), cache, f"{name} embedder, validation")
        for name, graph in (("new", served), ("old", served_graph(old)))
    )
    try:
        return fnmr_differences([ours], theirs, validation.identity, validation.family, fmr)[0]
    except TooFewImpostors:
        return None


def same_detector(old: Bundle, served: ServedGraph, spec: DetectorSpec) -> bool:
    """Whether `served` finds what the detector of `old` finds, whatever the picture: one graph, read in one way."""
    return found_alike((served, spec), (served_graph(old, "detector"), old.manifest.detector))


def measure_old_detector(
    old: Bundle, served: ServedGraph, spec: DetectorSpec, data: Path, cache: Path
) -> DetectorDifference | None:
    """What `served` does on the validation pictures less what the detector of `old` does, both as served; None where
    they do not carry it, or there are none. Whichever has looked at them before does not look again."""
    if not (data / "wider").is_dir():
        return None
    lookers = {"new": (served, spec), "old": (served_graph(old, "detector"), old.manifest.detector)}
    truth, found = looked(lookers, data / "wider", "val", cache)
    try:
        return detector_difference(found["new"], found["old"], truth, data / "wider" / "val_protocol")
    except TooFewPictures:
        return None


def paces(graphs: Mapping[str, Path], reference: Path) -> dict[str, float]:
    """Milliseconds of processor time a face, one thread each, in one run: of embedders' graphs by name, and of the
    "reference", where it is present, on a picture that is normalised already."""
    crop = golden_crops()[-1:]
    calls: dict[str, Any] = {name: partial(ServedGraph(path).run, crop) for name, path in graphs.items()}
    if reference.is_file():
        session = ReferenceEmbedder(reference, threads=1).session
        calls["reference"] = partial(session.run, None, {"input0": reference_input(crop)})
    return milliseconds(calls, rounds=41)


def picture_paces(graph: Path, spec: DetectorSpec, yunet: Path) -> tuple[float, float] | None:
    """Milliseconds of processor time a picture at VGA, one thread each, in one run: of a detector's graph on all views
    that are served, and of YuNet's; None where that is absent.

    Of the graphs alone, both in ONNX Runtime: OpenCV takes twice as long for YuNet's and would flatter ours.
    """
    if not yunet.is_file():
        return None
    canvas = golden_scenes(*spec.canvases[0])[-1]
    seen, ours, theirs = [of.pixels[None] for of in views(canvas, spec)], ServedGraph(graph), session(yunet)
    given = {theirs.get_inputs()[0].name: canvas.transpose(2, 0, 1)[None].astype(np.float32)}
    taken = milliseconds(
        {"ours": lambda: [ours.run(of) for of in seen], "YuNet": partial(theirs.run, None, given)}
    )
    return taken["ours"], taken["YuNet"]


def data_terms(data: Path) -> dict[str, str]:
    """Of each set below `data`, yardsticks and teachers included, "commercial" or "research-only".

    Drawn sets are commercial, and those whose terms state it (see training/data/annotations/terms.py).
    """
    drawn = (data / DRAWN).is_file()
    return {name: "commercial" if drawn else stated(terms) for name, terms in told_terms(data).items()}


def told_terms(data: Path) -> dict[str, str]:
    """What each set below `data` says of its terms, in one line."""
    return {root.name: terms_of(root) for root in _sets(data)}


def stated(terms: str) -> Literal["research-only", "commercial"]:
    """ "commercial" where a set's terms begin with "licence: commercial" and then end, or go on after a semicolon.

    All else is research-only, for that is the most that is known: a sentence about commercial use states nothing.
    """
    return "commercial" if COMMERCIAL.match(terms) else "research-only"


def lfw_measured(data: Path, cache: Path) -> int:
    """On how many graphs of ours LFW has been measured with this cache: whoever looks often selects, if unknowingly."""
    lfw = verification_pairs(data)
    return len(list(cache.glob(f"embedding-*-{fingerprint(lfw.crops)}.npy"))) if lfw else 0


def _by_reference(
    path: Path, crops: npt.NDArray[np.uint8], cache: Path, name: str
) -> npt.NDArray[np.float32]:
    """float32 [n, 128] unit vectors of the reference embedder, kept in `cache`."""
    teacher = ReferenceEmbedder(path, threads=1)
    file = cache / f"reference-{teacher.digest[:16]}-{fingerprint(crops)}.npy"
    return cached(file, lambda: teacher.embed(crops, progress=f"reference, {name}"))


def operating_point(graph: ServedGraph, spec: DetectorSpec, data: Path, cache: Path) -> DetectorSpec:
    """`spec` with the score from which a face is reported: a tenth of a false positive a picture on the selection
    pictures, which were held out of training and are not the claim's."""
    truth, found = looked({"facet": (graph, spec)}, data / "wider", "selection", cache)
    scenes = [of.scene() for of in truth]
    threshold = recall_at_false_positives(scenes, found["facet"], OPERATING_FALSE_POSITIVES).threshold
    return spec.model_copy(update={"min_score": round(float(np.clip(threshold, *SCORES)), 3)})


def likenesses(data: Path, cache: Path) -> list[tuple[str, str]]:
    """Training photographs that look like a validation photograph, by name; none should."""
    roots = data / "wider", data / "masks"
    file = cache / f"likeness-{digest_of_files([of for root in roots for of in root.glob('*.*')])}.json"
    if not file.is_file():
        train = itertools.chain(wider(roots[0], "train"), wider(roots[0], "selection"), masks(roots[1]))
        validation = wider(roots[0], "val")
        found = alike(((of.name, of.pixels) for of in train), ((of.name, of.pixels) for of in validation))
        cache.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    return [tuple(pair) for pair in json.loads(file.read_text())]


def calibrate(graphs: Graphs, data: Path, cache: Path, dataset: str) -> tuple[Calibration, dict[str, Any]]:
    """The curves from the calibration split, which nothing else reads, and how well they keep their promise.

    Labels that turn out to be one person are found by the reference embedder, where it is present. Raises TooFewPeople.
    """
    faces = load_faces(data / "faces", "calibration")
    if faces.identities < PEOPLE_LEAST:
        raise TooFewPeople(
            f"{data / 'faces'}: {faces.identities} people are in `calibration`, at least {PEOPLE_LEAST} are needed: "
            "thresholds are fitted on one half of them and checked on the other; align more people"
        )
    embedding = embed_once(graphs.served, faces.crops(), cache, "embedder, calibration")
    reference = data / "reference" / "MobileFaceNet.onnx"
    excluded: tuple[ExcludedPair, ...] = ()
    if reference.is_file():
        independent = _by_reference(reference, faces.crops(), cache, "calibration")
        excluded = one_person_pairs(independent, faces.identity, faces.family)
    calibration = fit_calibration(
        embedding,
        faces.identity,
        faces.family,
        dataset=dataset,
        models=Models(graphs.detector.digest, graphs.embedder.digest),
        excluded=excluded,
    )
    held_out = CalibrationSet(embedding, faces.identity, faces.family, excluded)
    return calibration, calibration_report(held_out, calibration)


def dataset_digests(data: Path) -> tuple[str, ...]:
    """`name sha256:…` of each set below `data`, over the names and contents of its files."""
    return tuple(
        f"{root.name} sha256:{digest_of_files(root.rglob('*') if root.is_dir() else [root])}"
        for root in _sets(data)
    )


def _sets(data: Path) -> list[Path]:
    return sorted(of for of in data.iterdir() if of.is_dir() or of.name in PAIRS)
