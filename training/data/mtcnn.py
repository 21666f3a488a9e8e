"""MTCNN, a detector of faces with five points, as another way to align raw photographs.

Three small networks, each looking closer at what the one before let pass (Zhang et al. 2016, "Joint Face Detection and
Alignment Using Multitask Cascaded Convolutional Networks"). The weights are those inside the facenet-pytorch wheel,
which is read and never imported: it would ask for torchvision. Inside, boxes are edges, 0 … width; what `detect`
answers has pixel centres at integers, as everywhere.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bundle.decode import Detections, Floats, nms
from training.config import BadConfig

CELL, STRIDE = 12, 2  # pixels: what the first network sees of a face, and how far apart it looks
PYRAMID = 0.709  # of one scale to the next: half the area
SMALLEST = 20.0  # pixels of a face's side; less is not looked for
DEEPEST = (
    32  # nor what is smaller than this part of the picture's longer side: it keeps large photographs cheap
)
SCORES = (0.6, 0.7, 0.7)  # least, at each network
WITHIN_SCALE, ACROSS = 0.5, 0.7  # overlap from which the lower score goes
MOST = 1000  # proposals that the second network looks at
INSTALL = "pip install --no-deps facenet-pytorch==2.5.3"


def weights() -> Path:
    """The folder of pnet.pt, rnet.pt and onet.pt. Raises BadConfig, which says what to install."""
    package = importlib.util.find_spec("facenet_pytorch")
    places = list(package.submodule_search_locations or ()) if package else []
    if not places:
        raise BadConfig(f"MTCNN's weights are not here: {INSTALL} (plainly installed it replaces torch)")
    return Path(places[0]) / "data"


class MTCNN:
    """The three networks. `detect` may be called by several threads at once."""

    def __init__(self, folder: Path) -> None:
        """Raises BadConfig for a folder without the weights, or with others."""
        self._networks = (_Proposal(), _Refinement(), _Output())
        for network, name in zip(self._networks, ("pnet.pt", "rnet.pt", "onet.pt"), strict=True):
            try:
                network.load_state_dict(torch.load(folder / name, map_location="cpu", weights_only=True))
            except (OSError, RuntimeError) as error:
                raise BadConfig(f"{folder / name}: not MTCNN's weights ({error}); {INSTALL}") from error
            network.eval().requires_grad_(False)

    @torch.inference_mode()
    def detect(self, picture: npt.NDArray[np.uint8]) -> Detections:
        """Faces of an RGB picture (h, w, 3), best first."""
        propose, refine, output = self._networks
        boxes = _squares(self._proposals(propose, picture))
        score, shift = (of.numpy() for of in refine(_crops(picture, boxes, 24)))
        boxes = _squares(_best(_moved(boxes, shift), score, SCORES[1]))
        score, shift, points = (of.numpy() for of in output(_crops(picture, boxes, 48)))
        low, side = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
        landmarks = low + points.reshape(-1, 2, 5).swapaxes(1, 2) * side
        boxes = _moved(boxes, shift)
        kept = np.flatnonzero(score >= SCORES[2])
        kept = kept[_apart(boxes[kept], score[kept], ACROSS)]
        return Detections(boxes[kept] - 0.5, (landmarks[kept] - 0.5).astype(np.float32), score[kept])

    @staticmethod
    def _proposals(network: nn.Module, picture: npt.NDArray[np.uint8]) -> Floats:
        """(n, 4): what may be a face, at every scale of the pyramid."""
        boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
        height, width = picture.shape[:2]
        for scale in scales(width, height):
            size = round(width * scale), round(height * scale)
            score, shift = (of[0].numpy() for of in network(_tensor([_resized(picture, size)])))
            row, column = np.nonzero(score >= SCORES[0])
            low = np.stack([column, row], 1) * STRIDE
            ratio = np.tile(np.divide((width, height), size), 2)
            cells = (np.concatenate([low, low + CELL], 1) * ratio).astype(np.float32)
            kept = nms(cells, score[row, column], WITHIN_SCALE)
            boxes.append(_moved(cells, shift[:, row, column].T)[kept])
            scores.append(score[row, column][kept])
        return _best(np.concatenate(boxes), np.concatenate(scores), SCORES[0])[:MOST]


def scales(width: int, height: int) -> list[float]:
    """Of the pyramid, largest first: a face of the least side fills the first network's cell at the first of them."""
    least = max(SMALLEST, max(width, height) / DEEPEST)
    found, scale = [], CELL / least
    while min(width, height) * scale >= CELL:
        found.append(scale)
        scale *= PYRAMID
    return found


