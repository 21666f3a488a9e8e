"""How much a face can be trusted, from its aligned crop and its five points: scores in 0–1, 0.5 is where trust ends.

Each scale is laid by measurement: 500 genuine LFW pairs, one picture of each made worse step by step, compared with
an independent embedder at FMR 1e-3 (FNMR 2 % for the untouched pairs), 2026-11-22. A changed scale needs it again:

    sharpness   0.057: FNMR 32 % (blur of 2.5 pixels); untouched pictures: 1 % lie below 0.092
    brightness  mean grey 12: 31 %, 225: 21 %; untouched: 72 to 167
    contrast    6.9: 11 %, 4.6: 31 to 71 %; untouched: 1 % lie below 25
    size        crop of 28 pixels: 17 %, 32: 10 %, 40: 4 %

and the pose on 1,300 pairs by another detector's points, FNMR at the same threshold:

    yaw         nose off the middle by less than 0.35 eye distances: 2 % throughout; 0.35 to 0.45: 18 %
    pitch       nose 0.30 to 0.80 of the way from the eyes to the mouth: 2 % throughout (1 % lie below 0.47, above 0.72)
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from bundle.align import CROP, similarity

# At the scale's value the component is 0.5, at its double 1.
_SHARPNESS = 0.055  # share of the deviation that a blur of 1.5 pixels takes away
_DARK, _BRIGHT = 12.0, 30.0  # mean grey above 0, below 255
_CONTRAST = 6.5  # standard deviation of grey
_SIDE = 28.0  # the crop's side in pixels of the picture

LOW = 0.5  # below this overall a face matches nobody

# The nose leaves the middle of the face when the head turns: at these distances `frontal` is 0.
_YAW = 0.8  # of the eyes' distance; 0.5 lies where FNMR has risen from 2 to 18 %
_PITCH = 0.6  # of the distance between eyes and mouth, from its usual place
_NOSE = 0.55  # the usual place: between the alignment template (0.495) and what a detector finds (0.60)
EXTREME_POSE = 0.5  # not enrolled
PROFILE = 0.2  # one eye is hidden, five points no longer fix an alignment: matches nobody

ENROL_SIDE = 40.0  # pixels: a template is compared for years, so it must be better than a probe

_INNER = (
    slice(12, 108),
    slice(12, 100),
)  # rows, columns of the crop that show the face, not what is around it


@dataclass(frozen=True, slots=True)
class Quality:
    """Scores in 0–1. `overall` is the least of sharpness, brightness, contrast and size.

    `frontal` is 1 for a face that looks into the camera; `detection` is the detector's score. Neither is part of
    `overall`: a turned head is a good picture of a turned head, and the detector has its own operating point.
    """

    overall: float
    sharpness: float
    brightness: float
    contrast: float
    size: float
    frontal: float
    detection: float

    @property
    def low(self) -> bool:
        """Whether the face must match nobody."""
        return self.overall < LOW or self.frontal < PROFILE

    @property
    def too_small(self) -> bool:
        """Whether the face is too small to be enrolled."""
        return self.size < min(1.0, ENROL_SIDE / (2 * _SIDE))

    @property
    def extreme_pose(self) -> bool:
        """Whether the head is turned too far to be enrolled."""
        return self.frontal < EXTREME_POSE

    def scores(self) -> dict[str, float]:
        """Name → score, `overall` first."""
        return {name: getattr(self, name) for name in self.__slots__}


def assess(crop: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32], score: float) -> Quality:
    """The quality of one face: its aligned crop uint8 (112, 112, 3), its landmarks (5, 2), the detector's score.

    Raises ValueError for degenerate landmarks.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)[_INNER].astype(np.float32)
    (mean,), (deviation,) = (of.ravel().tolist() for of in cv2.meanStdDev(grey))
    detail = cv2.meanStdDev(grey - cv2.GaussianBlur(grey, (0, 0), 1.5))[1].item()
    move = similarity(landmarks)
    side = CROP / float(np.hypot(move[0, 0], move[1, 0]))
    sharpness = _scaled(detail / max(deviation, 1.0), _SHARPNESS)
    brightness = min(_scaled(mean, _DARK), _scaled(255 - mean, _BRIGHT))
    contrast, size = _scaled(deviation, _CONTRAST), _scaled(side, _SIDE)
    return Quality(
        overall=min(sharpness, brightness, contrast, size),
        sharpness=sharpness,
        brightness=brightness,
        contrast=contrast,
        size=size,
        frontal=_frontal(landmarks),
        detection=min(max(score, 0.0), 1.0),
    )


def _scaled(value: float, half: float) -> float:
    return round(min(1.0, max(0.0, value / (2 * half))), 4)


def _frontal(landmarks: npt.NDArray[np.float32]) -> float:
    """1 for a face that looks into the camera, falling with the head's yaw and pitch; a tilted head is frontal."""
    points = landmarks.astype(np.float64)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    across, down = points[1] - points[0], mouth - eyes
    width, height = float(across @ across), float(down @ down)
    if width <= 0 or height <= 0:
        return 0.0
    middle = eyes + down * _NOSE
    yaw = abs(float((points[2] - middle) @ across)) / width
    pitch = abs(float((points[2] - middle) @ down)) / height
    return round(max(0.0, 1 - max(yaw / _YAW, pitch / _PITCH)), 4)
