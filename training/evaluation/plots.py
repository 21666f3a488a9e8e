"""The report's figures, as PNG bytes: drawn from numbers alone, never a picture of anybody."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.calibration import Calibration
from training.evaluation.finding import Finding
from training.evaluation.recognition import Recognition
from training.evaluation.verification import MIN_FALSE_MATCHES

COLOURS = ("#1f5fa8", "#c8641e", "#3c8c50", "#7a4fa0", "#a03048")


def embedder_figure(results: Sequence[Recognition]) -> bytes:
    """DET curves on validation, and our two score histograms."""
    figure, (curve, scores) = _figure(2)
    for of, colour in zip(results, COLOURS, strict=False):
        fmr, fnmr = det(of.scores.genuine, of.scores.impostor)
        curve.plot(fmr, fnmr, color=colour, label=of.name)
        for rate, interval in of.fnmr.items():
            low, high = max(0.0, interval.value - interval.low), max(0.0, interval.high - interval.value)
            curve.errorbar(
                rate, interval.value, [[low], [high]], color=colour, fmt="o", markersize=3, capsize=3
            )
    curve.set(xscale="log", yscale="log", xlabel="FMR", ylabel="FNMR", title="DET, validation (kin apart)")
    curve.legend()
    ours = results[0].scores
    bins = np.linspace(-0.6, 1, 97).tolist()
    scores.hist(ours.impostor, bins, density=True, alpha=0.6, color=COLOURS[1], label="non-mated")
    scores.hist(ours.genuine, bins, density=True, alpha=0.6, color=COLOURS[0], label="mated")
    scores.set(xlabel="cosine similarity", ylabel="density", title=f"{results[0].name}: scores, validation")
    scores.legend()
    return _png(figure)


def det(genuine: np.ndarray, impostor: np.ndarray, points: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """FMR and FNMR at `points` thresholds, from FMR 1 down to the smallest that the non-mated pairs carry."""
    falling, rising = np.sort(impostor)[::-1], np.sort(genuine)
    least = min(MIN_FALSE_MATCHES, len(falling))
    counts = np.unique(np.geomspace(least, len(falling), points).astype(int))
    thresholds = falling[counts - 1]
    accepted = np.searchsorted(-falling, -thresholds, side="right")
    return accepted / len(falling), np.searchsorted(rising, thresholds, side="left") / len(rising)


def detector_figure(results: Sequence[Finding]) -> bytes:
    """Precision and recall of the claim's faces, and recall by height at one false positive a picture."""
    figure, (curve, heights) = _figure(2)
    for index, of in enumerate(results):
        curve.plot(of.recall, of.precision, color=COLOURS[index], label=of.name)
        names = list(of.by_height)
        places = np.arange(len(names)) + 0.4 * index - 0.2
        shares = np.nan_to_num([share for share, _ in of.by_height.values()])
        heights.bar(places, shares, 0.38, color=COLOURS[index], label=of.name)
        heights.set_xticks(np.arange(len(names)), names, fontsize=7)
    curve.set(
        xlabel="recall",
        ylabel="precision",
        title="faces ≥ 40 px on 640 × 480",
        xlim=(0, 1.01),
        ylim=(0, 1.01),
    )
    heights.set(
        xlabel="height on the canvas",
        ylabel="recall",
        title="recall at 1 false positive a picture",
        ylim=(0, 1),
    )
    curve.legend(loc="lower left")
    heights.legend(loc="upper left", fontsize=7)
    return _png(figure)


def calibration_figure(calibration: Calibration) -> bytes:
    """F_k against the threshold: measured with its band, then the tail."""
    figure, (axes,) = _figure(1)
    for curve, colour in zip(calibration.curves, COLOURS, strict=False):
        at = np.array(curve.thresholds[1:])
        axes.plot(at, curve.rates[1:], color=colour, label=f"k = {curve.templates}")
        axes.fill_between(at, np.maximum(curve.low[1:], 1e-9), curve.high[1:], color=colour, alpha=0.15)
        beyond = np.linspace(at[-1], min(1.0, at[-1] + 0.25), 60)
        rates = [calibration.false_match_rate(float(t), curve.templates).value for t in beyond]
        axes.plot(beyond, rates, "--", color=colour, linewidth=1)
    axes.set(yscale="log", xlabel="threshold (cosine)", ylabel="false match rate of the best of k")
    axes.set(
        title="calibration: measured, and the tail (dashed)", ylim=(max(calibration.floor / 200, 1e-9), 1.2)
    )
    axes.legend()
    return _png(figure)


def training_figure(runs: dict[str, Path]) -> bytes:
    """Losses and what was selected on, by step, from each run's metrics.jsonl."""
    figure, places = _figure(max(1, len(runs)))
    for axes, (name, file) in zip(places, runs.items(), strict=False):
        records = read_metrics(file)
        for index, key in enumerate(("loss", "distillation", "arcface", "score", "box", "landmark")):
            points = [(r["step"], r[key]) for r in records if key in r]
            if points:
                axes.plot(*zip(*points, strict=True), linewidth=0.8, color=COLOURS[index % 5], label=key)
        other = axes.twinx()
        for index, key in enumerate(("fnmr@0.001", "fnmr@0.01", "recall@1fp", "recall@0.1fp")):
            points = [(r["step"], r[key]) for r in records if key in r]
            if points:
                other.plot(*zip(*points, strict=True), ".-", color=("black", "grey")[index % 2], label=key)
        other.set_ylim(0, 1)
        axes.set(xlabel="step", yscale="log", title=name)
        lines = [*axes.get_lines(), *other.get_lines()]
        if lines:
            axes.legend(lines, [str(line.get_label()) for line in lines], fontsize=7)
    return _png(figure)


def read_metrics(file: Path) -> list[dict[str, Any]]:
    """A run's records; a last line that a kill cut short is left out, as is a repeat after a resume."""
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    for line in file.read_text().splitlines() if file.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records[record["step"], "loss" in record] = record
    return [records[key] for key in sorted(records)]


def _figure(across: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * across, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(1, across, squeeze=False)[0]
    for axes in places:
        axes.grid(alpha=0.3)
    return figure, list(places)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90, metadata={"Software": None})
    return data.getvalue()
