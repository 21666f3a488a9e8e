"""The part of the report that is about the embedder: verification, one to many, overlap, sources, other trainings."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.identification import FPIRS, RANKS, Identification
from training.evaluation.markdown import NOTHING, rate, share, table
from training.evaluation.recognition import FMRS, LFW_FMRS, SOURCES_FMR, SPLITS, OnLfw, Recognition
from training.evaluation.results import About, Results

SEEN = "distilled: the teacher saw some of these people"
SOURCES = {  # as the data set's own table calls them
    "fiw": "Families in the Wild",
    "pins": "PINS",
    "celeba_wild": "CelebA, in the wild",
    "celeba10k": "CelebA, small pictures",
    "drawn": "drawn",
}
STATED_FPIR = 0.01  # the service's default


def recognition_part(about: About, results: Results) -> str:
    """Markdown from `## Recognition` up to the next part."""
    served = [of for of in results.recognition if of.served]
    parts = [
        _verification(about, results),
        _lfw_pairs(about, served),
        _one_to_many(about, served),
        _overlap(about, results, served),
        _sources(served),
        _ablations(about, results),
    ]
    return "\n\n".join(parts)


def summary_lines(about: About, results: Results) -> list[str]:
    """What a reader who reads nothing else should know of the embedder."""
    of = results.recognition[0].on_lfw
    folds = f"{_accuracy(of)}{_seen(about)}" if of else "not assessed, there are no pairs"
    lines = [f"ten folds of {_lfw(about)}: {folds}", validation_line(results)]
    if of and of.search and (missed := of.search.fnir.get(STATED_FPIR)):
        lines.append(
            f"one to many, {of.search.gallery:,} people of {_lfw(about)} with one picture each: at FPIR "
            f"{STATED_FPIR:g} {share(missed)} of the searches of enrolled people miss{_seen(about)}"
        )
    return lines


def validation_line(results: Results) -> str:
    """FNMR on `validation` at the smallest FMR that it carries, beside the reference's where that was measured."""
    ours = results.recognition[0].fnmr
    least = min(ours)
    ratio = (results.fnmr_ratio or {}).get(least)
    beside = f", {ratio.value:.2f} times the reference's" if ratio else ""
    return f"FNMR at FMR {least:g} on `validation`: {share(ours[least])}{beside}"


def _verification(about: About, results: Results) -> str:
    fmrs = sorted({fmr for of in results.recognition for fmr in of.fnmr}, reverse=True)
    head = ["embedder", f"{_lfw(about)}, ten folds", *(f"FNMR at FMR {fmr:g}" for fmr in fmrs)]
    rows = [
        [of.name, _accuracy(of.on_lfw), *(share(of.fnmr.get(fmr)) for fmr in fmrs)]
        for of in results.recognition
    ]
    if results.fnmr_ratio:
        ratios = [results.fnmr_ratio.get(fmr) for fmr in fmrs]
        cells = [f"{of.value:.2f} ({of.low:.2f} to {of.high:.2f})" if of else NOTHING for of in ratios]
        rows.append(["ratio", "", *cells])
    validation = results.recognition[0].on_validation
    mated, impostors = int(validation.scores.genuine.sum()), int(validation.scores.impostor.sum())
    extra = [of.name for of in results.recognition if not of.served]
    on_lfw = results.recognition[0].on_lfw
    what = f"{'drawn pairs in' if about.synthetic else 'pairs of'} LFW's form"
    folds = (
        f"Ten folds: {on_lfw.pairs:,} {what}{_seen(about)}, mean and standard error over the folds; measured on "
        f"{results.lfw_measured} exported checkpoints in this working copy, this one included. "
        if on_lfw
        else "Ten folds: not assessed, there are no pairs. "
    )
    return (
        f"## Recognition\n\n{table(head, rows)}\n\n"
        "`embedder.onnx` as served (in the fastest form that the ladder allows, see Parity): one centre crop, "
        "no flip, ONNX Runtime on a CPU; so is every figure of ours below. "
        + (f"Not as served, for comparison only: {', '.join(extra)}. " if extra else "")
        + f"{folds}FNMR: all "
        f"pairs of `validation` ({mated:,} mated, {impostors:,} non-mated; kin apart), in "
        "brackets 95 % by drawing people anew. All pairs count alike: the five people with most pictures make "
        f"{validation.five_people:.0%} of the mated ones."
    )


