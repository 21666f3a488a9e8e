"""Encoded pictures to send: drawn people for the synthetic bundle, one photographed person for a trained one.

The photograph is scikit-image's `astronaut` (public domain), cut and lit in many ways; no other person is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.graphs import DEFAULT_BUNDLE

Picture = np.ndarray  # uint8 (h, w, 3) RGB
ASTRONAUT_FACE = (225, 117)  # its middle
SIZES = ((640, 480), (800, 600), (1024, 768), (1280, 960), (1280, 720))


def bundle_to_measure(asked: Path | None, folder: Path) -> Path:
    """`asked`, else models/default, else a synthetic bundle written into `folder`."""
    if asked is not None:
        return asked
    if (DEFAULT_BUNDLE / "bundle.json").is_file():
        return DEFAULT_BUNDLE
    from tests.synthetic_bundle import write_synthetic_bundle

    return write_synthetic_bundle(folder / "synthetic").path


def portraits(count: int, *, drawn: bool) -> list[bytes]:
    """`count` JPEG pictures of camera sizes with one face each."""
    rng = np.random.default_rng(3)
    return [jpeg(_drawn(rng, i) if drawn else _photographed(rng)) for i in range(count)]


def of_many_sizes(count: int, *, drawn: bool) -> list[bytes]:
    """`count` pictures from 40 × 40 to 3,000 × 2,000, no two alike in size; JPEG, PNG and WebP in turn."""
    rng = np.random.default_rng(4)
    encoded = []
    for i in range(count):
        width, height = (int(np.exp(rng.uniform(np.log(40), np.log(limit)))) for limit in (3000, 2000))
        source = _drawn(rng, i) if drawn else _photographed(rng)
        scale = min(width / source.shape[1], height / source.shape[0])
        picture = np.full((height, width, 3), 205, np.uint8)
        small = cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        small = small[:height, :width]
        picture[: small.shape[0], : small.shape[1]] = small
        encoded.append(_encode(picture, (".jpg", ".png", ".webp")[i % 3]))
    return encoded


def jpeg(picture: Picture) -> bytes:
    return _encode(picture, ".jpg")


def _encode(picture: Picture, kind: str) -> bytes:
    return cv2.imencode(kind, np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()


def _drawn(rng: np.random.Generator, identity: int) -> Picture:
    """One drawn person in a scene of one of SIZES."""
    from tests.drawn_faces import BACKGROUND, draw_person

    width, height = SIZES[identity % len(SIZES)]
    person = draw_person(identity, 1 + identity % 5, int(rng.integers(height // 6, height // 3)))
    scene = np.full((height, width, 3), BACKGROUND, np.uint8)
    tall, wide = min(height, person.shape[0]), min(width, person.shape[1])
    top, left = int(rng.integers(0, height - tall + 1)), int(rng.integers(0, width - wide + 1))
    scene[top : top + tall, left : left + wide] = person[:tall, :wide]
    return scene


def _photographed(rng: np.random.Generator) -> Picture:
    """The astronaut, cut around the face, in another light, at one of SIZES."""
    from skimage.data import astronaut

    source: Picture = astronaut()
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    across = float(rng.uniform(200, 430))
    down = across * height / width
    x, y = (middle + rng.uniform(-0.15, 0.15) * across for middle in ASTRONAUT_FACE)
    left, top = np.clip(x - across / 2, 0, 511 - across), np.clip(y - down / 2, 0, 511 - down)
    scale = width / across
    move = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    picture = cv2.warpAffine(
        source, move, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    if rng.random() < 0.5:
        picture = picture[:, ::-1]
    return np.clip(picture * rng.uniform(0.7, 1.15), 0, 255).astype(np.uint8)


def sizes(pictures: Sequence[bytes]) -> str:
    """What was sent, in words."""
    kilobytes = np.array([len(picture) for picture in pictures]) / 1e3
    return f"{len(pictures)} pictures, {np.median(kilobytes):.0f} kB at the median"
