"""How accurate is the detector for the time that it takes, by size of canvas and backend, beside YuNet?

    python -m benchmarks.detector [--bundle models/default] [--data DIR] [--multi-scale] [--pictures N | --quick]

Every form of the bundle's detector, on every backend that is present, at several canvases and at the pictures' own
size; and YuNet on the same canvases. Time: pictures in turn, all contenders interleaved, one thread, processor time
from canvas to faces with the score from which each reports one. Accuracy: WIDER's easy, medium and hard and recall at
one false positive a picture on the validation subset, from a score of 0.02 on, of each form on its first backend; what
another backend answers is compared with that. A part of the pictures says little: it is printed, not written. Without
the data sets it says so and is left out.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.datasets import PROTOCOL, WIDER, YUNET_GRAPH, datasets
from benchmarks.graphs import DEFAULT_BUNDLE
from benchmarks.measure import Row, interleaved, table, versions, write_result
from bundle.decode import Detections
from bundle.folder import Bundle, open_bundle
from bundle.preprocess import Picture, letterbox
from bundle.views import views
from service.inference.backend import Backend, Model, open_backend
from training.data.annotations.wider import read_shards
from training.data.photographs import Photograph
from training.data.widerface import wider
from training.data.yunet import YuNet
from training.evaluation.detection import curve
from training.evaluation.finding import Truth, precisions, tallies
from training.evaluation.scales import MULTI, NMS_IOU, ORIGINAL, VGA, Find, Scale, seen_at
from training.export.detection import TOP_K
from training.export.sessions import LEAST_SCORE, finder, session

BACKENDS = ("onnxruntime", "openvino")
CANVASES = tuple(
    VGA if size == VGA.canvas else Scale(f"{size[0]} × {size[1]}", size)
    for size in ((384, 288), (512, 384), (640, 480), (768, 576), (1024, 768))
)
YUNET = "YuNet"
ALONE = "graph alone"  # without decoding: what the network costs, both in the same runtime
YUNET_REPORTS = 0.5  # the score from which it reports a face; hardly a part of its time
TIMED = 8  # pictures
QUICK = 40

Timed = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """A detector on a backend.

    find: from LEAST_SCORE on, to be judged; None where its accuracy is not measured; report: as it would be used, to be
    timed; scores: of a canvas, to compare backends by; against: name and backend whose time its own is a multiple of.
    """

    name: str
    backend: str
    scales: tuple[Scale, ...]
    find: Find | None
    report: Callable[[Picture], object]
    scores: Callable[[Picture], np.ndarray] | None = None
    against: tuple[str, str] = (YUNET, "opencv")


def contenders(bundle: Bundle, yunet: Path, scales: Sequence[Scale]) -> list[Contender]:
    """Each form on each backend with one view at every scale, and as it is served at VGA; and YuNet, in OpenCV, which
    is how it comes, and its graph alone in ONNX Runtime, which takes less than half of that.

    OpenVINO compiles for a shape, so it is not asked about pictures of any size.
    """
    manifest = bundle.manifest
    forms = {manifest.detector.file: BACKENDS}
    forms |= {of.file: of.backends for of in manifest.variants if of.of == "detector"}
    every: list[Contender] = []
    for file, backends in forms.items():
        usable = [of for of in backends if of in BACKENDS and find_spec(of)]
        for place, kind in enumerate(usable):
            model = Model(bundle.file(file), manifest.detector.input, manifest.detector.outputs)
            of_kind = [of for of in scales if kind == "onnxruntime" or of.canvas is not None]
            every += _forms(
                bundle, file, kind, open_backend(kind, model, 1), tuple(of_kind), judged=not place
            )
    find, report = (YuNet(yunet, score, NMS_IOU, TOP_K).detect for score in (LEAST_SCORE, YUNET_REPORTS))
    every.append(Contender(YUNET, "opencv", tuple(scales), find, report))
    beside = session(yunet)
    name = beside.get_inputs()[0].name
    return [*every, _alone(YUNET, "onnxruntime", lambda of: beside.run(None, {name: _planes(of)}))]


def _alone(name: str, backend: str, run: Callable[[Picture], object]) -> Contender:
    """A network's time at VGA, without what is made of its answers."""
    return Contender(
        f"{name}, {ALONE}",
        backend,
        (VGA,),
        None,
        run,
        against=(f"{YUNET}, {ALONE}", "onnxruntime"),
    )


