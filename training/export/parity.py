"""Parity: the same pictures through the trained model and through a graph, and through two graphs; or no bundle.

The golden inputs are drawn or generated, never a person's picture; a change of them only changes what is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from training.data.drawing import aligned
from training.data.scenes import draw_scene
from training.export.sessions import ServedGraph

COSINE_LEAST = 0.999999
DIFFERENCE_MOST = 1e-4
OFFSETS_MOST = 1e-3  # of boxes and landmarks, whose unit is a tenth of an anchor
BATCH_COSINE_LEAST = 0.9999  # in half precision and int8 a batch may be summed in another order
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

    def row(self) -> dict[str, float]:
        return {name: float(value) for name, value in asdict(self).items()}

    def __str__(self) -> str:
        return f"cosine {self.cosine_least:.8f}, largest difference {self.difference_most:.2g}"


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
    module: nn.Module, graph: ServedGraph, canvases: tuple[tuple[int, int], ...]
) -> dict[str, float]:
    """Compare scores, boxes and landmarks on every canvas (width, height) at batch 1, 3 and 4; raises ParityFailed."""
    worst = [0.0, 0.0, 0.0]
    for width, height in canvases:
        scenes = golden_scenes(width, height)
        expected = _reference(module, scenes)
        for got in _batches(graph.run, scenes):
            gaps = [float(np.abs(g - e[: len(g)]).max()) for g, e in zip(got, expected, strict=True)]
            worst = [max(pair) for pair in zip(worst, gaps, strict=True)]
    score, box, landmark = worst
    if not score <= DIFFERENCE_MOST or not max(box, landmark) <= OFFSETS_MOST:
        raise ParityFailed(
            f"{graph.path.name}: score off by {score:.2g}, box {box:.2g}, landmark {landmark:.2g}"
        )
    return {"score_difference_most": score, "box_difference_most": box, "landmark_difference_most": landmark}


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
