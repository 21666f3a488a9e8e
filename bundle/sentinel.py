"""The channel-order sentinel: a drawn colour picture and the answer that a bundle's embedder gives to it.

Red and blue that are swapped anywhere between a picture and the graph cost accuracy without any error. Whoever loads an
embedder asks it about this picture first: an answer that is not the expected one is a failed start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from bundle.align import CROP
from bundle.calibration import Digest

LEAST = 0.98  # cosine to the expected answer: the loosest variant that may be published is nearer
BLIND = 0.9999  # cosine of the answers to the picture and to the swapped one, above which no swap is noticed

Run = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]  # uint8 (n, 112, 112, 3) RGB → float (n, d)


class WrongAnswer(Exception):
    """The embedder does not answer the test picture as the bundle says; the message says what is likely wrong."""


class Sentinel(BaseModel):
    """What the embedder answers to `picture()`, and how near another answer must come (cosine)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    picture: Digest  # sha256 of the pixels, so that a change of the drawing is not taken for a wrong answer
    expected: tuple[float, ...] = Field(min_length=1)
    cosine_least: Annotated[float, Field(ge=0, le=1)]


def picture() -> npt.NDArray[np.uint8]:
    """(112, 112, 3) RGB: a head in warm colours before a blue sky, in whole numbers, so the same bytes everywhere."""
    y, x = np.mgrid[0:CROP, 0:CROP].astype(np.int64)
    drawn = np.stack([40 + y // 2, 90 + x // 2, 200 - y // 2], -1)

    def ellipse(at: tuple[int, int], half: tuple[int, int], colour: tuple[int, int, int]) -> None:
        inside = (x - at[0]) ** 2 * half[1] ** 2 + (y - at[1]) ** 2 * half[0] ** 2 <= (half[0] * half[1]) ** 2
        drawn[inside] = np.array(colour) - (x[inside, None] + y[inside, None]) // 8

    ellipse((56, 46), (46, 50), (96, 58, 24))  # hair
    ellipse((56, 64), (36, 50), (236, 172, 132))
    for eye in ((38, 52), (74, 52)):
        ellipse(eye, (8, 5), (250, 248, 244))
        ellipse(eye, (4, 4), (70, 120, 60))
        ellipse(eye, (2, 2), (24, 24, 28))
        ellipse((eye[0], eye[1] - 12), (10, 2), (90, 56, 30))
    ellipse((56, 72), (6, 9), (220, 140, 104))
    ellipse((56, 92), (16, 6), (196, 60, 72))
    return np.asarray(np.clip(drawn, 0, 255), np.uint8)


def sentinel(run: Run) -> Sentinel:
    """The sentinel of the embedder behind `run`.

    Raises WrongAnswer for one that cannot tell red from blue, or a picture from nothing.
    """
    expected, swapped = _answer(run, picture()), _answer(run, _swapped())
    alike = _cosine(expected, swapped)
    if _cosine(expected, _answer(run, np.zeros_like(picture()))) > BLIND:
        raise WrongAnswer(
            "the embedder answers the test picture and a black one alike: it was hardly trained, or it collapsed"
        )
    if alike > BLIND:
        raise WrongAnswer(
            f"swapped channels change nothing (cosine {alike:.6f}): the embedder is blind to colour"
        )
    return Sentinel(
        picture=_digest(),
        expected=tuple(round(float(value), 6) for value in expected),
        cosine_least=max(LEAST, (1 + alike) / 2),
    )


def check(expected: Sentinel, run: Run) -> float:
    """The cosine of the answer of `run` to the expected one. Raises WrongAnswer where it is too low.

    run: as it will be used, with whatever brings a picture to the graph: uint8 (1, 112, 112, 3) RGB → float (1, d).
    """
    if expected.picture != _digest():
        raise WrongAnswer(
            "this version draws another test picture than the bundle's: publish the bundle again"
        )
    wanted = np.asarray(expected.expected)
    answer = _answer(run, picture())
    if answer.shape != wanted.shape:
        raise WrongAnswer(
            f"the embedder answers {answer.shape[0]} numbers, the bundle says {wanted.shape[0]}"
        )
    near = _cosine(wanted, answer)
    if near >= expected.cosine_least:
        return near
    if _cosine(wanted, _answer(run, _swapped())) >= expected.cosine_least:
        raise WrongAnswer("red and blue are swapped on the way to the embedder: it must be given RGB")
    raise WrongAnswer(
        f"the embedder's answer to the test picture has cosine {near:.4f} to the expected one (least "
        f"{expected.cosine_least:.4f}): other weights, another preprocessing, or a broken runtime"
    )


def _swapped() -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(picture()[..., ::-1])


def _digest() -> str:
    return hashlib.sha256(picture().tobytes()).hexdigest()


def _answer(run: Run, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    answer = np.asarray(run(crop[None]), np.float64)
    if answer.ndim != 2 or len(answer) != 1 or not np.isfinite(answer).all():
        raise WrongAnswer(
            f"the embedder answers {answer.shape} for one picture, or numbers that are not finite"
        )
    return np.asarray(answer[0])


def _cosine(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))