def _planes(canvas: Picture) -> np.ndarray:
    return canvas.transpose(2, 0, 1)[None].astype(np.float32)


def _forms(
    bundle: Bundle, file: str, kind: str, backend: Backend, scales: tuple[Scale, ...], *, judged: bool
) -> Iterator[Contender]:
    spec = bundle.manifest.detector
    one_view = spec.model_copy(update={"near_scale": 0.0})
    wide = one_view.model_copy(update={"top_k": TOP_K})
    of = partial(finder, backend)
    yield Contender(
        f"{file}, one view",
        kind,
        scales,
        of(wide) if judged else None,
        of(one_view, spec.min_score),
        lambda canvas: backend.run(canvas[None])[0],
    )
    yield Contender(
        f"{file}, as served", kind, (VGA,), of(spec) if judged else None, of(spec, spec.min_score)
    )
    yield _alone(f"{file}, one view", kind, lambda canvas: backend.run(canvas[None]))
    yield _alone(
        f"{file}, as served",
        kind,
        lambda canvas: [backend.run(of.pixels[None]) for of in views(canvas, spec)],
    )


def judged(
    every: Sequence[Contender], photographs: Iterator[Photograph], lists: Path
) -> dict[tuple[str, str], Row]:
    """AP and recall of each contender whose accuracy is measured, by its name and scale's."""
    truth: list[Truth] = []
    found: dict[tuple[str, str], list[Detections]] = {}
    asked = [(of, find) for of in every if (find := of.find)]
    for photograph in tqdm(photographs, desc="finding faces", unit="picture", mininterval=5):
        truth.append(Truth.of(photograph))
        for of, find in asked:
            answers = seen_at(find, np.asarray(photograph.pixels), of.scales)
            for scale, answer in zip(of.scales, answers, strict=True):
                found.setdefault((of.name, scale.name), []).append(answer)
    return {
        (of.name, scale.name): _accuracy(scale, truth, found[of.name, scale.name], lists)
        for of, _ in asked
        for scale in of.scales
    }


def _accuracy(scale: Scale, truth: Sequence[Truth], found: Sequence[Detections], lists: Path) -> Row:
    ap = precisions(tallies(truth, found, lists))
    recall = curve([of.scene(scale=scale) for of in truth], found).at_false_positives(1.0)
    rounded = {f"ap_{setting}": round(value, 4) for setting, value in ap.items()}
    return rounded | {"recall_1fp": round(recall.recall, 4), "pictures": len(truth)}


def timed(
    every: Sequence[Contender], pictures: Sequence[Picture], rounds: int
) -> dict[tuple[str, str, str], Row]:
    """By name, backend and scale's name; `times_yunet` by processor time, at the same scale and at VGA; of a network
    alone over YuNet's alone."""
    calls = {
        (of.name, of.backend, scale.name): _call(of.report, views_of(pictures, scale))
        for of in every
        for scale in of.scales
    }
    taken = interleaved({"/".join(key): call for key, call in calls.items()}, rounds, warm_up=len(pictures))
    cpu = {key: float(np.median(taken["/".join(key)].cpu)) for key in calls}
    against = {(of.name, of.backend): of.against for of in every}
    return {
        key: {name: ms for name, ms in taken["/".join(key)].row().items() if "cpu" in name}
        | {
            "times_yunet": round(cpu[key] / cpu[*against[key[:2]], key[2]], 2),
            "times_yunet_at_vga": round(cpu[key] / cpu[*against[key[:2]], VGA.name], 2),
        }
        for key in calls
    }


