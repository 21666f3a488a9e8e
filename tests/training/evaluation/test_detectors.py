"""Two detectors that were told the truth, or a part of it, side by side on the drawn validation pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bundle.decode import Detections
from bundle.preprocess import CANVASES, Picture, canvases_of, letterbox
from training.data.photographs import Photograph
from training.data.widerface import wider
from training.evaluation.detectors import ONE_VIEW, OURS, REFERENCE, Contender, DetectorResults, look, results
from training.evaluation.scales import ORIGINAL, VGA, Scale

SCALES = (VGA, ORIGINAL)


class Told:
    """Knows a picture by its pixels on a canvas, and answers with its faces; the first `silent` of each it keeps."""

    def __init__(self, photographs: list[Photograph], silent: int = 0) -> None:
        self.asked = 0
        self.answers = {}
        for of in photographs:
            height, width = of.pixels.shape[:2]
            for scale in SCALES:
                for size, ratio in scale.views(width, height):
                    canvas, placed = letterbox(of.pixels, size, max_upscale=ratio)
                    boxes = placed.to_canvas(of.boxes)[silent:]
                    points = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2 + np.linspace(-4, 4, 10).reshape(
                        5, 2
                    )
                    scores = np.linspace(0.9, 0.6, len(boxes))
                    self.answers[canvas.tobytes()] = Detections(
                        boxes, points.astype(np.float32), scores.astype(np.float32)
                    )

    def __call__(self, canvas: Picture) -> Detections:
        self.asked += 1
        nothing = Detections(*(np.zeros(shape, np.float32) for shape in ((0, 4), (0, 5, 2), (0,))))
        return self.answers.get(canvas.tobytes(), nothing)


@pytest.fixture(scope="module")
def photographs(drawn_sets) -> list[Photograph]:
    return list(wider(drawn_sets.root / "wider", "val"))


@pytest.fixture(scope="module")
def compared(photographs: list[Photograph], drawn_sets) -> DetectorResults:
    perfect, worse = Told(photographs), Told(photographs, silent=1)
    contenders = [
        Contender(OURS, perfect, (VGA,)),
        Contender(ONE_VIEW, perfect, SCALES),
        Contender(REFERENCE, worse, SCALES),
    ]
    blank = [("blank", np.zeros((100, 100, 3), np.uint8))]
    seen = look(contenders, photographs, blank)
    return results(seen, SCALES, drawn_sets.root / "wider" / "val_protocol")


def test_every_figure_is_tagged_with_its_scale_and_ours_as_served_is_first(compared: DetectorResults) -> None:
    assert [(of.name, of.scale) for of in compared.findings] == [
        (OURS, VGA.name),
        (ONE_VIEW, VGA.name),
        (REFERENCE, VGA.name),
        (ONE_VIEW, ORIGINAL.name),
        (REFERENCE, ORIGINAL.name),
    ]
    assert compared.served.name == OURS


def test_the_truth_is_perfect_at_every_scale_and_a_part_of_it_is_less(compared: DetectorResults) -> None:
    for of in compared.findings:
        if of.name == REFERENCE:
            assert of.average_precision["hard"] < 0.9
        else:
            assert list(of.average_precision.values()) == pytest.approx([1, 1, 1])
            assert of.at_one.recall == 1
    for scale in SCALES:
        less = compared.differences[scale.name]["hard"]
        assert 0 < less.low <= less.value <= less.high


def test_points_are_compared_with_the_reference_at_original_size(compared: DetectorResults) -> None:
    assert set(compared.points) == {OURS, REFERENCE}
    of = compared.points[OURS]
    assert of.against == "YuNet, original size"
    assert 0 < of.faces == of.of
    assert of.p90 < 0.2  # the drawn pictures are smaller than the canvas: hardly rescaled


def test_nothing_is_found_where_nobody_is(compared: DetectorResults) -> None:
    rows = [row for of in compared.faceless.values() for row in of]
    assert {(row.source, row.pictures, row.at_one) for row in rows} == {("blank", 1, 0.0)}


def test_results_are_plain_json(compared: DetectorResults) -> None:
    again = json.loads(json.dumps(compared.metrics()))
    assert again[OURS]["recall@1fp"] == 1
    assert again[ONE_VIEW]["at"][ORIGINAL.name]["scale"] == ORIGINAL.name
    assert set(again["average_precision_less_reference"]) == {VGA.name, ORIGINAL.name}


def test_what_is_known_is_not_asked_again(photographs: list[Photograph]) -> None:
    contender = Told(photographs)
    first = look([Contender(OURS, contender, SCALES)], photographs)
    asked = contender.asked
    again = look(
        [Contender(OURS, contender, SCALES)],
        photographs,
        known={(OURS, VGA.name): first.found[OURS, VGA.name]},
    )
    assert contender.asked - asked == asked - len(photographs)
    assert [len(of) for of in again.found[OURS, VGA.name]] == [len(of.boxes) for of in photographs]


def large(fraction_of_it: float) -> tuple[Photograph, Contender]:
    """A photograph of one large bright face, and who finds what is bright, or a part of it."""
    pixels = np.zeros((900, 1200, 3), np.uint8)
    pixels[300:600, 400:640] = 255
    box = np.array([[399.5, 299.5, 639.5, 599.5]], np.float32)
    photograph = Photograph(
        "val/a/b.webp", pixels, 1.0, box, np.zeros(1, bool), np.full((1, 5, 2), np.nan, np.float32)
    )

    def find(canvas: Picture) -> Detections:
        ys, xs = np.nonzero(canvas[..., 0] > 127)
        low, high = np.array([xs.min(), ys.min()]), np.array([xs.max(), ys.max()])
        found = np.concatenate([low, low + (high - low) * fraction_of_it])[None].astype(np.float32)
        return Detections(found, np.zeros((1, 5, 2), np.float32), np.array([0.9], np.float32))

    return photograph, Contender(OURS, find, (VGA,))


@pytest.mark.parametrize(("fraction", "share"), [(1.0, 1.0), (0.5, 0.0)])
def test_faces_that_fill_the_frame_are_cut_out_and_looked_for(
    fraction: float, share: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from training.evaluation import detectors

    monkeypatch.setattr(detectors, "tallies", lambda *_, **__: {})
    photograph, contender = large(fraction)
    found = results(look([contender], [photograph]), (VGA,), tmp_path)
    bands = found.near[OURS]
    assert list(bands) == ["40–60 %", "60–80 %", "80–100 %"]
    assert {(of.faces, of.average_precision) for of in bands.values()} == {(1, share)}


def test_frames_that_a_face_fills_are_seen_on_the_bundle_s_canvases() -> None:
    photograph, contender = large(1.0)
    for canvases in (CANVASES, canvases_of(64)):
        shapes: set[tuple[int, int]] = set()

        def find(canvas: Picture, shapes: set[tuple[int, int]] = shapes) -> Detections:
            shapes.add((canvas.shape[1], canvas.shape[0]))
            return contender.find(canvas)

        look([Contender(OURS, find, ())], [photograph], canvases=canvases)
        assert shapes
        assert shapes <= set(canvases)


def test_a_scale_of_its_own_needs_no_reference(photographs: list[Photograph], drawn_sets) -> None:
    small = Scale("small", (320, 256))
    seen = look([Contender(ONE_VIEW, Told(photographs), (small,))], photographs)
    found = results(seen, (small,), drawn_sets.root / "wider" / "val_protocol")
    assert [of.scale for of in found.findings] == ["small"]
    assert (found.differences, found.points, found.near) == ({}, {}, {})
