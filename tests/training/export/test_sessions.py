"""A graph sees a canvas as the service would."""

from __future__ import annotations

import numpy as np
import pytest

from bundle.decode import AnchorLayout
from bundle.manifest import DetectorSpec
from training.export.parity import golden_scenes
from training.export.sessions import ServedGraph, finder


@pytest.mark.parametrize("size", [(160, 96), (150, 90), (33, 1)])
def test_a_canvas_that_the_strides_do_not_divide_is_black_beyond_its_end(
    detector, size: tuple[int, int]
) -> None:
    width, height = size
    find = finder(detector.graph, DetectorSpec(near_scale=0), 0.0)
    whole = golden_scenes(160, 96)[3]
    whole[height:], whole[:, width:] = 0, 0
    cut = find(whole[:height, :width])
    rows, columns = -(-height // 32) * 32, -(-width // 32) * 32
    expected = find(whole[:rows, :columns])
    assert len(cut) > 0
    for one, other in zip(
        (cut.boxes, cut.landmarks, cut.scores),
        (expected.boxes, expected.landmarks, expected.scores),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_canvas_is_seen_in_what_the_coarsest_stride_divides(detector, monkeypatch) -> None:
    class Asked(Exception):
        pass

    seen = []

    def run(graph: ServedGraph, image: np.ndarray) -> None:
        seen.append(image.shape[1:3])
        raise Asked

    monkeypatch.setattr(ServedGraph, "run", run)
    layout = AnchorLayout(strides=(64, 128), sizes=((64,), (128,)))
    spec = DetectorSpec(anchors=layout, canvases=((128, 128),))
    with pytest.raises(Asked):
        finder(detector.graph, spec)(np.zeros((480, 640, 3), np.uint8))
    assert seen == [(512, 640)]
