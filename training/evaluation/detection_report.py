"""The part of the report that is about the detector; every figure says at which scale it was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.evaluation.aligned import Aligned
from training.evaluation.bootstrap import Interval
from training.evaluation.detectors import ONE_VIEW, OURS, DetectorResults
from training.evaluation.finding import HEIGHT_LEAST, Band
from training.evaluation.markdown import table
from training.evaluation.near import TALL
from training.evaluation.recorded import RecordedDetection
from training.evaluation.scales import CANVAS, MULTI, ORIGINAL, VGA
from training.evaluation.wider_protocol import SETTINGS

SCALES = {
    VGA.name: f"pictures scaled to fit {CANVAS[0]} × {CANVAS[1]}, never enlarged",
    ORIGINAL.name: "pictures as the data have them, at most 1,024 pixels (tall ones lie there reduced)",
    MULTI.name: f"answers at {', '.join(f'{of:g}' for of in MULTI.factors)} times that size, merged by NMS, no flip",
}


@dataclass(frozen=True)
class PublishedDetector:
    """AP easy, medium and hard as others state it, on the whole WIDER validation set."""

    name: str
    scale: str  # ours that it is nearest to
    told: str
    average_precision: tuple[float, float, float]
    source: str


PUBLISHED = (
    PublishedDetector(
        "SCRFD-2.5G",
        VGA.name,
        "VGA",
        (0.9378, 0.9216, 0.7787),
        "Guo et al., arXiv:2105.04714",
    ),
    PublishedDetector(
        "RetinaFace-R50",
        VGA.name,
        "VGA",
        (0.9492, 0.9190, 0.6417),
        "the same table",
    ),
    PublishedDetector(
        "RetinaFace-R50",
        ORIGINAL.name,
        "original size",
        (0.9548, 0.9404, 0.8443),
        "biubug6/Pytorch_Retinaface",
    ),
    PublishedDetector(
        "RetinaFace-R50",
        MULTI.name,
        "multi-scale and flip",
        (0.965, 0.956, 0.904),
        "deepinsight/insightface",
    ),
)


def detection_part(
    of: DetectorResults | RecordedDetection, aligned: Aligned | None = None, *, drawn: bool = False
) -> str:
    """Markdown from `## Detection` up to the next part. drawn: the pictures are, so nothing published compares.

    aligned: what the points cost recognition; a detector that is taken over has it in its own report.
    """
    if isinstance(of, RecordedDetection):
        return f"## Detection\n\n{of.told}"
    parts = [_found(of), _wider(of), _heights(of), _near(of), _points(of), _faceless(of)]
    if not drawn:
        parts.insert(5, _aligned(aligned))
        parts.insert(2, _gap(of))
    return "\n\n".join(parts)


def summary_line(of: DetectorResults | RecordedDetection) -> str:
    """What a reader who reads nothing else should know of the detector."""
    if isinstance(of, RecordedDetection):
        return of.summary()
    served = of.served
    line = (
        f"detector: finds {served.at_one.recall:.2%} of the faces of at least {HEIGHT_LEAST:.0f} pixels at one false "
        f"positive a picture ({served.scale})"
    )
    less = of.differences.get(VGA.name)
    if less:
        told = ", ".join(f"{setting} {_signed(less[setting])}" for setting in SETTINGS)
        line += f"; AP less the reference's: {told}"
    return line


def _found(of: DetectorResults) -> str:
    head = ["detector", "scale", "recall at 1 FP", "recall at 0.1 FP", "faces"]
    rows = [
        [
            one.name,
            one.scale,
            f"{one.at_one.recall:.2%}",
            f"{one.at_tenth.recall:.2%}",
            f"{one.at_one.faces:,}",
        ]
        for one in of.findings
    ]
    scales = dict.fromkeys(one.scale for one in of.findings)
    told = "; ".join(f"{scale}: {SCALES[scale]}" for scale in scales)
    views = (
        f"{OURS}: as served, with a small copy of the canvas for near faces; {ONE_VIEW}: without it. "
        if any(one.name == ONE_VIEW for one in of.findings)
        else ""
    )
    return (
        f"## Detection\n\n{table(head, rows)}\n\nOn {of.served.at_one.pictures} validation pictures, a subset of WIDER "
        f"FACE's validation set. {told}. {views}Recall: faces of at least {HEIGHT_LEAST:.0f} pixels at that scale, IoU "
        "0.5, one threshold for all pictures, at one (a tenth of a) false positive a picture on average; found boxes "
        "under that height that match nothing are passed over."
    )


def _wider(of: DetectorResults) -> str:
    head = ["detector", "scale", *(f"AP {setting}" for setting in SETTINGS)]
    rows = []
    for scale in dict.fromkeys(one.scale for one in of.findings):
        rows += [
            [one.name, scale, *(f"{one.average_precision[setting]:.3f}" for setting in SETTINGS)]
            for one in of.at(scale)
        ]
        if scale in of.differences:
            less = of.differences[scale]
            rows.append(
                ["ours less the reference's", scale, *(_signed(less[setting]) for setting in SETTINGS)]
            )
    return (
        f"### WIDER FACE's own evaluation\n\n{table(head, rows)}\n\nThe subset's pictures and official lists. Scores "
        f"from 0.02 on, no flip. Differences are of the same pictures, ours with one view, in brackets 95 % by drawing "
        f"pictures anew.{_whole(of)}"
    )


def _whole(of: DetectorResults) -> str:
    """The official toolkit's arithmetic, of ours with one view at VGA."""
    ours = [one for one in of.at(VGA.name) if one.name == ONE_VIEW and one.whole]
    if not ours:
        return ""
    told = ", ".join(f"{ours[0].whole[setting]:.3f}" for setting in SETTINGS)
    return (
        f" In the whole numbers that the official MATLAB code computes with, {ONE_VIEW} has {told} at {VGA.name}; "
        "published figures, and these, are of real ones."
    )


