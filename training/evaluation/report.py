"""REPORT.md, the model card: what the bundle is, what it was made from, how well it does and what was not assessed.

Every number here is in the manifest too; nothing is said that was not measured, and what was not measured is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bundle.calibration import Calibration, UnsupportedRate
from training.evaluation.detection_report import detection_part, summary_line
from training.evaluation.markdown import bullets, table
from training.evaluation.recognition_report import SOURCES, STATED_FPIR, recognition_part, summary_lines
from training.evaluation.results import About, Results
from training.loop.lineage import in_words
from training.loop.records import AnyRecord, FaceRecord, TeacherRecord

FMRS_SHIPPED = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def card(about: About, results: Results, calibration: Calibration) -> str:
    """The text of REPORT.md."""
    parts = [
        _head(about),
        _summary(about, results),
        _data(about, results),
        recognition_part(about, results),
        detection_part(results.detection, drawn=about.synthetic),
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
        f"# {about.model_id}\n\nA face detector with five landmarks ({about.detector}) and a face embedder "
        f"({about.embedder}), published {about.created} by Facet's own training.{drawn}\n\n"
        f"**Licence.** {about.licence}"
    )


def _summary(about: About, results: Results) -> str:
    lines = [
        *summary_lines(about, results),
        summary_line(results.detection),
        *_promised(results.promise or {}),
        *(f"below its floor: {verdict}" for verdict in results.verdicts if not verdict.holds),
        "not assessed: differences between groups of people, presentation attacks"
        if not about.synthetic
        else "",
    ]
    return "## Summary\n\n" + bullets(line for line in lines if line)


def _promised(promise: Mapping[str, Any]) -> list[str]:
    told = [of for of in _searches(promise) if of["promised"] == STATED_FPIR]
    if not told:
        return []
    realised = [of["realised"] for of in told]
    people = f"{told[0]['persons']} to {told[-1]['persons']}" if len(told) > 1 else f"{told[0]['persons']}"
    return [
        f"thresholds: asked for FPIR {STATED_FPIR:g}, galleries of {people} people have {min(realised):.2g} to "
        f"{max(realised):.2g} when they are searched by people who were not calibrated on"
    ]


def _data(about: About, results: Results) -> str:
    drawn = (
        "Every picture was drawn by `training/data/drawing.py` and `scenes.py`. People are drawn from separate ranges "
        "of numbers for training, validation, calibration and the verification pairs."
    )
    parts = [drawn, _learnt(about)]
    if not about.synthetic:
        duplicates = (
            "Training photographs of `wider` and `masks` that look like a validation photograph of `wider` (difference "
            f"hash): {len(results.duplicates)}."
        )
        parts = [_learnt(about), _measured_with(about, results), duplicates, _leakage(about, results)]
    return "\n\n".join(["## Data", *parts])


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
    ours = results.recognition[0]
    sources = ", ".join(SOURCES.get(of.group, of.group) for of in ours.on_validation.sources)
    uses = {
        "faces": "`validation` to select and for the gate, `calibration` for thresholds alone"
        + (f", of {sources}" if sources else ""),
        "lfw": f"evaluation only, {ours.on_lfw.pictures:,} pictures",
        "wider": "a tenth of the training pictures to select, evaluation only on "
        f"{results.detection.served.at_one.pictures:,} validation pictures",
    }
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
        return (
            "**Distillation and leakage.** The embedder learnt from the embeddings of the reference embedder "
            "(foamliu/MobileFaceNet, trained on MS1M) beside its own identity labels. MS1M contains many of LFW's "
            "people, so through its teacher this model has indirectly seen people of LFW: read the LFW figures with "
            f"that in mind. {overlap}"
        )
    if any(isinstance(of, TeacherRecord) for of in about.records.get("embedder", ())):
        return (
            "**Distillation and leakage.** The embedder learnt from a teacher's embeddings beside its own identity "
            "labels: whom that teacher has seen, this model has seen indirectly, and that was not assessed. "
            f"{overlap}"
        )
    return f"**Leakage.** {overlap}"


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
    return (
        f"## Thresholds\n\n{table(['FMR', 'cosine', 'rests on'], rows)}\n\n"
        f"From {calibration.people} people of `{calibration.dataset}` who were neither trained on nor selected on: "
        f"{calibration.curves[0].comparisons:,} comparisons, one per pair of people. Pairs of labels that an "
        f"independent embedder shows to be one person, and that are left out: {len(calibration.excluded)}. "
        + (
            f"False match rates of members of one family at those thresholds: {relatives}. "
            if relatives
            else ""
        )
        + "The promise holds for people like these."
        + _comparisons(promise)
        + _identification(promise)
    )


def _comparisons(promise: Mapping[str, Any]) -> str:
    """Promised and realised FMR where one half of the people calibrates and the other half tests."""
    told = promise.get("held_out_fmr", ())
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
    head = ["promised FMR", "realised on other people", "extrapolated"]
    return (
        f"\n\n{table(head, rows)}\n\nFitted on half of the people, tested on comparisons of the other half."
    )


def _identification(promise: Mapping[str, Any]) -> str:
    """Asked and realised FPIR, a line for each gallery size."""
    told = _searches(promise)
    if not told:
        return ""
    rates = sorted({of["promised"] for of in told}, reverse=True)
    rows = []
    for persons in dict.fromkeys(of["persons"] for of in told):
        cells = {of["promised"]: of for of in told if of["persons"] == persons}
        some = next(iter(cells.values()))
        searches = f"{some['probes']:,}"
        name = f"{persons} †" if some["gallery_in_fit"] else str(persons)
        rows.append([name, searches, *(_realised(cells.get(rate)) for rate in rates)])
    head = ["people in the gallery", "searches", *(f"asked FPIR {rate:g}" for rate in rates)]
    return (
        f"\n\n{table(head, rows)}\n\nA simulation: people are enrolled with all but one of their pictures (ten at "
        "most) and searched by others who are not kin of anybody enrolled, at the threshold for the asked FPIR; "
        "realised FPIR over all drawings of the people, in brackets 95 % by drawing the searching people anew. "
        "Thresholds are fitted on the half of the people that is neither enrolled nor searching. †: too large for "
        "a half, so fitted on everybody who does not search; only the enrolled are not new. *: rests on the tail "
        "fit. Below the asked rate is the safe side."
    )


def _realised(of: Mapping[str, Any] | None) -> str:
    if of is None:
        return "–"
    return f"{of['realised']:.2g} ({of['low']:.2g} to {of['high']:.2g}){' *' if of['extrapolated'] else ''}"


def _searches(promise: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [of for of in promise.get("held_out_fpir", ()) if of["realised"] is not None]


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


def _made(about: About) -> str:
    steps = {name: f"{name} {count:,} steps" for name, count in about.steps.items()}
    if about.lineage:
        steps["embedder"] += f", {in_words(about.lineage)}"
    told = "; ".join(steps.values())
    return (
        f"## Made with\n\n`{about.command}` at commit `{about.commit}` ({told}).\n\n{bullets(about.datasets)}"
    )
