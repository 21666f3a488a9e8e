"""Static int8 in the form that ONNX Runtime and TensorRT both read: pairs of QuantizeLinear and DequantizeLinear.

Only what convolutions and matrix products take in is rounded: activations symmetric, one scale a tensor and zero point
0; weights symmetric, one scale an output channel; biases and everything between stay in float (a gate's product, as in
squeeze and excitation, loses most when rounded). The scales rest on real pictures; what looks like noise is refused.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from bundle.preprocess import letterbox
from training.config import BadConfig
from training.data.annotations.intake import photographs
from training.data.annotations.wider import read_shards
from training.data.identities import BadData, Faces
from training.data.widerface import held_out
from training.evaluation.scales import CANVAS

QUANTIZED = ("Conv", "Gemm", "MatMul")
PERCENTILE = 99.999  # of an activation's values lie within its scale; up to the largest, 1 − cosine doubles
LEAST_PICTURES = 4
WINDOW = (
    384,
    256,
)  # pixels of a canvas, multiples of every stride: a third of the time and memory of the whole
AT_ONCE = 8  # pictures whose layers are in memory together: of a detector some 30 MB each
LEAST_CORRELATION = 0.5  # of neighbouring pixels: 0.95 in photographs, 0 in noise


class BadCalibrationData(BadData):
    """Scales cannot rest on these pictures; the message says why."""


class Pictures(CalibrationDataReader):  # type: ignore[misc]
    """Hands out pictures one by one, as the service would send them: bytes in RGB, the graph does the rest.

    pictures: uint8 [n, h, w, 3] RGB. Raises BadCalibrationData for anything else, too few, or noise.
    """

    def __init__(self, pictures: np.ndarray) -> None:
        if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[3] != 3:
            raise BadCalibrationData(
                f"calibration takes bytes [n, h, w, 3] as the graph does, not {pictures.dtype} {pictures.shape}"
            )
        if len(pictures) < LEAST_PICTURES:
            raise BadCalibrationData(f"{len(pictures)} pictures are too few to calibrate on")
        alike = _neighbours_correlate(pictures)
        if not alike >= LEAST_CORRELATION:
            raise BadCalibrationData(
                f"neighbouring pixels correlate by {alike:.2f}: noise, not photographs; scales from random data are "
                "worth nothing"
            )
        self._pictures = pictures
        self._next, self._end = 0, len(pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Hand out these alone, from now on: what each layer says to them is held in memory at once."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, np.ndarray] | None:
        at, self._next = self._next, self._next + 1
        return {"image": np.ascontiguousarray(self._pictures[at : at + 1])} if at < self._end else None


def crops_to_calibrate(faces: Faces, count: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 [≤ count, 112, 112, 3] RGB: drawn by `seed`, a face of everybody before a second one of anybody.

    faces: of the *validation* split: neither LFW nor the split that thresholds come from may shape the graph.
    """
    drawn = np.random.default_rng([seed, 4]).permutation(len(faces))
    person = faces.identity[drawn]
    order = np.argsort(person, kind="stable")
    place = np.empty(len(drawn), int)  # of a face among its person's
    place[order] = np.arange(len(drawn)) - np.searchsorted(person[order], person[order])
    return faces.crops()[drawn[np.argsort(place, kind="stable")[:count]]]


def windows_to_calibrate(root: Path, count: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 [≤ count, 256, 384, 3] RGB: parts of canvases as served, each around a face of a training photograph.

    root: of the WIDER set. The photographs are drawn by `seed` from those that are trained on: neither what a form is
    chosen by nor what is claimed may shape the graph.
    """
    of = read_shards(root)
    trained = [one for one in of.entries if one.name.startswith("train/") and not held_out(one.name)]
    random = np.random.default_rng([seed, 5])
    drawn = [trained[at] for at in random.permutation(len(trained))[:count]]
    windows = []
    for one in photographs(replace(of, entries=tuple(drawn), findings=()), tolerated=0.5):
        canvas, placed = letterbox(one.pixels, CANVAS)
        boxes = placed.to_canvas(one.boxes[~one.ignored])
        middle = (
            boxes[random.integers(len(boxes))].reshape(2, 2).mean(0) if len(boxes) else np.array(CANVAS) / 2
        )
        left, top = np.clip(middle - np.array(WINDOW) / 2, 0, np.array(CANVAS) - WINDOW).round().astype(int)
        windows.append(canvas[top : top + WINDOW[1], left : left + WINDOW[0]])
    return np.stack(windows) if windows else np.zeros((0, *WINDOW[::-1], 3), np.uint8)


def layers(source: Path) -> tuple[str, ...]:
    """The names of what can be quantised, in the order of computation."""
    return tuple(node.name for node in onnx.load(source).graph.node if node.op_type in QUANTIZED)


def require_layers(source: Path, names: Collection[str]) -> None:
    """Raises BadConfig for a name that is no layer of `source`, with those that are."""
    known = layers(source)
    if strangers := sorted(set(names) - set(known)):
        raise BadConfig(f"{source.name} has no layer {', '.join(strangers)}; it has {', '.join(known)}")


def to_int8(
    source: Path, target: Path, pictures: np.ndarray, exclude: Collection[str] = ()
) -> tuple[str, ...]:
    """Write `source` to `target` with its layers in int8, but for `exclude`. Returns the layers that are in int8.

    pictures: uint8 [n, h, w, 3] RGB. Raises BadCalibrationData, and BadConfig for an excluded layer that is not there.
    """
    known = layers(source)
    require_layers(source, exclude)
    model = onnx.load(source)
    # Tells the quantiser that the graph was prepared: it is exported folded, and its advice is not for our users.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints how far it is
        quantize_static(
            model,
            target,
            Pictures(pictures),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            nodes_to_exclude=list(exclude),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT has no int32 pair
                "OpTypesToExcludeOutputQuantization": list(QUANTIZED),
                "CalibPercentile": PERCENTILE,
                "CalibStridedMinMax": _at_once(len(pictures)),  # whatever its name says, for percentiles too
            },
        )
    written = onnx.load(target)
    del written.metadata_props[:]
    onnx.checker.check_model(written, full_check=True)
    onnx.save(written, target)
    return tuple(name for name in known if name not in set(exclude))


def _at_once(pictures: int) -> int:
    """The largest divisor up to AT_ONCE: parts have to be equal."""
    return max(size for size in range(1, AT_ONCE + 1) if max(1, pictures) % size == 0)


def _neighbours_correlate(pictures: np.ndarray) -> float:
    """The correlation of a pixel with the one to its right, within pictures; 0 where each is one colour."""
    some = pictures[:: max(1, len(pictures) // 64)].astype(np.float64)
    some -= some.mean((1, 2), keepdims=True)
    spread = float((some**2).mean())
    return float((some[:, :, 1:] * some[:, :, :-1]).mean()) / spread if spread else 0.0
