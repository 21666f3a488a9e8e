"""REPORT.md, the model card: what the bundle is, what it was made from, how well it does and what was not assessed.

Every number here is in the manifest too; nothing is said that was not measured, and what was not measured is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bundle.calibration import Calibration, UnsupportedRate
from training.evaluation.bootstrap import Interval
from training.evaluation.finding import CANVAS, HEIGHT_LEAST
from training.evaluation.results import About, Results

FMRS_SHIPPED = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def card(about: About, results: Results, calibration: Calibration) -> str:
    """The text of REPORT.md."""
    parts = [
        _head(about),
        _data(about, results),
        _recognition(about, results),
        _detection(results),
        _thresholds(calibration, results.promise or {}),
        _parity(results),
        _limits(about),
        "## Figures\n\n"
        + "\n\n".join(f"![{text}]({file})\n\n{text}." for file, text in about.figures.items()),
        _made(about),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _head(about: About) -> str:
    drawn = (
        "\n\n**Made from drawn pictures.** It shows that training, publishing and serving fit together. "
        "On photographs of people it is useless."
        if about.synthetic
        else ""
    )
    return (
        f"# {about.model_id}\n\nA face detector with five landmarks (slim ResNet RetinaNet) and a face embedder "
        f"(MobileFaceNet), published {about.created} by Facet's own training.{drawn}\n\n"
        f"**Licence.** {about.licence}"
    )


def _data(about: About, results: Results) -> str:
    if about.synthetic:
        return (
            "## Data\n\nEvery picture was drawn by `training/data/drawing.py` and `scenes.py`. People are drawn from "
            "separate ranges of numbers for training, validation, calibration and the verification pairs."
        )
    teacher = (
        "\n\n**Distillation and leakage.** The embedder learnt from the embeddings of the reference embedder "
        "(foamliu/MobileFaceNet, trained on MS1M) beside its own identity labels. MS1M contains many of LFW's people, "
        "so through its teacher this model has indirectly seen people of LFW: read the LFW figure with that in mind. "
        "The identities of the labelled faces that look like anyone in the evaluation sets were removed by the data "
        "set's own cleaning with an independent embedder; the overlap was not assessed beyond that, and some hidden "
        "overlap and about 2 % wrong labels can remain."
        if about.distilled
        else "\n\n**Leakage.** Identities that look like anyone in the evaluation sets were removed by the data set's "
        "own cleaning; the overlap was not assessed beyond that."
    )
    return (
        "## Data\n\nAll sets show real people and are used under non-commercial research terms; the weights inherit "
        "them.\n\n"
        + _bullets(
            [
                "embedder: aligned faces from Families in the Wild, PINS and CelebA, split by identity: `train` to "
                "train, `validation` to select and for the gate, `calibration` for thresholds alone",
                "detector: a subset of WIDER FACE's training pictures (nine tenths to train, one tenth to select) and "
                "photographs of people with and without masks; boxes are official, five points were "
                "taught by YuNet where it agreed with a box",
                "evaluation only: LFW (7,701 pictures, 6,000 pairs) and a subset of WIDER "
                "FACE's validation pictures",
            ]
        )
        + f"\n\nTraining photographs that look like a WIDER validation photograph (difference hash): "
        f"{len(results.duplicates)}." + teacher
    )


def _recognition(about: About, results: Results) -> str:
    fmrs = sorted({fmr for of in results.recognition for fmr in of.fnmr}, reverse=True)
    head = ["embedder", "LFW, ten folds", *(f"FNMR at FMR {fmr:g}" for fmr in fmrs)]
    rows = [
        [of.name, f"{of.lfw:.2%} ± {of.lfw_error:.2%}", *(_interval(of.fnmr.get(fmr)) for fmr in fmrs)]
        for of in results.recognition
    ]
    if results.fnmr_ratio:
        ratios = [results.fnmr_ratio.get(fmr) for fmr in fmrs]
        cells = [f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f})" if of else "–" for of in ratios]
        rows.append(["ratio", "", *cells])
    first = results.recognition[0].scores
    what = "drawn pairs in LFW's form" if about.synthetic else "LFW's 6,000 pairs"
    return (
        f"## Recognition\n\n{_table(head, rows)}\n\n"
        "`embedder.onnx` as served (through its PReLU rewrite, the same function, see Parity): one centre crop, "
        f"no flip, ONNX Runtime on a CPU. Ten folds ({what}): mean and standard error over the folds; measured on "
        f"{results.lfw_measured} exported checkpoints in this working copy, this one included. FNMR: all "
        f"pairs of `validation` ({len(first.genuine):,} mated, {len(first.impostor):,} non-mated; kin apart), in "
        "brackets 95 % by drawing people anew."
    )


def _detection(results: Results) -> str:
    head = ["detector", "recall at 1 FP", "recall at 0.1 FP", "AP easy", "AP medium", "AP hard"]
    rows = [
        [of.name, f"{of.at_one.recall:.2%}", f"{of.at_tenth.recall:.2%}"]
        + [f"{of.average_precision[name]:.3f}" for name in ("easy", "medium", "hard")]
        for of in results.finding
    ]
    ours = results.finding[0]
    heights = [
        [name, *(f"{of.by_height[name][0]:.1%}" for of in results.finding), str(n)]
        for name, (_, n) in ours.by_height.items()
        if n
    ]
    names = ["height on the canvas", *(of.name for of in results.finding), "faces"]
    return (
        f"## Detection\n\n{_table(head, rows)}\n\n"
        f"On {ours.at_one.pictures} validation pictures (a subset of WIDER FACE's validation set), each scaled to "
        f"fit {CANVAS[0]} × {CANVAS[1]}. Recall: faces of at least {HEIGHT_LEAST:.0f} pixels there "
        f"({ours.at_one.faces:,}), IoU 0.5, one threshold for all pictures, at one (a tenth of a) false positive a "
        "picture on average; found boxes under that height that match nothing are passed over. "
        "AP: WIDER's own evaluation at that scale, so not comparable with figures at the "
        f"original size.\n\n{_table(names, heights)}\n\nRecall by height at one false positive a picture."
    )


def _thresholds(calibration: Calibration, promise: Mapping[str, Any]) -> str:
    rows = []
    for fmr in FMRS_SHIPPED:
        try:
            threshold = calibration.threshold_for_fmr(fmr)
            rows.append(
                [f"{fmr:g}", f"{threshold.value:.4f}", "tail fit" if threshold.extrapolated else "measured"]
            )
        except UnsupportedRate as error:
            rows.append([f"{fmr:g}", "–", f"not supported (smallest {error.supported:.2g})"])
    kin = zip(calibration.kin.at, calibration.kin.rates, strict=True)
    relatives = ", ".join(f"{at:g} → {rate:.2g}" for at, rate in kin)
    tables = [_kept(promise, key, name) for key, name in (("held_out_fmr", "FMR"), ("held_out_fpir", "FPIR"))]
    return (
        f"## Thresholds\n\n{_table(['FMR', 'cosine', 'rests on'], rows)}\n\n"
        f"From {calibration.people} people of `{calibration.dataset}` who were neither trained on nor selected on: "
        f"{calibration.curves[0].comparisons:,} comparisons, one per pair of people. Pairs of labels that an "
        f"independent embedder shows to be one person, and that are left out: {len(calibration.excluded)}. "
        + (
            f"False match rates of members of one family at those thresholds: {relatives}. "
            if relatives
            else ""
        )
        + "The promise holds for people like these."
        + "".join(tables)
    )


def _kept(promise: Mapping[str, Any], key: str, name: str) -> str:
    """Promised and realised rates where one half of the people calibrates and the other half tests."""
    told = [of for of in promise.get(key, ()) if of["realised"] is not None]
    if not told:
        return ""
    rows = [
        [
            f"{of['promised']:g}",
            f"{of['realised']:.3g} ± {of['spread']:.2g}",
            "yes" if of["extrapolated"] else "no",
        ]
        for of in told
    ]
    what = "comparisons" if name == "FMR" else f"searches in a gallery of {told[0]['persons']}"
    head = [f"promised {name}", "realised on other people", "extrapolated"]
    return f"\n\n{_table(head, rows)}\n\nFitted on half of the people, tested on {what} of the other half."


def _parity(results: Results) -> str:
    lines = []
    for name, measured in results.parity.items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in measured.items()))
    return (
        "## Parity\n\nThe graphs against the trained models, and variants against their graph:\n\n"
        + _bullets(lines)
    )


def _limits(about: About) -> str:
    held = [
        "Presentation attacks are not detected: a printed photograph can match.",
        "Demographic differences are not assessed. Kin and look-alikes match more often than the stated rates.",
        "Rates below what the calibration pairs carry are a tail fit, and marked so in every answer.",
        "No use for decisions about people without consent, human review and a legal basis.",
    ]
    return "## Limits\n\n" + _bullets(held[:2] * (not about.synthetic) + held[2:])


def _made(about: About) -> str:
    steps = ", ".join(f"{name} {count:,} steps" for name, count in about.steps.items())
    return f"## Made with\n\n`{about.command}` at commit `{about.commit}` ({steps}).\n\n{_bullets(about.datasets)}"


def _interval(of: Interval | None) -> str:
    return f"{of.value:.2%} ({of.low:.2%} to {of.high:.2%})" if of else "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