def _lfw_pairs(about: About, served: Sequence[Recognition]) -> str:
    title, ours = f"### All pairs of {_lfw(about)}'s pictures", served[0].on_lfw
    if ours is None:
        return f"{title}\n\nNot assessed: there are no such pictures."
    if ours.named is None:
        return f"{title}\n\nNot assessed: a `.bin` pack does not tell who is on its pictures."
    head = ["embedder", *(f"FNMR at FMR {fmr:g}" for fmr in LFW_FMRS)]
    beside = [(of.name, of.on_lfw.fnmr) for of in served if of.on_lfw]
    rows = [[name, *(share(fnmr.get(fmr)) for fmr in LFW_FMRS)] for name, fnmr in beside]
    scores = ours.named.scores
    return (
        f"{title}\n\n{table(head, rows)}\n\n"
        f"{ours.pictures:,} pictures of {ours.named.people:,} people: {int(scores.genuine.sum()):,} mated and "
        f"{int(scores.impostor.sum()):,} non-mated pairs{_seen(about)}. A dash: the pairs do not carry it."
    )


def _one_to_many(about: About, served: Sequence[Recognition]) -> str:
    head = ["embedder", "people of", "gallery", *(f"FNIR at FPIR {fpir:g}" for fpir in FPIRS)]
    head += [f"rank {k}" for k in RANKS]
    rows = []
    for of in served:
        on_lfw = of.on_lfw.search if of.on_lfw else None
        searched = [(_lfw(about), on_lfw), *(("validation", g) for g in of.on_validation.galleries)]
        rows += [_searched(of.name, people, found) for people, found in searched if found]
    if not rows:
        return "### One to many\n\nNot measured: too few searches to carry an FPIR of 0.1."
    of_lfw = (
        f"{_lfw(about)}: whoever has two or more pictures enrols the first, the others are searched, and everybody "
        f"else is unknown{_seen(about)}. "
    )
    return (
        f"### One to many\n\n{table(head, rows)}\n\nA search of an enrolled person misses unless that person comes "
        f"first and reaches the threshold; rank k asks for no threshold. {of_lfw if served[0].on_lfw else ''}"
        f"Validation: people drawn from all enrol one drawn picture, the others are unknown; mean of {SPLITS} "
        "drawings. In brackets 95 % by drawing the searched people anew. Kin of the searched person are passed "
        "over. A dash: fewer than ten false positives would be expected."
    )


def _searched(name: str, people: str, of: Identification) -> list[str]:
    ranks = [f"{of.ranks[k].value:.1%}" for k in RANKS]
    return [name, people, f"{of.gallery:,}", *(share(of.fnir.get(fpir)) for fpir in FPIRS), *ranks]


