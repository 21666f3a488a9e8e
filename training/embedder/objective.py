"""What a run minimises: the weighted sum of its losses, each reported by name."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from training.data.augment import augment
from training.data.identities import Faces
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import cosine_distance, relational_distance
from training.embedder.metric_losses import TripletSemiHard
from training.embedder.partial_fc import PartialFC
from training.embedder.student import Student
from training.loop.accumulation import micro_batches
from training.loop.distributed import ALONE, World, gather
from training.loop.schedule import ramp


@dataclass(frozen=True)
class Batch:
    """One rank's faces of one step, or of a part of it.

    index: int64 [b]; crops: uint8 [b, 112, 112, 3], augmented; label: int64 [b]; clean: bool [b], false where the label
    is probably wrong. density: of clean faces, here ∕ in the whole step.
    """

    index: np.ndarray
    crops: np.ndarray
    label: Tensor
    clean: Tensor
    density: float = 1.0

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, part: slice) -> Batch:
        return Batch(self.index[part], self.crops[part], self.label[part], self.clean[part])

    def parts(self, most: int, world: World = ALONE) -> list[Batch]:
        """Micro-batches of at most `most` faces.

        A micro-batch counts by its faces (see training.loop.accumulation). A mean over its clean ones, times its
        density, then has the gradient of the mean over all clean faces of the step and of all ranks.
        """
        slices = list(micro_batches(len(self), most))
        if len(slices) == 1:
            return [self]
        parts = [self[part] for part in slices]
        counts = [float(part.clean.sum()) for part in parts]
        clean = world.sum(torch.tensor(counts, dtype=torch.float64, device=world.device)).tolist()
        usual = max(1.0, sum(clean)) / len(self)
        return [replace(part, density=of / len(part) / usual) for part, of in zip(parts, clean, strict=True)]


class Objective:
    """The losses of one run. `targets`: float32 [faces, e], the teacher's unit vectors, or None."""

    def __init__(self, config: EmbedderConfig, targets: np.ndarray | None, world: World = ALONE) -> None:
        self.config, self.world = config, world
        self.targets = torch.from_numpy(targets) if targets is not None else None
        self.triplet = TripletSemiHard(config.metric.triplet_margin) if config.metric.triplet else None

    def __call__(
        self, student: Student, embedding: Tensor, batch: Batch, hint: Tensor | None, *, forced: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(the sum, the parts unweighted). hint: the distance to the teacher's layers; forced: they are all there is
        to the student yet, so that identities wait."""
        config, parts, loss = self.config, {}, embedding.new_zeros((), dtype=torch.float32)
        if hint is not None:
            parts["hints"] = hint
            loss = loss + config.distillation.hint_weight * hint
        if self.targets is not None:
            target = self.targets[torch.from_numpy(batch.index)].to(embedding.device)
            if config.distillation.weight:
                parts["distillation"] = cosine_distance(embedding, target)
                loss = loss + config.distillation.weight * parts["distillation"]
            if config.distillation.relational:
                parts["relations"] = relational_distance(embedding, target)
                loss = loss + config.distillation.relational * parts["relations"]
        if forced:
            return loss, parts
        if config.head.weight:
            student.head.margin.strength = ramp(student.step, config.head.ramp_steps)
            parts[config.head.name] = batch.density * _classify(student, embedding, batch)
            loss = loss + config.head.weight * parts[config.head.name]
        if self.triplet:
            triplets = self.triplet(embedding, batch.label)
            parts["triplet"], parts["active"] = triplets.loss, triplets.active
            loss = loss + config.metric.triplet * triplets.loss
        if config.metric.centre:
            parts["centre"] = batch.density * _gathered(student, embedding, batch, self.world)
            loss = loss + config.metric.centre * parts["centre"]
        return loss, parts


def _classify(student: Student, embedding: Tensor, batch: Batch) -> Tensor:
    """The margin softmax over the faces whose labels are clean."""
    if isinstance(student.head, PartialFC):  # every rank has to bring as many faces
        return student.head(embedding, batch.label, batch.clean)
    return student.head(embedding[batch.clean], batch.label[batch.clean])


def _gathered(student: Student, embedding: Tensor, batch: Batch, world: World) -> Tensor:
    """The centre loss over the clean faces of all ranks, so that the centres move alike on each."""
    clean = gather(batch.clean.to(world.device), world)
    label = gather(batch.label.to(world.device), world)[clean]
    loss = student.centres(gather(embedding, world)[clean], label)
    # every rank computes the whole of it: see `gather` for whose gradient is whose
    return loss.detach() + (loss - loss.detach()) / world.size


def believed(faces: Faces, config: EmbedderConfig) -> np.ndarray:
    """bool [faces]: whose label is probably right."""
    return faces.similarity >= config.head.least_similarity


def batch_of(faces: Faces, index: np.ndarray, step: int, rank: int, config: EmbedderConfig) -> Batch:
    """The faces at `index`, augmented by a generator of the step and rank alone, so that a resume is exact."""
    rng = np.random.default_rng((config.seed, 1, step, rank))
    crops = np.stack([augment(faces.pictures[i], rng, config.augmentation) for i in index])
    clean = believed(faces, config)[index]
    return Batch(index, crops, torch.from_numpy(faces.label[index]), torch.from_numpy(clean))