def _gap(of: DetectorResults) -> str:
    ours = {one.scale: one for one in of.findings if one.name in (ONE_VIEW, OURS)}
    head = [
        "published detector",
        "as published at",
        *(f"AP {of}" for of in SETTINGS),
        "ours less that",
        "source",
    ]
    rows = []
    for one in PUBLISHED:
        if one.scale in ours:
            mine = ours[one.scale].average_precision
            gap = [mine[of] - theirs for of, theirs in zip(SETTINGS, one.average_precision, strict=True)]
            told = f"{', '.join(f'{by:+.3f}' for by in gap)} at {one.scale}"
            rows.append(
                [one.name, one.told, *(f"{ap:.3f}" for ap in one.average_precision), told, one.source]
            )
    return (
        f"### Beside published figures\n\n{table(head, rows)}\n\n**Another set and another protocol**: published "
        "figures are of all 3,226 validation pictures, and their VGA scales the longer side to 640 pixels, of tall and "
        "of small pictures too. Read the differences as an indication, not as a comparison."
    )


def _heights(of: DetectorResults) -> str:
    parts = []
    for scale in dict.fromkeys(one.scale for one in of.findings):
        beside = of.at(scale)
        parts.append(
            f"At {scale}:\n\n{_bands('height, pixels', {one.name: one.by_height for one in beside})}"
        )
    return (
        "### By height\n\n"
        + "\n\n".join(parts)
        + "\n\nHeight as the detector sees it. Recall at the threshold of "
        "one false positive a picture, then AP (IoU 0.5, area under the envelope): faces of other heights neither "
        "count nor harm, nor does what is found at other heights and matches nothing."
    )