def _best(boxes: Floats, scores: Floats, least: float) -> Floats:
    """Boxes of at least the score, best first, none of which overlaps a better one."""
    boxes, scores = boxes[scores >= least], scores[scores >= least]
    return boxes[nms(boxes, scores, ACROSS)]


def _apart(boxes: Floats, scores: Floats, most: float) -> npt.NDArray[np.intp]:
    """Indices, best first: none shares more than `most` of the smaller one's area with a better one.

    Unlike the usual overlap this takes an eye's small box for the face that it lies in.
    """
    kept: list[int] = []
    area = (boxes[:, 2:] - boxes[:, :2]).clip(1e-6).prod(1)
    for index in np.argsort(-scores, kind="stable"):
        better = boxes[kept]
        shared = np.minimum(boxes[index, 2:], better[:, 2:]) - np.maximum(boxes[index, :2], better[:, :2])
        if not (shared.clip(0).prod(1) > most * np.minimum(area[index], area[kept])).any():
            kept.append(int(index))
    return np.array(kept, np.intp)


def _moved(boxes: Floats, shift: Floats) -> Floats:
    """Boxes (n, 4) whose edges move by shares (n, 4) of width and height."""
    extent = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return np.asarray(boxes + shift * extent, np.float32)


def _squares(boxes: Floats) -> Floats:
    """The square on whole pixels around each box, as wide as its longer side."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.rint((boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True, initial=1))
    low = np.rint(middle - side / 2)
    return np.asarray(np.concatenate([low, low + side], 1), np.float32)


def _crops(picture: npt.NDArray[np.uint8], boxes: Floats, side: int) -> Tensor:
    """float32 [n, 3, side, side] normalised: the squares, black where they leave the picture."""
    return _tensor([_resized(_cut(picture, box), (side, side)) for box in boxes.astype(int)], side)


def _cut(picture: npt.NDArray[np.uint8], box: npt.NDArray[np.int_]) -> npt.NDArray[np.uint8]:
    left, top, right, bottom = box
    inside = picture[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    above, before = min(max(0, -top), bottom - top), min(max(0, -left), right - left)
    below, after = bottom - top - above - inside.shape[0], right - left - before - inside.shape[1]
    return np.pad(inside, ((above, below), (before, after), (0, 0)))


def _resized(picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    how = cv2.INTER_AREA if size[0] < picture.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=how), np.uint8)


def _tensor(pictures: list[npt.NDArray[np.uint8]], side: int = 0) -> Tensor:
    stacked = np.stack(pictures) if pictures else np.zeros((0, side, side, 3), np.uint8)
    return (torch.from_numpy(stacked).permute(0, 3, 1, 2).float() - 127.5) / 128


class _Proposal(nn.Module):
    """Fully convolutional; 12 × 12 pixels are one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """[n, 3, h, w] → score [n, rows, columns] and the edges' shift [n, 4, rows, columns]."""
        seen = F.max_pool2d(self.prelu1(self.conv1(picture)), 2, 2, ceil_mode=True)
        seen = self.prelu3(self.conv3(self.prelu2(self.conv2(seen))))
        return self.conv4_1(seen).softmax(1)[:, 1], self.conv4_2(seen)


class _Refinement(nn.Module):
    """24 × 24 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        """[n, 3, 24, 24] → score [n] and the edges' shift [n, 4]."""
        seen = F.max_pool2d(self.prelu1(self.conv1(crop)), 3, 2, ceil_mode=True)
        seen = F.max_pool2d(self.prelu2(self.conv2(seen)), 3, 2, ceil_mode=True)
        seen = self.prelu4(self.dense4(_columns_first(self.prelu3(self.conv3(seen)))))
        return self.dense5_1(seen).softmax(1)[:, 1], self.dense5_2(seen)


class _Output(nn.Module):
    """48 × 48 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[n, 3, 48, 48] → score [n], the edges' shift [n, 4], and the points [n, 10]: five x, then five y, in 0–1."""
        seen = F.max_pool2d(self.prelu1(self.conv1(crop)), 3, 2, ceil_mode=True)
        seen = F.max_pool2d(self.prelu2(self.conv2(seen)), 3, 2, ceil_mode=True)
        seen = F.max_pool2d(self.prelu3(self.conv3(seen)), 2, 2, ceil_mode=True)
        seen = self.prelu5(self.dense5(_columns_first(self.prelu4(self.conv4(seen)))))
        return self.dense6_1(seen).softmax(1)[:, 1], self.dense6_2(seen), self.dense6_3(seen)


def _columns_first(seen: Tensor) -> Tensor:
    """[n, c, h, w] → [n, w · h · c]: the dense layers were trained on pictures stored by columns."""
    return seen.permute(0, 3, 2, 1).flatten(1)
