"""The parity ladder: the same pictures through the trained model and through the exported graph, or no bundle.

The golden inputs are drawn or generated, never a person's picture; a change of them only changes what is compared.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from training.data.drawing import aligned
from training.data.scenes import draw_scene
from training.export.sessions import ServedGraph

COSINE_LEAST = 0.999999
DIFFERENCE_MOST = 1e-4
OFFSETS_MOST = 1e-3  # of boxes and landmarks, whose unit is a tenth of an anchor
SENTINEL_LEAST = 1e-3  # what swapped channels must move at least, for a swap to be noticed

Outputs = tuple[np.ndarray, ...]


class ParityFailed(Exception):
    """The graph does not compute what the model does; the message names the input and by how much."""


def golden_crops() -> np.ndarray:
    """uint8 [4, 112, 112, 3]: black, white, noise and a drawn face."""
    noise = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    return np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise, aligned(1, 0)])


def golden_scenes(width: int, height: int) -> np.ndarray:
    """uint8 [4, height, width, 3]: black, white, noise and a drawn scene."""
    noise = np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)
    return np.stack(
        [np.zeros_like(noise), np.full_like(noise, 255), noise, draw_scene(0, width, height).pixels]
    )


def check_embedder(module: nn.Module, graph: ServedGraph) -> dict[str, float]:
    """Compare at batch 1, 3 and 4 and with swapped channels. Returns what was measured; raises ParityFailed."""
    crops = golden_crops()
    (expected,) = _reference(module, crops)
    lowest, furthest = 1.0, 0.0
    for got in _batches(graph.run, crops):
        lowest = min(lowest, _cosine(expected[: len(got[0])], got[0]))
        furthest = max(furthest, float(np.abs(got[0] - expected[: len(got[0])]).max()))
    if not lowest >= COSINE_LEAST or not furthest <= DIFFERENCE_MOST:
        raise ParityFailed(
            f"{graph.path.name}: cosine {lowest:.8f}, largest difference {furthest:.2g} from the model"
        )
    length = float(np.abs(np.linalg.norm(expected, axis=1) - 1).max())
    if length > 1e-5:
        raise ParityFailed(f"{graph.path.name}: embeddings are not unit vectors, off by {length:.2g}")
    moved = float(np.abs(graph.run(crops[3:, ..., ::-1])[0] - expected[3:]).max())
    if moved < SENTINEL_LEAST:
        raise ParityFailed(
            f"{graph.path.name}: swapped channels change nothing ({moved:.2g}): grey or channel-blind"
        )
    return {"cosine_least": lowest, "difference_most": furthest, "swapped_channels_move": moved}


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


def check_variant(original: ServedGraph, variant: ServedGraph, crops: np.ndarray) -> dict[str, float]:
    """An embedder's variant against the graph that it was made from; raises ParityFailed."""
    expected, got = original.embed(crops), variant.embed(crops)
    cosine, difference = _cosine(expected, got), float(np.abs(expected - got).max())
    if not cosine >= COSINE_LEAST or not difference <= DIFFERENCE_MOST:
        raise ParityFailed(f"{variant.path.name}: cosine {cosine:.8f}, largest difference {difference:.2g}")
    return {"cosine_least": cosine, "difference_most": difference, "compared_on": float(len(crops))}


def _cosine(expected: np.ndarray, got: np.ndarray) -> float:
    """The lowest of the rows' cosines, in float64: in float32 a cosine of 1 can read 0.9999997."""
    ours, theirs = expected.astype(np.float64), got.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(((ours * theirs).sum(1) / lengths).min())


def _batches(run: Callable[[np.ndarray], Outputs], pictures: np.ndarray) -> list[Outputs]:
    """Answers for the first picture alone and the first three; then all, each alone, as if in one batch."""
    single = [run(picture[None]) for picture in pictures]
    joined = tuple(np.concatenate(parts) for parts in zip(*single, strict=True))
    return [run(pictures[:3]), run(pictures), joined]


@torch.inference_mode()
def _reference(module: nn.Module, pictures: np.ndarray) -> Outputs:
    module.eval()
    # One by one: a batch of the reference must not share a fault with a batch of the graph.
    parts = []
    for picture in pictures:
        answer = module(torch.from_numpy(picture[None]))
        parts.append(answer if isinstance(answer, tuple) else (answer,))
    return tuple(np.concatenate([part[i].numpy() for part in parts]) for i in range(len(parts[0])))
