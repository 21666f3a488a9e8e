"""Parity: the same pictures through the trained model and through a graph, and through two graphs; or no bundle.

The golden inputs are drawn or generated, never a person's picture; a change of them only changes what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from bundle.decode import Detections, detections, iou
from bundle.manifest import DetectorSpec
from bundle.views import shapes
from training.data.drawing import aligned
from training.data.scenes import draw_scene
from training.export.sessions import LEAST_SCORE, ServedGraph

COSINE_LEAST = 0.999999
# What a detector's graph may be off by: of scores, and of boxes and landmarks, whose unit is a tenth of an anchor. A
# trained one (boxes and landmarks up to 10) is off by 4e-7 and 2e-5. Random weights are no measure of these limits: the
# same layers, with outputs as large, are off by 8e-6 and 5e-5; a ResNet-50 with the statistics of noise by 2e-4 and
# 2e-3, for its outputs reach 280. Of its best 400 scores 307 are exactly 1: which of these faces suppression keeps is
# chance, 3 % are "not found", and with the model's own scores none.
DIFFERENCE_MOST = 1e-4
OFFSETS_MOST = 1e-3
BATCH_COSINE_LEAST = 0.9999  # in half precision and int8 a batch may be summed in another order
BATCH_SCORE_MOST = 0.01
IOU_LEAST = 0.99
SURE = 0.3  # score of a face that another detector has to find too
SAME_FACE = 0.5  # IoU
MAX_BATCH = 32  # what the service sends to a GPU

Outputs = tuple[np.ndarray, ...]
Embed = Callable[[np.ndarray], np.ndarray]  # uint8 [n, 112, 112, 3] → float32 [n, d]


class ParityFailed(Exception):
    """The graph does not compute what the model does; the message names the input and by how much."""


@dataclass(frozen=True)
class Agreement:
    """How near two embedders' answers to the same faces are: the rows' cosines, the largest difference of a number."""

    cosine_least: float
    cosine_mean: float
    cosine_p1: float  # the first percentile
    difference_most: float
    compared_on: int  # faces

    @property
    def exact(self) -> bool:
        return self.cosine_least >= COSINE_LEAST and self.difference_most <= DIFFERENCE_MOST

    @property
    def sound(self) -> bool:
        """Whether all answers are finite numbers."""
        return bool(np.isfinite(self.difference_most))

    @property
    def nearest_least(self) -> float:
        """Of the worst face: 1 is the same."""
        return self.cosine_least

    def row(self) -> dict[str, float]:
        return {name: float(value) for name, value in asdict(self).items()}

    def cells(self) -> dict[str, str]:
        """Column → text, for the ladder's table."""
        return {
            "cosine least": f"{self.cosine_least:.6f}",
            "mean": f"{self.cosine_mean:.6f}",
            "1st percentile": f"{self.cosine_p1:.6f}",
            "largest difference": f"{self.difference_most:.1g}",
        }

    def __str__(self) -> str:
        return f"cosine {self.cosine_least:.8f}, largest difference {self.difference_most:.2g}"


@dataclass(frozen=True)
class FoundAgreement:
    """How near two detectors' faces in the same pictures are, of those that one is sure of and both find.

    Percentiles, because of two anchors with nearly the same score either may suppress the other: a face's box jumps.
    """

    iou_least: float
    iou_p1: float  # the first percentile
    score_p99: float  # difference of the scores
    points_p99: float  # distance of a landmark from its counterpart, over the root of the box's area
    missing: float  # share that one is sure of and the other does not find at all
    compared_on: int  # faces

    @property
    def exact(self) -> bool:
        same = self.iou_p1 >= IOU_LEAST and self.points_p99 <= OFFSETS_MOST
        return same and self.score_p99 <= DIFFERENCE_MOST and self.missing <= 0.01

    @property
    def sound(self) -> bool:
        """Whether all answers are finite numbers: what is not is not found."""
        return self.missing < 1

    @property
    def nearest_least(self) -> float:
        """Of the worst face: 1 is the same."""
        return self.iou_least

    def row(self) -> dict[str, float]:
        return {name: float(value) for name, value in asdict(self).items()}

    def cells(self) -> dict[str, str]:
        """Column → text, for the ladder's table."""
        return {
            "IoU least": f"{self.iou_least:.4f}",
            "1st percentile": f"{self.iou_p1:.4f}",
            "score, 99th percentile": f"{self.score_p99:.1g}",
            "points, 99th percentile": f"{self.points_p99:.1g}",
            "not found": f"{self.missing:.2%}",
        }

    def __str__(self) -> str:
        return (
            f"boxes of {self.compared_on} faces IoU {self.iou_p1:.4f} (1st percentile), scores off by "
            f"{self.score_p99:.2g}, points by {self.points_p99:.2g} of a face (99th), {self.missing:.2%} not found"
        )


