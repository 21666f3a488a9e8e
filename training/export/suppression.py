"""The detector in one graph, from pictures of any size to faces: padding, anchors, decoding and suppression inside.

For programs that have no `bundle.decode`. Facet's service never takes this form: it decodes outside of the graph, which
TensorRT and OpenVINO then handle at their best. The faces are the same, in the same order.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import parser
from onnx.compose import add_prefix, merge_models

from bundle.decode import MAX_LOG_RATIO, AnchorLayout, anchors
from bundle.folder import open_bundle
from bundle.manifest import DetectorSpec
from training.config import REPOSITORY
from training.export.onnx import OPSET

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


INSIDE = "detector/"  # before the names of the detector's own tensors


def with_suppression(source: Path, target: Path, spec: DetectorSpec) -> None:
    """Write the detector's graph `source` to `target` with everything inside.

    In: `image` uint8 [n, h, w, 3] RGB, h and w of any size. Out, a row for each face, those of the first picture first
    and in a picture the best first: `picture` int64 [faces], its place in the batch; `box` float32 [faces, 4] xyxy and
    `landmark` [faces, 5, 2] in pixels; `score` [faces]. They are those of `bundle.decode.detections` with the spec's
    limits, on canvases that are black from h and w to the next multiples of the coarsest stride: of one view, without
    the service's second look at near faces (`bundle.views`).
    """
    detector = onnx.load(source)
    before, after = (
        parser.parse_model(f'<ir_version: {detector.ir_version}, opset_import: ["" : {OPSET}]>\n{text}')
        for text in (_padding(max(spec.anchors.strides)), _faces(spec))
    )
    raw = [
        (INSIDE + name, taken)
        for name, taken in zip(spec.outputs, ("scores", "deltas", "offsets"), strict=True)
    ]
    begun = merge_models(before, add_prefix(detector, INSIDE), [("padded", INSIDE + spec.input)])
    whole = merge_models(begun, after, [*raw, ("size", "size")])
    del whole.opset_import[1:]  # one of each part, all alike
    onnx.checker.check_model(whole, full_check=True)
    onnx.save(whole, target)


def _padding(coarsest: int) -> str:
    """ONNX's own notation, as below. `size`: rows and columns of the canvas."""
    return f"""
    padding (uint8[n, h, w, 3] image) => (uint8[n, rows, columns, 3] padded, int64[2] size)
    <int64 coarsest = {{{coarsest}}}, int64 less = {{{coarsest - 1}}}, int64[2] nothing = {{0, 0}},
     int64[2] sides = {{1, 2}}, uint8 black = {{0}}>
    {{
        given = Shape <start = 1, end = 3> (image)
        enough = Add(given, less)
        times = Div(enough, coarsest)
        size = Mul(times, coarsest)
        more = Sub(size, given)
        around = Concat <axis = 0> (nothing, more)
        padded = Pad (image, around, black, sides)
    }}"""


def _faces(spec: DetectorSpec) -> str:
    """Line by line what `bundle.decode.detections` does. The suppression is told ranks instead of scores: equal scores
    keep their order in every runtime, and a score of exactly the limit counts."""
    near, far = spec.anchors.variances
    levels = range(len(spec.anchors.strides))
    return f"""
    faces (float[n, a] scores, float[n, a, 4] deltas, float[n, a, 10] offsets, int64[2] size)
        => (int64[m] picture, float[m, 4] box, float[m, 5, 2] landmark, float[m] score)
    <int64 zero = {{0}}, int64 one = {{1}}, int64 two = {{2}}, int64 back = {{-1}}, int64 top_k = {{{spec.top_k}}},
     int64[1] second = {{1}}, int64[1] third = {{2}}, int64[1] single = {{1}},
     int64[2] boxes_flat = {{-1, 4}}, int64[3] points_flat = {{-1, 5, 2}}, int64[1] flat = {{-1}},
     int64[4] points_shape = {{0, 0, 5, 2}}, int64[4] down = {{-1, 1, 1, 1}}, int64[4] across = {{1, -1, 1, 1}},
     float[4] x_alone = {{1, 0, 0, 0}}, float[4] y_alone = {{0, 1, 0, 0}},
     float near = {{{near!r}}}, float far = {{{far!r}}},
     float least = {{{-MAX_LOG_RATIO}}}, float most = {{{MAX_LOG_RATIO}}},
     float halves = {{2}}, float no_rank = {{0}}, float any_rank = {{0.5}}, float min_score = {{{spec.min_score!r}}},
     float max_iou = {{{spec.nms_iou!r}}}, {", ".join(_constants(spec.anchors))}>
    {{
        h = Gather (size, zero)
        w = Gather (size, one)
        {"".join(map(_level, levels))}
        laid = Concat <axis = 0> ({", ".join(f"laid_{i}" for i in levels)})

        every = Shape (scores)
        count = Gather (every, one)
        kept = Min (count, top_k)
        kept_1 = Reshape (kept, single)
        best, place = TopK <axis = 1, largest = 1, sorted = 1> (scores, kept_1)
        places = Unsqueeze (place, third)
        delta = GatherND <batch_dims = 1> (deltas, places)
        offset = GatherND <batch_dims = 1> (offsets, places)
        anchor = Gather (laid, place)

        centre, shape = Split <axis = 2, num_outputs = 2> (anchor)
        moved, grown = Split <axis = 2, num_outputs = 2> (delta)
        moved_near = Mul (moved, near)
        moved_far = Mul (moved_near, shape)
        middle = Add (centre, moved_far)
        grown_far = Mul (grown, far)
        grown_most = Clip (grown_far, least, most)
        ratio = Exp (grown_most)
        whole = Mul (shape, ratio)
        half = Div (whole, halves)
        low = Sub (middle, half)
        high = Add (middle, half)
        boxes = Concat <axis = 2> (low, high)

        offset_5 = Reshape (offset, points_shape)
        offset_near = Mul (offset_5, near)
        shape_5 = Unsqueeze (shape, third)
        offset_far = Mul (offset_near, shape_5)
        centre_5 = Unsqueeze (centre, third)
        points = Add (centre_5, offset_far)

        sure = GreaterOrEqual (best, min_score)
        falling = Range (kept, zero, back)
        ranks = Cast <to = 1> (falling)
        ranked = Where (sure, ranks, no_rank)
        ranked_1 = Unsqueeze (ranked, second)
        selected = NonMaxSuppression (boxes, ranked_1, kept_1, max_iou, any_rank)
        batch = Gather <axis = 1> (selected, zero)
        index = Gather <axis = 1> (selected, two)
        before = Mul (batch, kept)
        unordered = Add (before, index)
        number = Shape (unordered)
        row, unused = TopK <axis = 0, largest = 0, sorted = 1> (unordered, number)

        picture = Div (row, kept)
        boxes_2 = Reshape (boxes, boxes_flat)
        box = Gather (boxes_2, row)
        points_3 = Reshape (points, points_flat)
        landmark = Gather (points_3, row)
        best_1 = Reshape (best, flat)
        score = Gather (best_1, row)
    }}"""


