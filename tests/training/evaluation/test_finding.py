"""A perfect detector is measured as perfect, a blind one as blind, and small faces neither count nor harm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bundle.decode import Detections
from bundle.preprocess import letterbox
from training.data.widerface import Photograph, wider
from training.evaluation.finding import CANVAS, HEIGHTS, finding, keep, kept, look, precisions, tallies
from training.evaluation.scales import ORIGINAL

NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32))
PERFECT = dict.fromkeys(("easy", "medium", "hard"), 1.0)


def told(photographs: list[Photograph]):
    """A finder that was told the answers, in the order in which it will be asked."""
    waiting = iter(photographs)

    def find(canvas: np.ndarray) -> Detections:
        photograph = next(waiting)
        expected, placed = letterbox(photograph.pixels, CANVAS)
        assert np.array_equal(canvas, expected)
        boxes = placed.to_canvas(photograph.boxes)
        return Detections(
            boxes, np.zeros((len(boxes), 5, 2), np.float32), np.full(len(boxes), 0.9, np.float32)
        )

    return find


@pytest.fixture(scope="module")
def photographs(drawn_sets) -> list[Photograph]:
    return list(wider(drawn_sets.root / "wider", "val"))


def test_the_truth_as_an_answer_is_perfect(photographs: list[Photograph], drawn_sets) -> None:
    truth, found = look(photographs, {"told": told(photographs)})
    lists = drawn_sets.root / "wider" / "val_protocol"
    precision = precisions(tallies(truth, found["told"], lists))
    assert precision == pytest.approx(PERFECT)
    result = finding("told", truth, found["told"], precision)
    assert result.at_one.recall == result.at_tenth.recall == 1.0
    assert result.precision[-1] == result.recall[-1] == 1.0
    assert precisions(tallies(truth, found["told"], lists, whole=True)) == pytest.approx(PERFECT)
    bands = [of for of in result.by_height.values() if of.faces]
    assert [(of.recall, of.average_precision) for of in bands] == [(1.0, pytest.approx(1.0))] * len(bands)
    tall = np.concatenate([(of.boxes[:, 3] - of.boxes[:, 1]) for of in photographs])
    assert sum(of.faces for of in bands) == (tall >= HEIGHTS[0]).sum()


def test_finding_nothing_is_recall_zero(photographs: list[Photograph]) -> None:
    truth, found = look(photographs, {"blind": lambda canvas: NOTHING})
    result = finding("blind", truth, found["blind"], {})
    assert result.at_one.recall == 0.0
    assert all(of.recall == of.average_precision == 0.0 for of in result.by_height.values() if of.faces)


def test_a_face_counts_by_its_height_on_the_canvas() -> None:
    tall = np.array([[0, 0, 60, 80]], np.float32)  # 40 pixels once 1,280 × 960 fits 640 × 480
    pixels = np.zeros((960, 1280, 3), np.uint8)
    for height, counts in ((80, 1), (78, 0)):
        boxes = tall * (1, 1, 1, height / 80)
        photograph = Photograph(
            "val/a/b.webp", pixels, 1.0, boxes.astype(np.float32), np.zeros(1, bool), np.zeros((1, 5, 2))
        )
        truth, _ = look([photograph], {})
        assert int((~truth[0].scene().ignored).sum()) == counts
        assert (~truth[0].scene(scale=ORIGINAL).ignored).all()  # there it is twice as tall


def test_detections_are_kept_as_they_were(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    found = [
        Detections(*(random.random(shape, np.float32) for shape in ((n, 4), (n, 5, 2), (n,))))
        for n in (3, 0, 2, 0)
    ]
    again = kept((keep(found, tmp_path / "of" / "yunet.npz"), tmp_path / "of" / "yunet.npz")[1])
    assert [len(of) for of in again] == [3, 0, 2, 0]
    assert all(
        np.array_equal(a.boxes, b.boxes) and np.array_equal(a.scores, b.scores)
        for a, b in zip(found, again, strict=True)
    )
    assert again[1].landmarks.shape == (0, 5, 2)
