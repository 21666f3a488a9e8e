"""YuNet, the reference detector: a teacher of landmarks and a yardstick for ours. It is never shipped."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bundle.decode import Detections, nms


class YuNet:
    """The reference detector at one or several scales of a picture."""

    def __init__(self, path: Path, min_score: float = 0.02, nms_iou: float = 0.45, top_k: int = 2000) -> None:
        cv2.setNumThreads(1)
        self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), min_score, nms_iou, top_k)
        self._nms_iou = nms_iou

    def detect(self, picture: npt.NDArray[np.uint8], scales: tuple[float, ...] = (1.0,)) -> Detections:
        """Faces of an RGB picture (h, w, 3), the answers of all scales merged by NMS."""
        rows = np.concatenate([self._at(picture, scale) for scale in scales])
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1)
        kept = nms(boxes, rows[:, 14], self._nms_iou)
        return Detections(boxes[kept], rows[kept, 4:14].reshape(-1, 5, 2), rows[kept, 14])

    def _at(self, picture: npt.NDArray[np.uint8], scale: float) -> npt.NDArray[np.float32]:
        """(faces, 15): x, y, w, h, five points, score, in pixels of the unscaled picture."""
        height, width = picture.shape[:2]
        size = max(32, round(width * scale)), max(32, round(height * scale))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        bgr = cv2.cvtColor(cv2.resize(picture, size, interpolation=how), cv2.COLOR_RGB2BGR)
        self._net.setInputSize(size)
        _, found = self._net.detect(bgr)
        if found is None:
            return np.zeros((0, 15), np.float32)
        found[:, :14] *= np.tile([width / size[0], height / size[1]], 7)
        return np.asarray(found, np.float32)
