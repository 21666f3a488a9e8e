"""REPORT.md, the model card: what the bundle is, what it was made from, how well it does and what was not assessed.

Every number here is in the manifest too; nothing is said that was not measured, and what was not measured is said.
"""

from __future__ import annotations

from bundle.calibration import Calibration
from training.evaluation.detection_report import detection_part, summary_line
from training.evaluation.markdown import bullets
from training.evaluation.recognition_report import SOURCES, recognition_part, summary_lines
from training.evaluation.recorded import RecordedDetection
from training.evaluation.results import About, Results
from training.evaluation.thresholds_report import promised_lines, thresholds_part
from training.loop.lineage import in_words
from training.loop.records import AnyRecord, FaceRecord, TeacherRecord


def card(about: About, results: Results, calibration: Calibration) -> str:
    """The text of REPORT.md."""
    parts = [
        _head(about),
        _summary(about, results),
        _data(about, results),
        recognition_part(about, results),
        detection_part(results.detection, results.aligned, drawn=about.synthetic),
        thresholds_part(calibration, results.promise or {}),
        _parity(results),
        _limits(about),
        "## Figures\n\n"
        + "\n\n".join(f"![{text}]({file})\n\n{text}." for file, text in about.figures.items()),
        _made(about, results),
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
        f"# {about.model_id}\n\nA face detector with five landmarks ({about.detector}) and a face embedder "
        f"({about.embedder}), published {about.created} by Facet's own training.{drawn}\n\n"
        f"**Licence.** {about.licence}"
    )


def _summary(about: About, results: Results) -> str:
    lines = [
        *summary_lines(about, results),
        summary_line(results.detection),
        *promised_lines(results.promise or {}),
        *(f"below its floor: {verdict}" for verdict in results.verdicts if not verdict.holds),
        "not assessed: differences between groups of people, presentation attacks"
        if not about.synthetic
        else "",
    ]
    return "## Summary\n\n" + bullets(line for line in lines if line)


def _data(about: About, results: Results) -> str:
    drawn = (
        "Every picture was drawn by `training/data/drawing.py` and `scenes.py`. People are drawn from separate ranges "
        "of numbers for training, validation, calibration and the verification pairs."
    )
    parts = [drawn, _learnt(about)]
    if not about.synthetic:
        parts = [_learnt(about), _measured_with(about, results), _alike(results), _leakage(about, results)]
    return "\n\n".join(["## Data", *parts])


def _alike(results: Results) -> str:
    of = results.detection
    recorded = f", as {of.origin} recorded it" if isinstance(of, RecordedDetection) else ""
    return (
        "Training photographs of `wider` and `masks` that look like a validation photograph of `wider` (difference "
        f"hash){recorded}: {results.alike}."
    )


def _learnt(about: About) -> str:
    return (
        "The weights were made from these, as the two runs recorded it, and inherit the strictest terms among them; "
        '"not stated" counts as research only. Labels are official where people gave them, pseudo where a program '
        "alone did.\n\n"
        + bullets(f"{model}: {_named(of)}" for model, records in about.records.items() for of in records)
    )


def _named(of: AnyRecord) -> str:
    if isinstance(of, FaceRecord):
        return str(of.model_copy(update={"sources": tuple(SOURCES.get(name, name) for name in of.sources)}))
    return str(of)


def _measured_with(about: About, results: Results) -> str:
    ours, detection = results.recognition[0], results.detection
    sources = ", ".join(SOURCES.get(of.group, of.group) for of in ours.on_validation.sources)
    uses = {
        "faces": "`validation` to select and for the gate, `calibration` for thresholds alone"
        + (f", of {sources}" if sources else "")
    }
    if ours.on_lfw:
        uses |= dict.fromkeys(("lfw", "lfw.bin"), f"evaluation only, {ours.on_lfw.pictures:,} pictures")
    if not isinstance(detection, RecordedDetection):
        uses["wider"] = (
            "a tenth of the training pictures to select, evaluation only on "
            f"{detection.served.at_one.pictures:,} validation pictures"
        )
    return "Measured and calibrated with:\n\n" + bullets(
        f"`{name}`: {uses[name] + '; ' if name in uses else ''}terms: {terms}"
        for name, terms in about.sets.items()
    )


def _leakage(about: About, results: Results) -> str:
    overlap = (
        "Whether the training set has people of the evaluation sets was not assessed; some may be in both."
        if results.overlap is None
        else "Who of the evaluation sets looks like somebody of `train` is told below; some may be hidden."
    )
    if about.distilled:
        mind = ": read the LFW figures with that in mind" if results.recognition[0].on_lfw else ""
        return (
            "**Distillation and leakage.** The embedder learnt from the embeddings of the reference embedder "
            "(foamliu/MobileFaceNet, trained on MS1M) beside its own identity labels. MS1M contains many of LFW's "
            f"people, so through its teacher this model has indirectly seen people of LFW{mind}. {overlap}"
        )
    if any(isinstance(of, TeacherRecord) for of in about.records.get("embedder", ())):
        return (
            "**Distillation and leakage.** The embedder learnt from a teacher's embeddings beside its own identity "
            "labels: whom that teacher has seen, this model has seen indirectly, and that was not assessed. "
            f"{overlap}"
        )
    return f"**Leakage.** {overlap}"


def _parity(results: Results) -> str:
    lines = []
    for name, measured in results.parity.items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in measured.items()))
    return (
        "## Parity\n\nThe graphs against the trained models, and variants against their graph:\n\n"
        + bullets(lines)
    )


def _limits(about: About) -> str:
    held = [
        "Presentation attacks are not detected: a printed photograph can match.",
        "Demographic differences are not assessed. Kin and look-alikes match more often than the stated rates.",
        "Rates below what the calibration pairs carry are a tail fit, and marked so in every answer.",
        "No use for decisions about people without consent, human review and a legal basis.",
    ]
    return "## Limits\n\n" + bullets(held[:2] * (not about.synthetic) + held[2:])


def _made(about: About, results: Results) -> str:
    steps = {name: f"{name} {count:,} steps" for name, count in about.steps.items()}
    if about.lineage:
        steps["embedder"] += f", {in_words(about.lineage)}"
    if isinstance(results.detection, RecordedDetection):
        steps["detector"] += f", taken over from {results.detection.source}"
    told = "; ".join(steps.values())
    return (
        f"## Made with\n\n`{about.command}` at commit `{about.commit}` ({told}).\n\n{bullets(about.datasets)}"
    )
