"""The one photograph that tests may use, scikit-image's astronaut, cut so that her face fills as much of a frame as
asked."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

# Between what two detectors of others say of the photograph, which agree to 3 pixels.
BOX = np.array([180, 63, 270, 175], np.float64)  # xyxy
POINTS = np.array([[203.7, 103.2], [247.2, 104.2], [224.2, 128], [204.5, 143.3], [242.5, 144]])


@dataclass(frozen=True)
class Portrait:
    """uint8 (h, w, 3) RGB; the face's box (4,) xyxy and points (5, 2), float64, in its pixels."""

    picture: npt.NDArray[np.uint8]
    box: npt.NDArray[np.float64]
    points: npt.NDArray[np.float64]

    @property
    def eyes_apart(self) -> float:
        return float(np.linalg.norm(self.points[1] - self.points[0]))


def filling(fraction: float, size: tuple[int, int] = (640, 480)) -> Portrait:
    """Her face in the middle of a frame of `size` (width, height), whose height or width it fills by `fraction`; above
    1 the frame cuts chin and forehead off."""
    from skimage import data

    scale = fraction / float(((BOX[2:] - BOX[:2]) / size).max())
    shift = (np.array(size) - 1) / 2 - (BOX[:2] + BOX[2:]) / 2 * scale
    move = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    picture = cv2.warpAffine(
        data.astronaut(), move, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return Portrait(np.asarray(picture, np.uint8), BOX * scale + np.tile(shift, 2), POINTS * scale + shift)
