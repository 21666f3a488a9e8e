"""The parity ladder: torch ↔ ONNX ↔ PReLU rewritten ↔ float16 ↔ int8, each rung with what it costs and what it brings.

The first two steps must be exact. Half precision and int8 are served only where they were measured faster than what
would be served otherwise and within the budget; else the ladder says why not. All of it is of ONNX Runtime on this
machine's CPU. What differs between the two models stands in `embedder_forms` and `detector_forms`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import Field

from training.config import RunConfig
from training.evaluation.bootstrap import Interval
from training.export.half import NotForHalf, to_half
from training.export.pace import milliseconds
from training.export.parity import Agreement, FoundAgreement, ParityFailed
from training.export.prelu import NothingToRewrite, rewrite_prelu
from training.export.quantize import to_int8
from training.export.sessions import ServedGraph

CANONICAL = "onnx"
EXACT = "prelu-rewrite"
TENTH = 10  # every tenth picture goes through the trained model too, which is slow


class Told(NamedTuple):
    """In what a model's forms are told: milliseconds for each `unit`, and the difference of a `rate`."""

    unit: str
    rate: str


FACES = Told("face", "FNMR")
PICTURES = Told("picture", "recall")


@dataclass(frozen=True)
class Rung:
    """One form of a model. `difference` and `agreement` are to the canonical graph; the canonical graph's own
    agreement is to the trained model. `reason` says why it is, or is not, in the bundle."""

    kind: str
    file: str
    published: bool
    reason: str
    agreement: Agreement | FoundAgreement | None = None  # None where the form could not be made
    milliseconds: float | None = None
    megabytes: float | None = None
    difference: Interval | None = None  # None where what it was measured on does not carry the rate
    told: Told = field(default=FACES, kw_only=True)

    def row(self) -> dict[str, object]:
        """As the manifest and outcome.json keep it; what is no finite number is None."""
        near = self.agreement.row() if self.agreement else {}
        return {
            "file": self.file,
            "published": self.published,
            "reason": self.reason,
            f"milliseconds_a_{self.told.unit}": self.milliseconds,
            "megabytes": self.megabytes,
            f"{self.told.rate.lower()}_difference": vars(self.difference) if self.difference else None,
            **{name: value if np.isfinite(value) else None for name, value in near.items()},
        }

    def cost(self, before: float) -> dict[str, float]:
        """As a variant of the manifest states it. before: the canonical graph's milliseconds."""
        told, time = {**self.agreement.row()} if self.agreement else {}, f"milliseconds_a_{self.told.unit}"
        if self.milliseconds is not None:
            told |= {time: self.milliseconds, f"{time}_before": before}
        if self.difference:
            rate = self.told.rate.lower()
            told |= {f"{rate}_difference_{name}": of for name, of in vars(self.difference).items()}
        return told


class Budget(RunConfig):
    """What any variant must bring to be served; what it may cost is the model's own."""

    faster_least: float = Field(1.05, ge=1)  # times faster than what would be served otherwise
    int8_pictures: int = Field(64, ge=4)  # to calibrate on
    int8_exclude: tuple[str, ...] = ()  # layers that stay in float (see `training.export.sensitivity`)

    def against(self, rung: Rung) -> list[str]:
        """What a lossy form costs beyond the budget, in words."""
        raise NotImplementedError


class Forms(Protocol):
    """What the ladder has to know of a model."""

    @property
    def canonical(self) -> ServedGraph: ...

    @property
    def told(self) -> Told: ...

    def against_model(self) -> Agreement | FoundAgreement:
        """The canonical graph to the trained model. Raises ParityFailed."""

    def pictures(self, count: int) -> np.ndarray:
        """uint8 [≤ count, h, w, 3] RGB to calibrate int8 on."""

    def one(self) -> np.ndarray:
        """uint8 [1, h, w, 3] RGB, to be timed with."""

    def compared(
        self, graphs: Mapping[str, ServedGraph]
    ) -> Mapping[str, tuple[Agreement | FoundAgreement, Interval | None]]:
        """Each graph to that of CANONICAL: agreement, and difference of the rate where it is carried."""

    def faults(self, graph: ServedGraph) -> list[str]:
        """What forbids a form in any case, in words."""


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


def climb(forms: Forms, budget: Budget) -> Ladder:
    """Make every form beside the canonical graph's file, measure all and decide; raises ParityFailed where an exact one
    is not."""
    canonical = forms.canonical.path
    agreed = forms.against_model()
    files, missing = _made(forms, budget)
    # One thread each, whatever serves the measurements: processor time is compared.
    graphs = {kind: ServedGraph(path) for kind, path in {CANONICAL: canonical, **files}.items()}
    one, compared = forms.one(), forms.compared(graphs)
    pace = milliseconds({kind: partial(graph.run, one) for kind, graph in graphs.items()})
    rungs = [
        Rung(
            kind,
            graph.path.name,
            published=False,
            reason="",
            agreement=agreed if kind == CANONICAL else compared[kind][0],
            milliseconds=pace[kind],
            megabytes=round(graph.path.stat().st_size / 1e6, 2),
            difference=None if kind == CANONICAL else compared[kind][1],
            told=forms.told,
        )
        for kind, graph in graphs.items()
    ]
    decided = decide(rungs, budget, lambda kind: forms.faults(graphs[kind]))
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
        elif rung.agreement is None or not rung.agreement.sound:
            against.append("its answers are not finite numbers")
        else:
            against += budget.against(rung)
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
    told = rungs[0].told
    near = list(rungs[0].agreement.cells()) if rungs[0].agreement else []
    head = ["form", f"ms a {told.unit}", "MB", *near, f"{told.rate} difference", "in the bundle"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for of in rungs:
        told_near, change = of.agreement.cells() if of.agreement else {}, of.difference
        cells = [
            of.kind,
            f"{of.milliseconds:.2f}" if of.milliseconds else "–",
            f"{of.megabytes:.2f}" if of.megabytes else "–",
            *(told_near.get(name, "–") for name in near),
            f"{change.value:+.3%} ({change.low:+.3%} to {change.high:+.3%})" if change else "–",
            ("yes: " if of.published else "no: ") + of.reason,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _made(forms: Forms, budget: Budget) -> tuple[dict[str, Path], list[Rung]]:
    """Files by kind, and a rung for each form that this graph cannot have. The lossy ones start from the rewritten."""
    files: dict[str, Path] = {}
    missing: list[Rung] = []
    canonical = source = forms.canonical.path
    steps: tuple[tuple[str, Callable[[Path, Path], object]], ...] = (
        (EXACT, rewrite_prelu),
        ("fp16", to_half),
        (
            "int8",
            lambda source, target: to_int8(
                source, target, forms.pictures(budget.int8_pictures), budget.int8_exclude
            ),
        ),
    )
    for kind, make in steps:
        target = canonical.with_name(f"{canonical.stem}.{kind}.onnx")
        try:
            make(source, target)
        except (NothingToRewrite, NotForHalf) as error:
            missing.append(Rung(kind, target.name, False, str(error), told=forms.told))
            continue
        files[kind] = target
        if kind == EXACT:
            source = target
    return files, missing


def _slow(rung: Rung, best: Rung, budget: Budget) -> list[str]:
    ours, theirs = rung.milliseconds or np.inf, best.milliseconds or np.inf
    if ours * budget.faster_least <= theirs:
        return []
    return [
        f"not {budget.faster_least:g} × faster than {best.kind}: {ours:.2f} ms a {rung.told.unit} against {theirs:.2f}"
    ]
