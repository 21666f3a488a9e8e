"""The parity ladder: torch ↔ ONNX ↔ PReLU rewritten ↔ float16 ↔ int8, each rung with what it costs and what it brings.

The first two steps must be exact. Half precision and int8 are served only where they were measured faster than what
would be served otherwise and within the budget; else the ladder says why not. All of it is of ONNX Runtime on this
machine's CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field
from torch import nn

from bundle.sentinel import Sentinel, WrongAnswer
from bundle.sentinel import check as check_sentinel
from training.config import RunConfig
from training.data.identities import Faces
from training.evaluation.bootstrap import Interval
from training.evaluation.verification import TooFewImpostors
from training.export.difference import fnmr_differences
from training.export.half import NotForHalf, to_half
from training.export.pace import milliseconds
from training.export.parity import (
    Agreement,
    ParityFailed,
    agreement,
    check_batches,
    check_embedder,
    golden_crops,
)
from training.export.prelu import NothingToRewrite, rewrite_prelu
from training.export.quantize import crops_to_calibrate, to_int8
from training.export.sessions import ServedGraph, embed_once

CANONICAL = "onnx"
EXACT = "prelu-rewrite"
TENTH = 10  # every tenth face goes through the trained model too, which is slow


class Budget(RunConfig):
    """What a variant may cost, and what it must bring, to be served."""

    fmr: float = Field(1e-3, gt=0, lt=1)  # at which FNMR is compared
    fnmr_most: float = Field(1e-3, ge=0, le=1)  # rise of FNMR, upper bound: 0.1 percentage points
    cosine_p1_least: float = Field(0.99, ge=0, le=1)  # to the canonical graph, of all but 1 % of the faces
    faster_least: float = Field(1.05, ge=1)  # times faster than what would be served otherwise
    int8_pictures: int = Field(64, ge=4)  # to calibrate on
    int8_exclude: tuple[str, ...] = ()  # layers that stay in float (see `training.export.sensitivity`)


@dataclass(frozen=True)
class Rung:
    """One form of the embedder. `fnmr_difference` and `agreement` are to the canonical graph; the canonical graph's own
    agreement is to the trained model. `reason` says why it is, or is not, in the bundle."""

    kind: str
    file: str
    published: bool
    reason: str
    agreement: Agreement | None = None  # None where the form could not be made
    milliseconds: float | None = None
    megabytes: float | None = None
    fnmr_difference: Interval | None = None  # None where the faces do not carry the rate

    def row(self) -> dict[str, object]:
        """As the manifest and outcome.json keep it; what is no finite number is None."""
        near = self.agreement.row() if self.agreement else {}
        return {
            "file": self.file,
            "published": self.published,
            "reason": self.reason,
            "milliseconds_a_face": self.milliseconds,
            "megabytes": self.megabytes,
            "fnmr_difference": vars(self.fnmr_difference) if self.fnmr_difference else None,
            **{name: value if np.isfinite(value) else None for name, value in near.items()},
        }

    def cost(self, before: float) -> dict[str, float]:
        """As a variant of the manifest states it. before: the canonical graph's milliseconds."""
        told = {**self.agreement.row()} if self.agreement else {}
        if self.milliseconds is not None:
            told |= {"milliseconds_a_face": self.milliseconds, "milliseconds_a_face_before": before}
        if self.fnmr_difference:
            told |= {f"fnmr_difference_{name}": of for name, of in vars(self.fnmr_difference).items()}
        return told


@dataclass(frozen=True)
class Ladder:
    """The rungs from the canonical graph on, and the graph that is served: the fastest of the published."""

    rungs: tuple[Rung, ...]
    served: ServedGraph

    @property
    def variants(self) -> list[Rung]:
        """The published forms beside the canonical one, the fastest first: the service takes the first that fits."""
        return sorted(
            (of for of in self.rungs if of.published and of.kind != CANONICAL),
            key=lambda of: of.milliseconds or 0,
        )


def climb(
    module: nn.Module, canonical: ServedGraph, sentinel: Sentinel, faces: Faces, budget: Budget, cache: Path
) -> Ladder:
    """Make every form beside `canonical.path`, measure all and decide; raises ParityFailed where an exact one is not.

    module: the trained model as exported; faces: of the validation split, to compare on and to calibrate int8 with.
    """
    forms, missing = _forms(canonical.path, faces, budget)
    # One thread each, whatever serves the measurements: processor time is compared.
    graphs = {kind: ServedGraph(path) for kind, path in {CANONICAL: canonical.path, **forms}.items()}
    golden = {kind: graph.embed(golden_crops()) for kind, graph in graphs.items()}
    rungs = _measured(graphs, golden, faces, budget, cache)
    rungs[0] = replace(rungs[0], agreement=check_embedder(module, canonical, faces.crops()[::TENTH]))
    decided = decide(rungs, budget, lambda kind: _faults(graphs[kind], golden[kind], sentinel))
    fastest = min((of for of in decided if of.published), key=lambda of: of.milliseconds or 0)
    return Ladder((*decided, *missing), graphs[fastest.kind])


def decide(rungs: Sequence[Rung], budget: Budget, faults: Callable[[str], list[str]]) -> list[Rung]:
    """Which rungs are published, and why. rungs: the canonical first; faults: by kind, what forbids a form in any case.

    Raises ParityFailed where the rewritten form is not the canonical one to the exact budget.
    """
    decided: list[Rung] = []
    best = rungs[0]
    for rung in rungs:
        if rung.kind == CANONICAL:
            decided.append(replace(rung, published=True, reason="the model itself"))
            continue
        against = _slow(rung, best, budget)
        if rung.kind == EXACT:
            if rung.agreement is None or not rung.agreement.exact:
                raise ParityFailed(f"{rung.file}: {rung.agreement}")
        else:
            against += _inexact(rung, budget)
        against += faults(rung.kind)
        if against:
            decided.append(replace(rung, published=False, reason="; ".join(against)))
        else:
            gain = (best.milliseconds or 0) / (rung.milliseconds or 1)
            decided.append(replace(rung, published=True, reason=f"{gain:.2f} × faster than {best.kind}"))
            best = decided[-1]
    return decided