def _overlap(about: About, results: Results, served: Sequence[Recognition]) -> str:
    title = "### Without people who overlap the training set"
    teacher = (
        f" The teacher's own overlap cannot be taken out ({SEEN})."
        if about.distilled and not about.synthetic
        else ""
    )
    overlap = results.overlap
    if overlap is None:
        return f"{title}\n\nNot assessed.{teacher}"
    of_lfw = "" if overlap.lfw is None else f"{len(overlap.lfw)} of {_lfw(about)}, "
    found = (
        f"People who look like somebody of the training set ({overlap.how}): {of_lfw}{len(overlap.validation)} of "
        "`validation`."
    )
    if not overlap.anybody:
        return f"{title}\n\n{found}{teacher}"
    head = ["embedder", "people", f"{_lfw(about)}, ten folds", f"FNMR at FMR {LFW_FMRS[0]:g}, all its pairs"]
    head += [f"FNIR at FPIR {STATED_FPIR:g}", f"FNMR at FMR {min(FMRS):g}, validation"]
    rows = []
    for of in served:
        both = [("all", of.on_lfw, of.fnmr)]
        if of.disjoint:
            both.append(("without overlap", of.disjoint.lfw, of.disjoint.validation))
        for people, lfw, validation in both:
            missed = lfw.search.fnir.get(STATED_FPIR) if lfw and lfw.search else None
            pairs = lfw.fnmr.get(LFW_FMRS[0]) if lfw else None
            cells = [share(pairs), share(missed), share(validation.get(min(FMRS)))]
            rows.append([of.name, people, _accuracy(lfw), *cells])
    return f"{title}\n\n{table(head, rows)}\n\n{found}{teacher}"


def _sources(served: Sequence[Recognition]) -> str:
    title = "### By group\n\nDifferences by age, sex or skin are not assessed: the sets have no such labels."
    ours, *others = (of.on_validation.sources for of in served)
    if not ours:
        return f"{title} By source: not assessed, too few pairs."
    beside = {of.group: [rates[place].fnmr for rates in others] for place, of in enumerate(ours)}
    head = ["source", "people", "faces", "mated pairs", "FMR", *(f"FNMR, {of.name}" for of in served)]
    rows = [
        [SOURCES.get(of.group, of.group), str(of.people), str(of.faces), f"{of.mated:,}", rate(of.fmr)]
        + [share(fnmr) for fnmr in (of.fnmr, *beside[of.group])]
        for of in ours
    ]
    return (
        f"{title} Between the sources of the validation faces, each embedder at its one threshold that has FMR "
        f"{SOURCES_FMR:g} over all pairs:\n\n{table(head, rows)}\n\nBoth faces of a pair are of the source; FMR "
        f"is ours.{_spread([of.fnmr.value for of in ours if of.fnmr], 'FNMR')}"
        f"{_spread([of.fmr.value for of in ours if of.fmr], 'FMR')}"
    )


def _spread(values: Sequence[float], what: str) -> str:
    if len(values) < 2 or min(values) <= 0:
        return ""
    return f" Largest over smallest {what}: {max(values) / min(values):.1f}."


def _ablations(about: About, results: Results) -> str:
    title = "### More data, and the teacher"
    if not results.ablations:
        return f"{title}\n\nNot measured."
    rows = [
        [
            of.name,
            f"{of.identities:,}",
            f"{of.faces:,}",
            f"{of.steps:,}",
            "yes" if of.distilled else "no",
            share(of.fnmr),
            NOTHING if of.lfw is None else f"{of.lfw:.2%} ± {of.lfw_error:.2%}",
        ]
        for of in results.ablations
    ]
    head = ["training", "people", "faces", "steps", "distilled", "FNMR at FMR 0.001, validation"]
    head.append(f"{_lfw(about)}, ten folds")
    how = (
        "Trainings from the beginning, each named by its configuration and the share of the people, measured on all "
        "pairs of `validation`. Compare rows of equal steps, and read them as what these steps give: a few thousand do "
        "not exhaust a large set, of which every face is then seen less often."
    )
    if not about.synthetic and any(of.distilled and of.lfw is not None for of in results.ablations):
        how += " Of those that are distilled the teacher saw some of LFW's people."
    return f"{title}\n\n{table(head, rows)}\n\n{how}"


def _accuracy(of: OnLfw | None) -> str:
    return f"{of.accuracy:.2%} ± {of.error:.2%}" if of else NOTHING


def _lfw(about: About) -> str:
    return "the drawn pairs" if about.synthetic else "LFW"


def _seen(about: About) -> str:
    return f" ({SEEN})" if about.distilled and not about.synthetic else ""
