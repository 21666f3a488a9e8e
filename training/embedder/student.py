"""What a checkpoint holds: the model, its slow average, the heads, the optimisers and the place in the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from training.data.identities import Faces
from training.embedder.backbones import backbone
from training.embedder.config import EmbedderConfig
from training.embedder.margins import Head, margin
from training.embedder.metric_losses import CentreLoss
from training.embedder.partial_fc import PartialFC, RowAdamW, RowSGD
from training.embedder.records import latest_set, same_people
from training.loop import checkpoint
from training.loop.distributed import ALONE, World, broadcast
from training.loop.lineage import LINEAGE, Lineage, begun_from, in_words, lineage_of
from training.loop.precision import Precision
from training.loop.records import LEARNT_FROM, FaceRecord, LearntFrom, learnt_from, united

PROCESSES = "processes"  # in a checkpoint: how many made it


@dataclass(frozen=True)
class Before:
    """What a run that goes on was made with up to its checkpoint. people: the set that its class centres are of;
    processes: how many. None where it is not recorded."""

    config: Mapping[str, Any]
    people: FaceRecord | None
    processes: int | None


@dataclass
class Student:
    """One run's state. `rows` steps the class centres where they are sampled or shared out, else `optimiser` does."""

    model: nn.Module
    average: nn.Module
    head: Head | PartialFC
    centres: CentreLoss
    optimiser: Optimizer
    rows: Optimizer | None
    precision: Precision
    step: int = 0
    lineage: Lineage = ()
    records: LearntFrom = ()

    @property
    def optimisers(self) -> tuple[Optimizer, ...]:
        return (self.optimiser, self.rows) if self.rows else (self.optimiser,)

    @property
    def moving(self) -> tuple[Optimizer, ...]:
        """The optimisers that have been given a gradient: fp16's scale asks for one."""
        return tuple(
            of
            for of in self.optimisers
            if any(weight.grad is not None for group in of.param_groups for weight in group["params"])
        )

    @property
    def partial(self) -> PartialFC | None:
        return self.head if isinstance(self.head, PartialFC) else None

    def state(self, config: EmbedderConfig) -> dict[str, Any]:
        """Tensors, numbers and strings alone. Every rank has to call it; the first one's is whole."""
        head = self.partial.logical_state(self.rows) if self.partial else self.head.state_dict()
        return {
            "kind": "embedder",
            "config": config.model_dump(mode="json"),
            "step": self.step,
            PROCESSES: self.partial.world.size if self.partial else 1,
            LINEAGE: [of.model_dump() for of in self.lineage],
            LEARNT_FROM: [of.model_dump(mode="json") for of in self.records],
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "head": head,
            "centres": self.centres.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "precision": self.precision.state_dict(),
            "rng": checkpoint.rng_state(),
        }

    def restore(self, source: Path) -> Before:
        """Go on from `source`, made by any number of processes. Hyperparameters stay those of this run.

        Raises UnreadableCheckpoint for a damaged file and for one of another model, head or optimiser.
        """
        state = checkpoint.load(source)
        parts: dict[str, checkpoint.Stateful] = {"model": self.model, "average": self.average}
        parts |= {"centres": self.centres, "precision": self.precision}
        checkpoint.restore(state, source, "embedder", parts)
        if missing := {"head", "optimiser", "rng", "step"} - state.keys():
            raise checkpoint.UnreadableCheckpoint(
                f"{source} holds no {', '.join(sorted(missing))}: it was made by another version; use another --run"
            )
        _same_kind(state["optimiser"], self.optimiser, source)
        if self.partial:
            spread_out(state)
            self.partial.load_logical_state(state["head"], self.rows)
        else:
            gather_up(state, source)
            checkpoint.restore(state, source, "embedder", {"head": self.head})
        asked = [{**group, "params": None} for group in self.optimiser.param_groups]
        checkpoint.restore(state, source, "embedder", {"optimiser": self.optimiser})
        for group, values in zip(self.optimiser.param_groups, asked, strict=True):
            group.update(values, params=group["params"])
        checkpoint.restore_rng(state["rng"])
        self.lineage, self.records = lineage_of(state, source), learnt_from(state, source)
        self.step = int(state["step"])
        return Before(state.get("config", {}), latest_set(self.records), state.get(PROCESSES))

    def begin_from(self, source: Path, people: FaceRecord) -> str:
        """Take another run's averaged weights wherever name and shape agree; still step 0. Its class centres too, where
        they are of the same `people` as this run's: a row of the head is a person's.

        For finer training and for a changed architecture. `lineage` and `records` tell it from then on. Returns what
        was taken, in words. Raises UnreadableCheckpoint where less than half agrees.
        """
        if not source.is_file():
            raise checkpoint.UnreadableCheckpoint(f"{source}: no such checkpoint; begin from another run")
        state = checkpoint.load(source, remedy="begin from another run")
        if state.get("kind") != "embedder" or not {"config", "step", "average", "head"} <= state.keys():
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is not an embedder's checkpoint of this version: begin from another run"
            )
        lineage, own = begun_from(state, source), self.model.state_dict()
        records = united(learnt_from(state, source), self.records)
        taken = {
            name: of for name, of in state["average"].items() if name in own and own[name].shape == of.shape
        }
        if 2 * len(taken) < len(own):
            raise checkpoint.UnreadableCheckpoint(
                f"{source} shares {len(taken)} of {len(own)} tensors with this backbone: begin from another run"
            )
        for model in (self.model, self.average):
            model.load_state_dict({**own, **taken})
        known = latest_set(learnt_from(state, source))
        whose = self._take_centres(state["head"]["weight"], known, people)
        self.lineage, self.records = lineage, records
        return f"begins with {len(taken)} of {len(own)} tensors of {source}, {whose}: {in_words(lineage)}"

    def _take_centres(self, centres: Tensor, known: FaceRecord | None, people: FaceRecord) -> str:
        """centres: [identities, d], those of the set `known`. Returns what became of them, in words."""
        if known is None:
            return "not with its class centres, for it does not say whose they are"
        if not same_people(known, people):
            return f"not with its class centres, which are of {known.name} as it was then"
        if centres.shape[1:] != self.head.weight.shape[1:]:
            return "not with its class centres, which have another dimension"
        rows = self.partial.classes if self.partial else range(len(self.head.weight))
        with torch.no_grad():
            self.head.weight.copy_(centres[rows.start : rows.stop])
        return "and with its class centres"