def table(rungs: Sequence[Rung]) -> str:
    """The ladder in Markdown."""
    lines = [
        "| form | ms a face | MB | cosine least | mean | 1st percentile | largest difference | FNMR difference | "
        "in the bundle |",
        "|" + " --- |" * 9,
    ]
    for of in rungs:
        near, change = of.agreement, of.fnmr_difference
        cells = [
            of.kind,
            f"{of.milliseconds:.2f}" if of.milliseconds else "–",
            f"{of.megabytes:.2f}" if of.megabytes else "–",
            *(
                [f"{near.cosine_least:.6f}", f"{near.cosine_mean:.6f}", f"{near.cosine_p1:.6f}"]
                if near
                else ["–"] * 3
            ),
            f"{near.difference_most:.1g}" if near else "–",
            f"{change.value:+.3%} ({change.low:+.3%} to {change.high:+.3%})" if change else "–",
            ("yes: " if of.published else "no: ") + of.reason,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _forms(canonical: Path, faces: Faces, budget: Budget) -> tuple[dict[str, Path], list[Rung]]:
    """Files by kind, and a rung for each form that this graph cannot have. The lossy ones start from the rewritten."""
    forms: dict[str, Path] = {}
    missing: list[Rung] = []
    source = canonical
    steps: tuple[tuple[str, Callable[[Path, Path], object]], ...] = (
        (EXACT, rewrite_prelu),
        ("fp16", to_half),
        (
            "int8",
            lambda source, target: to_int8(
                source, target, crops_to_calibrate(faces, budget.int8_pictures), budget.int8_exclude
            ),
        ),
    )
    for kind, make in steps:
        target = canonical.with_name(f"{canonical.stem}.{kind}.onnx")
        try:
            make(source, target)
        except (NothingToRewrite, NotForHalf) as error:
            missing.append(Rung(kind, target.name, False, str(error)))
            continue
        forms[kind] = target
        if kind == EXACT:
            source = target
    return forms, missing


def _measured(
    graphs: Mapping[str, ServedGraph],
    golden: Mapping[str, np.ndarray],
    faces: Faces,
    budget: Budget,
    cache: Path,
) -> list[Rung]:
    """A rung, not decided yet, for each graph; compared with the canonical one on `faces` and the golden crops."""
    one = golden_crops()[-1:]
    pace = milliseconds({kind: partial(graph.run, one) for kind, graph in graphs.items()})
    answers = {
        kind: embed_once(graph, faces.crops(), cache, f"{kind}, validation") for kind, graph in graphs.items()
    }
    differences = _differences(answers, faces, budget.fmr)
    every = {kind: np.concatenate([golden[kind], answers[kind]]) for kind in graphs}
    return [
        Rung(
            kind,
            graph.path.name,
            published=False,
            reason="",
            agreement=agreement(every[CANONICAL], every[kind]),
            milliseconds=pace[kind],
            megabytes=round(graph.path.stat().st_size / 1e6, 2),
            fnmr_difference=differences.get(kind),
        )
        for kind, graph in graphs.items()
    ]


def _differences(answers: Mapping[str, np.ndarray], faces: Faces, fmr: float) -> dict[str, Interval]:
    """Of each sound form to the canonical one, by kind; empty where the faces do not carry `fmr`."""
    sound = [kind for kind, of in answers.items() if kind != CANONICAL and np.isfinite(of).all()]
    try:
        found = fnmr_differences(
            [answers[kind] for kind in sound], answers[CANONICAL], faces.identity, faces.family, fmr
        )
    except TooFewImpostors:
        return {}
    return dict(zip(sound, found, strict=True))


def _slow(rung: Rung, best: Rung, budget: Budget) -> list[str]:
    ours, theirs = rung.milliseconds or np.inf, best.milliseconds or np.inf
    if ours * budget.faster_least <= theirs:
        return []
    return [
        f"not {budget.faster_least:g} × faster than {best.kind}: {ours:.2f} ms a face against {theirs:.2f}"
    ]


def _inexact(rung: Rung, budget: Budget) -> list[str]:
    reasons = []
    if rung.agreement is None or not np.isfinite(rung.agreement.difference_most):
        return ["its answers are not finite numbers"]
    if not rung.agreement.cosine_p1 >= budget.cosine_p1_least:
        reasons.append(
            f"cosine {rung.agreement.cosine_p1:.4f} at the 1st percentile, least {budget.cosine_p1_least:g}"
        )
    if rung.fnmr_difference is None:
        reasons.append(f"the faces do not carry FMR {budget.fmr:g}, so its cost in FNMR is not known")
    elif not rung.fnmr_difference.high <= budget.fnmr_most:
        reasons.append(
            f"FNMR at FMR {budget.fmr:g} may rise by {rung.fnmr_difference.high:.3%} (upper bound), most "
            f"{budget.fnmr_most:.3%}"
        )
    return reasons


def _faults(graph: ServedGraph, golden: np.ndarray, sentinel: Sentinel) -> list[str]:
    try:
        check_batches(graph, golden)
        check_sentinel(sentinel, lambda crops: graph.run(crops)[0])
    except (ParityFailed, WrongAnswer) as error:
        return [str(error)]
    return []