def agreement(expected: np.ndarray, got: np.ndarray) -> Agreement:
    """expected, got: float32 [n, d]. In float64: in float32 a cosine of 1 can read 0.9999997.

    An answer that is not a finite number agrees with nothing: its cosine is 0, and the difference infinite.
    """
    ours, theirs = expected.astype(np.float64), got.astype(np.float64)
    sound = np.isfinite(theirs).all(axis=1, keepdims=True)
    theirs = np.where(sound, theirs, 0)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosine = (ours * theirs).sum(1) / np.maximum(lengths, 1e-12)
    return Agreement(
        cosine_least=float(cosine.min()),
        cosine_mean=float(cosine.mean()),
        cosine_p1=float(np.quantile(cosine, 0.01)),
        difference_most=float(np.abs(ours - theirs).max()) if sound.all() else float("inf"),
        compared_on=len(cosine),
    )


def found_agreement(
    expected: Sequence[Detections], got: Sequence[Detections], sure: float = SURE
) -> FoundAgreement:
    """expected, got: what two detectors find in the same pictures, from scores well below `sure` on.

    Where neither is sure of any face they agree: about nothing, as `compared_on` says.
    """
    pairs = [_counterparts(*of, sure) for of in zip(expected, got, strict=True)]
    overlap, score, points = np.concatenate([np.zeros((3, 0)), *pairs], 1)
    found = overlap >= SAME_FACE
    return FoundAgreement(
        iou_least=float(overlap.min(initial=1)),
        iou_p1=float(np.quantile(overlap[found], 0.01)) if found.any() else float(not len(found)),
        score_p99=float(np.quantile(score[found], 0.99)) if found.any() else 0.0,
        points_p99=float(np.quantile(points[found], 0.99)) if found.any() else 0.0,
        missing=float((~found).mean()) if len(found) else 0.0,
        compared_on=len(found),
    )


def _counterparts(one: Detections, other: Detections, sure: float) -> np.ndarray:
    """float64 [3, faces]: IoU, difference of the scores, and the largest distance of a point over the box's size, of
    each face of one picture that either is sure of. Whoever is found by one alone has IoU 0."""
    ours = np.flatnonzero(one.scores >= sure)
    theirs = np.flatnonzero(other.scores >= sure)
    if not len(one) or not len(other):
        return np.zeros((3, len(ours) + len(theirs)))
    overlap = iou(one.boxes, other.boxes)
    alone = int((overlap[:, theirs].max(0) < SAME_FACE).sum())
    best = overlap[ours].argmax(1)
    moved = np.linalg.norm(one.landmarks[ours] - other.landmarks[best], axis=2).max(1)
    size = np.sqrt((one.boxes[ours, 2:] - one.boxes[ours, :2]).prod(1))
    pairs = np.stack([overlap[ours, best], np.abs(one.scores[ours] - other.scores[best]), moved / size])
    return np.concatenate([pairs, np.zeros((3, alone))], 1)