def _near(of: DetectorResults) -> str:
    title = "### Faces that fill the frame"
    if not any(of.near.values()):
        return f"{title}\n\nNot assessed: no face is large enough."
    return (
        f"{title}\n\n{_bands('share of the frame', of.near)}\n\nThe set has few such faces, so these are made: every "
        f"face of {TALL:.0f} pixels and more of the same pictures is cut out so that its height or width fills 50, 70 "
        "and 90 % of a frame of 640 × 480 or 480 × 640 (15 % more or less where the photograph ends), enlarged where "
        "need be. Recall at the threshold above; AP over what is found on the face."
    )


def _points(of: DetectorResults) -> str:
    title = "### Landmarks"
    if not of.points:
        return f"{title}\n\nNot assessed: nobody annotated points, and there is no reference detector."
    head = ["detector", "scale", "median", "90 %", "faces", "of", "against"]
    rows = [
        [name, one.scale, f"{one.median:.3f}", f"{one.p90:.3f}", f"{one.faces:,}", f"{one.of:,}", one.against]
        for name, one in of.points.items()
    ]
    return (
        f"{title}\n\n{table(head, rows)}\n\nMean distance of the five points over the distance of the eyes (of a "
        f"profile, over a quarter of the face's size), for faces of at least {HEIGHT_LEAST:.0f} pixels. **Not against "
        "people's annotations**, of which the set has none: against a reference detector's points where its box agrees "
        "with the official one. It taught points in training too, so agreement flatters; its own line says how far it "
        "agrees with itself at another scale."
    )


def _aligned(of: Aligned | None) -> str:
    title = "### Good enough to align by"
    if of is None:
        return f"{title}\n\nNot assessed: `python -m training landmarks` was not run on this graph."
    rows = [
        [
            name,
            f"{one.accuracy:.2%} ± {one.error:.2%}",
            f"{one.mated:.3f}",
            f"{one.missed:,} of {one.photographs:,}",
        ]
        for name, one in ((OURS, of.ours), (of.reference.name, of.reference))
    ]
    head = ["aligned by the points of", "accuracy", "mated similarity", "photographs without a face"]
    value, low, high = (f"{100 * rate:+.2f}" for rate in (of.less.value, of.less.low, of.less.high))
    return (
        f"{title}\n\n{table(head, rows)}\n\n{of.ours.pairs}, from original photographs; one embedder for both "
        f"(sha256 {of.ours.embedder}), so the difference is the detectors' alone: {value} points, 95 % from {low} to "
        f"{high}, by Student's t over the {of.ours.folds} folds. Accuracy over the folds ± its standard error; a "
        "photograph without a face fails its mated pairs. Measured with the graph whose sha256 is "
        f"{of.ours.sha256}."
    )


def _faceless(of: DetectorResults) -> str:
    title = "### Pictures without faces"
    if not of.faceless:
        return f"{title}\n\nNot assessed."
    head = ["pictures", "how many", *(f"{name}, at 1 FP / 0.1 FP" for name in of.faceless)]
    by_source = zip(*of.faceless.values(), strict=True)
    rows = [
        [
            beside[0].source,
            str(beside[0].pictures),
            *(f"{one.at_one:.2f} / {one.at_tenth:.2f}" for one in beside),
        ]
        for beside in by_source
    ]
    return (
        f"{title}\n\n{table(head, rows)}\n\nFalse positives a picture at {VGA.name}, with each detector's thresholds "
        "of one, and of a tenth of a, false positive a WIDER picture. Drawn: clutter; scikit-image: what it brings "
        "along, without what shows people."
    )


def _bands(what: str, by_name: Mapping[str, Mapping[str, Band]]) -> str:
    head = [what, *(f"{name}: recall, AP" for name in by_name), "faces"]
    rows = []
    for band, first in next(iter(by_name.values())).items():
        if first.faces:
            cells = [of[band] for of in by_name.values()]
            rows.append(
                [
                    band,
                    *(f"{one.recall:.1%}, {one.average_precision:.3f}" for one in cells),
                    f"{first.faces:,}",
                ]
            )
    return table(head, rows)


def _signed(of: Interval) -> str:
    return f"{of.value:+.3f} ({of.low:+.3f} to {of.high:+.3f})"