def _constants(layout: AnchorLayout) -> list[str]:
    """Of each level: its stride, the middle of its first cell, and the shapes of a cell's anchors."""
    laid, told = anchors(max(layout.strides), max(layout.strides), layout), []
    for level, (stride, sizes) in enumerate(zip(layout.strides, layout.sizes, strict=True)):
        shapes = np.zeros((len(sizes), 4), np.float32)
        shapes[:, 2:] = laid[: len(sizes), 2:]
        laid = laid[len(sizes) * (max(layout.strides) // stride) ** 2 :]
        values = ", ".join(repr(float(value)) for value in shapes.ravel())
        told += [
            f"int64 stride_{level} = {{{stride}}}",
            f"float step_{level} = {{{stride}}}",
            f"float first_{level} = {{{(stride - 1) / 2}}}",
            f"float[{len(sizes)}, 4] shapes_{level} = {{{values}}}",
        ]
    return told


def _level(i: int) -> str:
    """Its anchors, float32 [anchors, 4] as cx, cy, w, h: by row, column and size."""
    return f"""
        rows_{i} = Div (h, stride_{i})
        columns_{i} = Div (w, stride_{i})
        row_{i} = Range (zero, rows_{i}, one)
        column_{i} = Range (zero, columns_{i}, one)
        y_cells_{i} = Cast <to = 1> (row_{i})
        x_cells_{i} = Cast <to = 1> (column_{i})
        y_pixels_{i} = Mul (y_cells_{i}, step_{i})
        x_pixels_{i} = Mul (x_cells_{i}, step_{i})
        y_{i} = Add (y_pixels_{i}, first_{i})
        x_{i} = Add (x_pixels_{i}, first_{i})
        y_down_{i} = Reshape (y_{i}, down)
        x_across_{i} = Reshape (x_{i}, across)
        y_place_{i} = Mul (y_down_{i}, y_alone)
        x_place_{i} = Mul (x_across_{i}, x_alone)
        place_{i} = Add (y_place_{i}, x_place_{i})
        cells_{i} = Add (place_{i}, shapes_{i})
        laid_{i} = Reshape (cells_{i}, boxes_flat)"""


def add_one_graph_verb(verbs: Verbs) -> None:
    """The verb `one-graph`."""
    text = "a bundle's detector as one graph with decoding and suppression inside, for other programs"
    verb = verbs.add_parser("one-graph", help=text, description=text)
    verb.set_defaults(act=_one_graph)
    verb.add_argument("--bundle", type=Path, default=REPOSITORY / "models" / "default", help="whose detector")
    verb.add_argument("--to", type=Path, required=True, help="the file, such as detector.nms.onnx")


def _one_graph(asked: argparse.Namespace) -> None:
    bundle = open_bundle(asked.bundle)
    spec = bundle.manifest.detector
    asked.to.parent.mkdir(parents=True, exist_ok=True)
    with_suppression(bundle.file(spec.file), asked.to, spec)
    print(f"{asked.to}: picture, box, landmark and score of faces from {spec.min_score:g} on")