def views_of(pictures: Sequence[Picture], scale: Scale) -> list[list[Picture]]:
    """The canvases of each picture at the scale."""
    return [
        [letterbox(of, size, max_upscale=ratio)[0] for size, ratio in scale.views(of.shape[1], of.shape[0])]
        for of in pictures
    ]


def _call(report: Find, canvases: Sequence[Sequence[Picture]]) -> Timed:
    """One picture more at each call, in turn."""
    turn = itertools.cycle(canvases)
    return lambda: [report(canvas) for canvas in next(turn)]


def agreement(every: Sequence[Contender], pictures: Sequence[Picture]) -> dict[tuple[str, str], float]:
    """By name and backend: how far a score lies at most from that of the form's judged backend, at VGA."""
    canvases = [views[0] for views in views_of(pictures, VGA)]
    first = {of.name: of for of in every if of.find and of.scores}
    return {
        (of.name, of.backend): max(
            float(np.abs(of.scores(canvas) - exact(canvas)).max()) for canvas in canvases
        )
        for of in every
        if of.scores and not of.find and (exact := first[of.name].scores)
    }


def rows(
    every: Sequence[Contender],
    time: Mapping[tuple[str, str, str], Row],
    accuracy: Mapping[tuple[str, str], Row],
    apart: Mapping[tuple[str, str], float],
) -> list[Row]:
    result: list[Row] = []
    for of in every:
        for scale in of.scales:
            row = {"detector": of.name, "backend": of.backend, "scale": scale.name}
            row |= time[of.name, of.backend, scale.name]
            if of.find:
                row |= accuracy[of.name, scale.name]
            elif (of.name, of.backend) in apart:
                row["scores_differ_most"] = float(f"{apart[of.name, of.backend]:.2g}")
            result.append(row)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--data", type=Path, default=None, help="default: as training finds it")
    parser.add_argument("--multi-scale", action="store_true", help="too: several times as long")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--pictures", type=int, default=None, help="N, spread over all")
    part.add_argument("--quick", action="store_true", help=f"{QUICK} pictures, VGA alone")
    parser.add_argument("--rounds", type=int, default=24, help="of the timing")
    arguments = parser.parse_args()
    data = datasets("detector", arguments.data, (WIDER, PROTOCOL, YUNET_GRAPH))
    if data is None:
        return
    scales = (
        (VGA,) if arguments.quick else (*CANVASES, ORIGINAL, *((MULTI,) if arguments.multi_scale else ()))
    )
    bundle = open_bundle(arguments.bundle)
    every = contenders(bundle, data / YUNET_GRAPH, scales)
    pictures = [np.asarray(of.pixels) for of in _spread(data / WIDER, TIMED)]
    time = timed(every, pictures, arguments.rounds)
    wanted = QUICK if arguments.quick else arguments.pictures
    found = rows(
        every,
        time,
        judged(every, _spread(data / WIDER, wanted), data / PROTOCOL),
        agreement(every, pictures),
    )
    if wanted is not None:
        print(table(found))
        return
    write_result(
        "detector",
        "How accurate is the detector for the time that it takes, beside YuNet in the same run? (one thread; "
        "times_yunet: processor time over YuNet's at the same scale, and over YuNet's at VGA; AP: WIDER's own "
        "evaluation on the subset of its validation set, at that scale; recall: faces of 40 pixels and more as seen, "
        "at one false positive a picture; as served: with the small copy of each canvas; graph alone: "
        "the network without decoding, over YuNet's alone in ONNX Runtime, for OpenCV takes much longer)",
        found,
        bundle=bundle.manifest.model_id,
        libraries=versions(*filter(find_spec, BACKENDS), "opencv-python-headless", "numpy"),
    )


def _spread(root: Path, wanted: int | None) -> Iterator[Photograph]:
    """All validation pictures, or `wanted` from the first to the last."""
    photographs = wider(root, "val")
    if wanted is None:
        return photographs
    count = sum(of.name.startswith("val/") for of in read_shards(root).entries)
    return itertools.islice(photographs, 0, wanted * max(1, count // wanted), max(1, count // wanted))


if __name__ == "__main__":
    main()
