"""Which runtime embeds faces fastest on a CPU: ONNX Runtime, after the PReLU rewrite, OpenVINO, int8?

    python -m benchmarks.embedder_backends [--seconds 20]

Every contender gets one thread (throughput with a lane a core) and all cores (latency of one face), batch 1 and 16.
The agreement with ONNX Runtime on the original graph stands beside the speed: a fast wrong answer is none.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.graphs import crops, embedder_graph
from benchmarks.measure import interleaved, versions, write_result
from training.export.prelu import rewrite_prelu

Run = Callable[[np.ndarray], np.ndarray]
BATCHES = (1, 16)


def onnx_runtime(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {"image": images})[0])


def openvino(path: Path, threads: int, precision: str = "f32") -> Run:
    """`precision` f32 is exact; bf16 is what OpenVINO takes by itself where the processor has it."""
    from openvino import Core

    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    request = Core().compile_model(str(path), "CPU", options).create_infer_request()
    return lambda images: np.array(request.infer({"image": images})[0])


def quantized(path: Path, target: Path) -> Path:
    """Static int8 (QDQ, per channel), calibrated on smooth random pictures: for speed, not for accuracy."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [{"image": picture[None]} for picture in crops(16)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    quantize_static(path, target, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)
    return target


def open_contenders(folder: Path, threads: int) -> tuple[dict[str, Run], str]:
    original, source = embedder_graph(folder)
    rewritten, small = folder / "rewritten.onnx", folder / "int8.onnx"
    if not small.is_file():
        rewrite_prelu(original, rewritten)
        quantized(rewritten, small)
    return {
        "onnxruntime": onnx_runtime(original, threads),
        "onnxruntime, PReLU rewritten": onnx_runtime(rewritten, threads),
        "onnxruntime, int8": onnx_runtime(small, threads),
        "openvino f32": openvino(original, threads),
        "openvino f32, PReLU rewritten": openvino(rewritten, threads),
        "openvino bf16": openvino(original, threads, "bf16"),
        "openvino int8": openvino(small, threads),
    }, source


def measure(folder: Path, threads: int, seconds: float) -> tuple[list[dict[str, object]], str]:
    contenders, source = open_contenders(folder, threads)
    rows = []
    for batch in BATCHES:
        images = crops(batch)
        reference = contenders["onnxruntime"](images)
        calls = {name: partial(run, images) for name, run in contenders.items()}
        once = sum(float(taken.wall.min()) for taken in interleaved(calls, 3).values())
        taken = interleaved(calls, max(10, int(seconds / once)))
        base = taken["onnxruntime"]
        for name, run in contenders.items():
            cosine = float((run(images) * reference).sum(1).min())
            rows.append(
                {"contender": name, "threads": threads, "batch": batch}
                | taken[name].row()
                | {
                    "cpu_ms_a_face": round(float(np.median(taken[name].cpu)) / batch * 1e3, 3),
                    "faster": round(float(np.median(base.wall) / np.median(taken[name].wall)), 2),
                    "faster_cpu": round(float(np.median(base.cpu) / np.median(taken[name].cpu)), 2),
                    "min_cosine": round(cosine, 5),
                }
            )
    return rows, source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each of thread count × batch")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    source = ""
    with tempfile.TemporaryDirectory() as folder:
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            more, source = measure(Path(folder), threads, arguments.seconds)
            rows += more
    write_result(
        "embedder_backends",
        "Which runtime embeds faces fastest on a CPU? (faster, min_cosine: against ONNX Runtime, original graph; "
        "faster_cpu: the same by processor time, which decides how many a second all cores together embed)",
        rows,
        graph=source,
        libraries=versions("onnxruntime", "openvino", "numpy"),
    )


if __name__ == "__main__":
    main()
