"""The report's figures, as PNG bytes: drawn from numbers alone, never a picture of anybody."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bundle.calibration import Calibration
from training.evaluation.ablations import Ablation
from training.evaluation.bootstrap import Interval
from training.evaluation.detectors import DetectorResults
from training.evaluation.finding import HEIGHT_LEAST, Band
from training.evaluation.pairwise import ScoreCounts
from training.evaluation.recognition import NamedPictures, OnValidation, Recognition

COLOURS = ("#1f5fa8", "#c8641e", "#3c8c50", "#7a4fa0", "#a03048")
LOSSES = (
    "loss", "distillation", "arcface", "score", "box", "landmark", "dense", "dense_box", "dense_landmark", "hints",
)  # fmt: skip


def embedder_figure(results: Sequence[Recognition]) -> bytes:
    """DET curves and our score histograms, kin apart: of validation above, of all pairs of LFW's pictures below, where
    it is known who is on them."""
    served = [of for of in results if of.served]
    rows: list[tuple[str, Sequence[tuple[str, OnValidation | NamedPictures]]]] = [
        ("validation (kin apart)", [(of.name, of.on_validation) for of in served])
    ]
    if on_lfw := [(of.name, of.on_lfw.named) for of in served if of.on_lfw and of.on_lfw.named]:
        rows.append(("all pairs of LFW's pictures", on_lfw))
    figure, places = _figure(2, len(rows))
    for (title, found), curve, scores in zip(rows, places[::2], places[1::2], strict=True):
        for (name, of), colour in zip(found, COLOURS, strict=False):
            curve.plot(*of.scores.det(), color=colour, label=name)
            _intervals(curve, of.fnmr, of.fnmr.values(), colour)
        _histogram(scores, found[0][1].scores)
        curve.set(xscale="log", yscale="log", xlabel="FMR", ylabel="FNMR", title=f"DET, {title}")
        curve.legend()
        scores.set(title=f"{found[0][0]}: scores, {title}")
    return _png(figure)


def _intervals(
    axes: Axes, at: Iterable[float], rates: Iterable[Interval], colour: str, label: str | None = None
) -> None:
    """Each rate with its interval, `at` along the x axis."""
    table = np.array([(of.value, of.value - of.low, of.high - of.value) for of in rates])
    if len(table):
        spread = np.maximum(table[:, 1:].T, 0)
        axes.errorbar(
            list(at), table[:, 0], spread, color=colour, fmt="o", markersize=3, capsize=3, label=label
        )


def _histogram(axes: Axes, scores: ScoreCounts) -> None:
    """Densities over cosines from −0.6 to 1; kin as an outline."""
    edges = np.linspace(-1, 1, 101)
    kinds = (("non-mated", scores.impostor, 1), ("mated", scores.genuine, 0), ("kin", scores.kin, 2))
    for name, counts, colour in kinds:
        if counts.any():
            density = counts.reshape(100, -1).sum(1) / counts.sum() / np.diff(edges)
            axes.stairs(density, edges, fill=name != "kin", alpha=0.6, color=COLOURS[colour], label=name)
    axes.set(xlabel="cosine similarity", ylabel="density", xlim=(-0.6, 1))
    axes.legend()


def identification_figure(results: Sequence[Recognition]) -> bytes:
    """FNIR over FPIR: LFW's people, each embedder; and of ours, each gallery size of validation."""
    served = [of for of in results if of.served]
    on_lfw = {of.name: of.on_lfw.search for of in served if of.on_lfw and of.on_lfw.search}
    galleries = {f"{of.gallery} people": of for of in served[0].on_validation.galleries}
    panels = [(f"1:N, {served[0].name}, validation, by gallery", galleries)]
    if served[0].on_lfw:
        panels.insert(0, ("1:N, LFW, first picture enrolled", on_lfw))
    figure, places = _figure(len(panels))
    for axes, (title, searches) in zip(places, panels, strict=True):
        for (name, of), colour in zip(searches.items(), COLOURS, strict=False):
            axes.plot(*of.det, color=colour, label=name)
            _intervals(axes, of.fnir, of.fnir.values(), colour)
        axes.set(xscale="log", yscale="log", xlabel="FPIR", ylabel="FNIR", title=title)
        if searches:
            axes.legend()
    return _png(figure)


def promise_figure(promise: Mapping[str, Any]) -> bytes:
    """The realised FPIR over the gallery's size beside the asked one (dashed), from `calibration_report`."""
    figure, (axes,) = _figure(1)
    told = [of for of in promise.get("held_out_fpir", ()) if of["realised"]]
    for rate, colour in zip(sorted({of["promised"] for of in told}, reverse=True), COLOURS, strict=False):
        rows = [of for of in told if of["promised"] == rate]
        rates = [Interval(of["realised"], of["low"], of["high"]) for of in rows]
        _intervals(axes, [of["persons"] for of in rows], rates, colour, f"asked {rate:g}")
        axes.axhline(rate, linestyle="--", linewidth=1, color=colour)
    axes.set(xscale="log", yscale="log", xlabel="people in the gallery", ylabel="realised FPIR")
    axes.set(title="FPIR of people who were not calibrated on")
    if told:
        axes.legend()
    return _png(figure)


