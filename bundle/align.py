"""From a face in a picture to the embedder's crop: five points, one similarity, one warp.

Coordinates have pixel centres at integers, as everywhere in `bundle`. The template and the warp are part of
the embedding space ("arcface-112-v1"): a change here that moves a pixel is a new alignment with a new name.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # (height, width, 3) RGB

CROP = 112  # side of the crop, pixels

# Left eye, right eye, nose, left and right mouth corner as seen in the picture (the ArcFace template).
TEMPLATE: npt.NDArray[np.float32] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)
TEMPLATE.flags.writeable = False

# Points whose variance is below this share of their coordinates' size cannot fix a scale and an angle.
_DEGENERATE = 1e-9


def similarity(landmarks: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The least-squares similarity (Umeyama; no reflection) from `landmarks` (5, 2), pixels, to TEMPLATE:
    (2, 3).

    Raises ValueError for a wrong shape, numbers that are not finite, or points that all but coincide.
    """
    points = np.asarray(landmarks, np.float64)
    if points.shape != TEMPLATE.shape:
        raise ValueError(f"expected five points (5, 2), got shape {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("landmarks must be finite numbers")
    middle, target = points.mean(0), TEMPLATE.astype(np.float64).mean(0)
    centred, wanted = points - middle, TEMPLATE - target
    spread = float((centred**2).sum())
    if spread <= _DEGENERATE * (1 + float((points**2).sum())):
        raise ValueError("landmarks coincide: no alignment follows from them")
    # In two dimensions Umeyama's rotation and scale have a closed form: the complex number a + ib that turns
    # `centred` into `wanted` with the least squared error. It can never be a reflection.
    along = float((centred * wanted).sum()) / spread
    across = float((centred[:, 0] * wanted[:, 1] - centred[:, 1] * wanted[:, 0]).sum()) / spread
    if along**2 + across**2 <= _DEGENERATE:
        raise ValueError("landmarks do not resemble a face: no alignment follows from them")
    turn = np.array([[along, -across], [across, along]])
    return np.concatenate([turn, (target - turn @ middle)[:, None]], 1)


def align(image: Picture, landmarks: npt.NDArray[Any]) -> Picture:
    """The (112, 112, 3) crop of the face with `landmarks` (5, 2) in `image` (h, w, 3) uint8 RGB; outside is
    black.

    Bilinear. Where the crop shrinks the picture by more than two, bilinear sampling would skip pixels: the
    picture is first averaged down by a whole factor. Raises ValueError for a wrong image or degenerate
    landmarks.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"expected a uint8 picture (height, width, 3), got {image.dtype} {image.shape}")
    move = similarity(landmarks)
    scale = float(np.hypot(move[0, 0], move[1, 0]))  # crop pixels per picture pixel
    factor = int(1 / scale + 0.01)
    if factor >= 2:
        image, move = _averaged(image, move, factor)
    warped = cv2.warpAffine(image, move, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(warped, np.uint8)


def _averaged(
    image: Picture, move: npt.NDArray[np.float64], factor: int
) -> tuple[Picture, npt.NDArray[np.float64]]:
    """The part of `image` that the crop shows, averaged over factor × factor pixels, and the warp that
    belongs to it."""
    left, top, right, bottom = _shown(image, move, factor)
    if right <= left or bottom <= top:  # nothing of the picture is in the crop
        return image[:1, :1] * np.uint8(0), move
    part = image[top:bottom, left:right]
    down, across = -(-part.shape[0] // factor) * factor, -(-part.shape[1] // factor) * factor
    if part.shape[:2] != (down, across):  # black beyond the border, as the warp has it
        part = np.pad(part, ((0, down - part.shape[0]), (0, across - part.shape[1]), (0, 0)))
    small = cv2.resize(part, (across // factor, down // factor), interpolation=cv2.INTER_AREA)
    # Pixel i of `small` has its centre at picture coordinate left + i·factor + (factor − 1)/2.
    shift = np.array([left, top], np.float64) + (factor - 1) / 2
    turn = move[:, :2]
    return np.asarray(small, np.uint8), np.concatenate(
        [turn * factor, (move[:, 2] + turn @ shift)[:, None]], 1
    )


def _shown(image: Picture, move: npt.NDArray[np.float64], factor: int) -> tuple[int, int, int, int]:
    """left, top, right, bottom of the crop's rectangle in the picture, with room for interpolation."""
    back = cv2.invertAffineTransform(move)
    corners = np.array([[0, 0, 1], [CROP, 0, 1], [0, CROP, 1], [CROP, CROP, 1]], np.float64) @ back.T
    height, width = image.shape[:2]
    low = np.floor(corners.min(0)) - 2 * factor
    high = np.ceil(corners.max(0)) + 2 * factor
    left, top = (int(v) for v in np.clip(low, 0, [width, height]))
    right, bottom = (int(v) for v in np.clip(high, 0, [width, height]))
    return left, top, right, bottom