def _same_kind(state: dict[str, Any], optimiser: Optimizer, source: Path) -> None:
    of = ["adamw" if "betas" in group else "sgd" for group in (*state["param_groups"], optimiser.defaults)]
    if len(set(of)) > 1:
        raise checkpoint.UnreadableCheckpoint(
            f"{source} was made with {of[0]}, this run has {of[-1]}: set optimiser.name, or use another --run"
        )


# the optimiser's memory of the class centres: what PartialFC's row optimisers call it, and what torch's do
_MOMENTS = {"mean": "exp_avg", "square": "exp_avg_sq", "momentum": "momentum_buffer"}


def spread_out(state: dict[str, Any]) -> None:
    """Give a checkpoint whose head is a Head, as one process has it, the form of a PartialFC's; in place.

    The class centres are the last of the decaying parameters (see `build`); each row has then made as many steps.
    """
    if "moments" in state["head"]:
        return
    head, optimiser = dict(state["head"]), state["optimiser"]
    weight = head.pop("weight")
    kept = optimiser["state"].pop(optimiser["param_groups"][0]["params"].pop(), {})
    moments = {ours: kept[theirs] for ours, theirs in _MOMENTS.items() if theirs in kept}
    if "step" in kept:
        moments["steps"] = torch.full((len(weight),), float(kept["step"]))
    margin = {name.removeprefix("margin."): buffer for name, buffer in head.items()}
    state["head"] = {"weight": weight, "moments": moments, "draws": 0, "margin": margin}


def gather_up(state: dict[str, Any], source: Path) -> None:
    """The way back, for a run on one process; in place.

    Raises UnreadableCheckpoint where classes were sampled: each then has made steps of its own, which the optimiser of
    a Head cannot count.
    """
    if "moments" not in state["head"]:
        return
    head, optimiser = state["head"], state["optimiser"]
    moments = dict(head["moments"])
    kept = {}
    if "steps" in moments:
        steps = moments.pop("steps")
        if (steps != steps[0]).any():
            raise checkpoint.UnreadableCheckpoint(
                f"{source} was made with sampled classes: set a head.sample_rate below 1, or use another --run"
            )
        kept["step"] = steps[0].clone()
    kept |= {_MOMENTS[name]: moment for name, moment in moments.items()}
    decaying = optimiser["param_groups"][0]["params"]
    place = 1 + max(number for group in optimiser["param_groups"] for number in group["params"])
    decaying.append(place)
    if kept:
        optimiser["state"][place] = kept
    state["head"] = {"weight": head["weight"]} | {
        f"margin.{name}": buffer for name, buffer in head["margin"].items()
    }


def build(
    config: EmbedderConfig, faces: Faces, targets: np.ndarray | None = None, world: World = ALONE
) -> Student:
    """A student at step 0, alike on every rank. Raises BadConfig for what the configuration cannot mean.

    targets: float32 [faces, d], the teacher's unit vectors: the head then starts at their centroids, so that both
    losses pull one way.
    """
    torch.manual_seed(config.seed)
    model = backbone(config.backbone, config.dimension).to(world.device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = backbone(config.backbone, config.dimension).to(world.device)
    broadcast(model, world)
    average.load_state_dict(model.state_dict())
    head = _head(config, faces.identities, world)
    if targets is not None and targets.shape[1] == config.dimension:
        _start_at(head, torch.from_numpy(targets), torch.from_numpy(faces.label))
    centres = CentreLoss(
        faces.identities if config.metric.centre else 1, config.dimension, config.metric.centre_rate
    ).to(world.device)
    partial = isinstance(head, PartialFC)
    modules = [model] if partial else [model, head]
    return Student(
        model,
        average.eval(),
        head,
        centres,
        config.optimiser.of(*modules),
        _row_optimiser(config, head) if partial else None,
        Precision(config.precision, world.device),
    )


def _head(config: EmbedderConfig, identities: int, world: World) -> Head | PartialFC:
    of = margin(config.head.name, **config.head.options)
    if world.size == 1 and config.head.sample_rate == 1:
        return Head(of, config.dimension, identities).to(world.device)
    return PartialFC(of, config.dimension, identities, config.head.sample_rate, world, config.seed)


@torch.no_grad()
def _start_at(head: Head | PartialFC, targets: torch.Tensor, label: torch.Tensor) -> None:
    identities = int(label.max()) + 1
    centroids = torch.zeros(identities, targets.shape[1]).index_add_(0, label, targets)
    rows = head.classes if isinstance(head, PartialFC) else range(identities)
    head.weight.copy_(F.normalize(centroids)[rows.start : rows.stop])


def _row_optimiser(config: EmbedderConfig, head: nn.Module) -> Optimizer:
    asked = config.optimiser
    if asked.name == "adamw":
        return RowAdamW(head.parameters(), asked.learning_rate, weight_decay=asked.weight_decay)
    return RowSGD(head.parameters(), asked.learning_rate, asked.momentum, asked.weight_decay)