def golden_crops() -> np.ndarray:
    """uint8 [8, 112, 112, 3]: black, white, noise, a gradient across, one down in colour, and three drawn faces."""
    noise = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    ramp = np.linspace(0, 255, 112).round().astype(np.uint8)
    across = np.broadcast_to(ramp[None, :, None], noise.shape)
    down = np.stack([np.broadcast_to(of[:, None], (112, 112)) for of in (ramp, ramp[::-1], ramp // 2)], -1)
    faces = [aligned(person, 0) for person in (1, 2, 3)]
    return np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise, across, down, *faces])


def golden_scenes(width: int, height: int) -> np.ndarray:
    """uint8 [4, height, width, 3]: black, white, noise and a drawn scene."""
    noise = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    return np.stack(
        [np.zeros_like(noise), np.full_like(noise, 255), noise, draw_scene(0, width, height).pixels]
    )


def check_embedder(module: nn.Module, graph: ServedGraph, crops: np.ndarray | None = None) -> Agreement:
    """The graph against the model, on the golden crops in batches of 1, 3 and 32, and on `crops` one by one.

    crops: uint8 [n, 112, 112, 3] RGB. Raises ParityFailed, also for answers that are not unit vectors.
    """
    golden = golden_crops()
    given = golden if crops is None else np.concatenate([golden, crops])
    (expected,) = _reference(module, given)
    measured = agreement(expected, graph.embed(given))
    if not measured.exact:
        raise ParityFailed(f"{graph.path.name}: {measured} from the model")
    check_batches(graph, expected[: len(golden)], COSINE_LEAST)
    length = float(np.abs(np.linalg.norm(expected, axis=1) - 1).max())
    if length > 1e-5:
        raise ParityFailed(f"{graph.path.name}: embeddings are not unit vectors, off by {length:.2g}")
    return measured


def check_batches(graph: ServedGraph, expected: np.ndarray, cosine_least: float = BATCH_COSINE_LEAST) -> None:
    """A face's answer does not depend on its batch: 1, 3 and MAX_BATCH golden crops; raises ParityFailed.

    expected: float32 [8, d], the golden crops' answers.
    """
    crops = golden_crops()
    for size in (1, 3, MAX_BATCH):
        places = np.arange(size) % len(crops)
        measured = agreement(expected[places], graph.run(crops[places])[0])
        if not measured.cosine_least >= cosine_least:
            raise ParityFailed(f"{graph.path.name}: in a batch of {size}, {measured}")


def check_detector(
    module: nn.Module, graph: ServedGraph, spec: DetectorSpec, pictures: np.ndarray | None = None
) -> FoundAgreement:
    """The graph against the model: every number on golden scenes of each view's size in batches of 1, 3 and 4, and the
    faces on the drawn scenes and on `pictures`.

    pictures: uint8 [n, h, w, 3] RGB, h and w multiples of the coarsest stride. Raises ParityFailed.
    """
    given = []
    for width, height in shapes(spec):
        scenes = golden_scenes(width, height)
        expected = _reference(module, scenes)
        _check_outputs(graph, scenes, expected)
        given.append((scenes[-1], tuple(of[-1] for of in expected)))
    if pictures is not None:
        given += [(of, tuple(part[0] for part in _reference(module, of[None]))) for of in pictures]
    model = [_faces(outputs, picture, spec) for picture, outputs in given]
    found = [_faces(tuple(of[0] for of in graph.run(picture[None])), picture, spec) for picture, _ in given]
    measured = found_agreement(model, found)
    if not measured.exact:
        raise ParityFailed(f"{graph.path.name}: {measured}")
    return measured


def check_detector_batches(graph: ServedGraph, canvas: tuple[int, int]) -> None:
    """A picture's answer does not depend on its batch, nor is it anything but finite numbers; raises ParityFailed."""
    alone, *together = reversed(_batches(graph.run, golden_scenes(*canvas)))
    for got in (alone, *together):
        if not all(np.isfinite(of).all() for of in got):
            raise ParityFailed(f"{graph.path.name}: answers that are not finite numbers")
        off = float(np.abs(got[0] - alone[0][: len(got[0])]).max())
        if not off <= BATCH_SCORE_MOST:
            raise ParityFailed(f"{graph.path.name}: in a batch of {len(got[0])}, scores are off by {off:.2g}")


def _check_outputs(graph: ServedGraph, scenes: np.ndarray, expected: Outputs) -> None:
    for got in _batches(graph.run, scenes):
        gaps = [float(np.abs(g - e[: len(g)]).max()) for g, e in zip(got, expected, strict=True)]
        score, box, landmark = gaps
        if not score <= DIFFERENCE_MOST or not max(box, landmark) <= OFFSETS_MOST:
            raise ParityFailed(
                f"{graph.path.name}: score off by {score:.2g}, box {box:.2g}, landmark {landmark:.2g}"
            )


def _faces(outputs: Outputs, picture: np.ndarray, spec: DetectorSpec) -> Detections:
    """The outputs for one picture, decoded as the service decodes them."""
    (scores, deltas, offsets), (height, width) = outputs, picture.shape[:2]
    return detections(
        scores, deltas, offsets, width, height, spec.anchors, LEAST_SCORE, spec.nms_iou, spec.top_k
    )


def _batches(run: Callable[[np.ndarray], Outputs], pictures: np.ndarray) -> list[Outputs]:
    """Answers for the first three pictures and for all; then all, each alone, as if in one batch."""
    single = [run(picture[None]) for picture in pictures]
    joined = tuple(np.concatenate(parts) for parts in zip(*single, strict=True))
    return [run(pictures[:3]), run(pictures), joined]


@torch.inference_mode()
def _reference(module: nn.Module, pictures: np.ndarray) -> Outputs:
    module.eval()
    # One by one: a batch of the reference must not share a fault with a batch of the graph.
    parts = []
    for picture in pictures:
        answer = module(torch.from_numpy(np.ascontiguousarray(picture[None])))
        parts.append(answer if isinstance(answer, tuple) else (answer,))
    return tuple(np.concatenate([part[i].numpy() for part in parts]) for i in range(len(parts[0])))