def ablation_figure(ablations: Sequence[Ablation]) -> bytes:
    """FNMR at FMR 1e-3 on validation over the number of training faces, with the teacher and without; and beside it
    LFW's accuracy with its standard error, where anything was measured on LFW."""
    on_lfw = [of for of in ablations if of.lfw is not None]
    figure, (axes, *beside) = _figure(2 if on_lfw else 1)
    _by_faces(axes, ablations, [of.fnmr for of in ablations])
    axes.set(ylabel="FNMR at FMR 0.001, validation", title="what more data, and a teacher, bring")
    for other in beside:
        pairs = [(of.lfw or 0.0, of.lfw_error or 0.0) for of in on_lfw]
        _by_faces(other, on_lfw, [Interval(of, of - error, of + error) for of, error in pairs])
        other.set(ylabel="LFW, accuracy of ten folds", title="the same on LFW")
    return _png(figure)


def _by_faces(axes: Axes, ablations: Sequence[Ablation], rates: Sequence[Interval]) -> None:
    """Each training's rate over the number of its faces."""
    for label, distilled, colour in (("distilled", True, 0), ("identity labels alone", False, 1)):
        told = [
            (of.faces, rate) for of, rate in zip(ablations, rates, strict=True) if of.distilled is distilled
        ]
        told.sort(key=lambda of: of[0])
        at, values = [faces for faces, _ in told], [rate for _, rate in told]
        axes.plot(at, [of.value for of in values], color=COLOURS[colour], linewidth=0.8)
        _intervals(axes, at, values, COLOURS[colour], label)
    axes.set(xscale="log", xlabel="training faces")
    if ablations:
        at = sorted({of.faces for of in ablations})
        axes.set_xticks(at, [f"{faces:,}" for faces in at])
        axes.minorticks_off()
        axes.legend()


def detector_figure(results: DetectorResults) -> bytes:
    """Precision and recall of the claim's faces, WIDER's AP, and recall by height and by the share of the frame."""
    figure, (curve, wider, heights, near) = _figure(2, 2)
    names = list(dict.fromkeys(of.name for of in results.findings))
    colour = dict(zip(names, COLOURS, strict=False))
    styles = dict(zip(dict.fromkeys(of.scale for of in results.findings), ("-", "--", ":"), strict=False))
    for of in results.findings:
        label = f"{of.name}, {of.scale}"
        curve.plot(of.recall, of.precision, styles[of.scale], color=colour[of.name], label=label)
        settings, aps = list(of.average_precision), list(of.average_precision.values())
        wider.plot(settings, aps, f"o{styles[of.scale]}", color=colour[of.name], label=label, markersize=3)
    curve.set(xlabel="recall", ylabel="precision", title=f"faces ≥ {HEIGHT_LEAST:.0f} px as seen")
    wider.set(ylabel="AP", title="WIDER FACE's own evaluation, by scale")
    first = results.served.scale
    _bars(heights, {of.name: of.by_height for of in results.at(first)}, colour)
    heights.set(xlabel="height, pixels as seen", title=f"recall at 1 false positive a picture, {first}")
    _bars(near, results.near, colour)
    near.set(xlabel="share of the frame", title="the same of faces that fill the frame")
    for axes in (curve, wider, heights, near):
        axes.set_ylim(0, 1.01)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="upper left" if axes is heights else "lower left", fontsize=7)
    return _png(figure)


def _bars(axes: Axes, by_name: Mapping[str, Mapping[str, Band]], colour: Mapping[str, str]) -> None:
    """Recall by band, a bar for each detector."""
    wide = 0.8 / max(1, len(by_name))
    for place, (name, bands) in enumerate(by_name.items()):
        at = np.arange(len(bands)) + wide * (place + 0.5) - 0.4
        shares = np.nan_to_num([of.recall for of in bands.values()])
        axes.bar(at, shares, 0.95 * wide, color=colour[name], label=name)
        axes.set_xticks(np.arange(len(bands)), list(bands), fontsize=7)
    axes.set_ylabel("recall")


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
        told = [key for key in LOSSES if any(key in r for r in records)]
        for index, key in enumerate(told):
            points = [(r["step"], r[key]) for r in records if key in r]
            style = "-" if index < len(COLOURS) else "--"
            colour = COLOURS[index % len(COLOURS)]
            axes.plot(*zip(*points, strict=True), style, linewidth=0.8, color=colour, label=key)
        other = axes.twinx()
        for index, key in enumerate(("fnmr@0.001", "fnmr@0.01", "ap", "recall@1fp", "recall@0.1fp")):
            points = [(r["step"], r[key]) for r in records if key in r]
            if points:
                colour, style = ("black", "grey")[index % 2], (".-", ".:")[index > 3]
                other.plot(*zip(*points, strict=True), style, color=colour, label=key)
        other.set_ylim(0, 1)
        axes.set(xlabel="step", yscale="log", title=name)
        lines = [*axes.get_lines(), *other.get_lines()]
        if lines:
            names = [str(line.get_label()) for line in lines]
            below = (0.5, -0.17)  # off the curves
            axes.legend(lines, names, fontsize=7, loc="upper center", bbox_to_anchor=below, ncols=4)
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


def _figure(across: int, down: int = 1) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5.2 * across, 3.9 * down), layout="constrained")
    FigureCanvasAgg(figure)
    places = list(figure.subplots(down, across, squeeze=False).flat)
    for axes in places:
        axes.grid(alpha=0.3)
    return figure, places


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90, metadata={"Software": None})
    return data.getvalue()
