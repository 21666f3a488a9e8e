"""One embedder run, read downwards: data → teacher → student → steps → validation → checkpoint.

    python -m training.embedder.train --config training/configs/embedder.toml --run runs/embedder/default
    torchrun --nproc-per-node 8 -m -- training.embedder.train …

(Without the two dashes torchrun takes `--run` for an option of its own.) Stopped at any moment (Ctrl-C ends with a
checkpoint), the same command goes on from there, on any number of processes.
"""

from __future__ import annotations

import sys

from training.loop.stop import Stop, in_one_line

if __name__ == "__main__":
    sys.excepthook = in_one_line  # before torch, which takes seconds to import

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.config import BadConfig
from training.data.identities import BadData, Faces
from training.embedder.backbones.cost import macs
from training.embedder.changes import changes
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import ReferenceEmbedder, Teacher, normalise, teacher_targets
from training.embedder.hints import Hints, Ways
from training.embedder.objective import Batch, Objective, batch_of
from training.embedder.records import face_record, latest_last, teacher_record
from training.embedder.remarks import remarks
from training.embedder.sampling import sampler_of
from training.embedder.student import Student, build
from training.embedder.validation import GATED, validate
from training.evaluation.verification import NotUnitVectors
from training.loop import checkpoint
from training.loop.accumulation import Accumulation
from training.loop.agreement import alike, anywhere, by_the_first
from training.loop.averaging import follow
from training.loop.diagnosis import Diagnosis, spread, target_cosine
from training.loop.distributed import ALONE, World, average, clip_gradients
from training.loop.loader import Prefetch
from training.loop.records import LearntFrom
from training.loop.tracking import Tracker, peak_flops

SEEN = ("spread", "cosine")  # what `observe` measures beside the losses


@dataclass
class Training:
    """Everything that a step needs: the student, which the checkpoints hold, and around it what they do not."""

    config: EmbedderConfig
    student: Student
    objective: Objective
    ways: Ways
    diagnosis: Diagnosis
    world: World


def train(
    config: EmbedderConfig,
    run: Path,
    faces: Faces,
    validation: Faces,
    teacher: Teacher | None = None,
    world: World = ALONE,
    begin: Path | None = None,
) -> Path:
    """Train to the end of `config.epochs`, resuming `run`. Returns the path of the last checkpoint.

    begin: another run's checkpoint, whose weights a new run starts with (see `Student.begin_from`).

    A checkpoint of step n holds all that n steps did, validation included: what was stopped within it is done again.
    Raises BadData, BadConfig, UnreadableCheckpoint, Diverged, LoaderFailed, and OSError for a full disk; whichever it
    is, the last checkpoint stays. On other ranks than the first, FirstFailed for what is wrong there. Ctrl-C is
    KeyboardInterrupt, after a checkpoint.
    """
    sampler = sampler_of(config, faces, world)
    total = int(config.epochs * sampler.batches_per_epoch)
    if not total:
        raise BadConfig(
            f"epochs = {config.epochs:g} of {sampler.batches_per_epoch} steps is less than a step: train longer"
        )
    config.schedule.factor(0, total)  # a run too short for its schedule is refused here
    training = prepare(config, run, faces, teacher, world)
    student, last = training.student, run / "last.pt"
    if world.first:
        checkpoint.clear_partials(run)
    people = face_record(faces)
    learnt_from: LearntFrom = (people, *([teacher_record(teacher)] if teacher and config.distilled else []))
    said = [str(of) for of in learnt_from]
    if last.exists():
        said += changes(last, student.restore(last), people, config, world)
    elif begin:
        said.append(student.begin_from(begin, people))
    if not alike(student.step, world):
        raise BadConfig(
            f"the processes see different checkpoints: {run} has to be a folder that all of them share"
        )
    student.records = latest_last(student.records, learnt_from)
    best = checkpoint.Best(run / "best.pt", GATED)

    def make(step: int) -> Batch:
        return batch_of(faces, sampler.batch(step), step, world.rank, config)

    with (
        Stop() as stop,
        tracked(training, run, total) as tracker,
        Prefetch(make, student.step, stop=total, workers=config.workers) as batches,
    ):
        for line in (*said, *remarks(config, student, faces, validation, total, world)):
            tracker.say(line)
        student.model.train()
        stopping = False
        while student.step < total and not stopping:
            with tracker.waiting():
                batch = next(batches)
            rate = config.optimiser.learning_rate * config.schedule.factor(student.step, total)
            losses, advice = train_step(training, batch, rate)
            tracker.step(len(batch) * world.size, losses, rate)
            for line in advice:
                tracker.say(line)
            with tracker.aside():
                at_end = student.step == total
                if at_end or student.step % config.evaluate_steps == 0:
                    evaluate(training, validation, best, tracker)
                stopping = anywhere(stop.requested, world)
                if at_end or stopping or student.step % config.checkpoint_steps == 0:
                    save(training, last)
    if stopping:
        raise KeyboardInterrupt  # another process was asked to stop, and so all do
    return last


def train_step(training: Training, batch: Batch, rate: float) -> tuple[dict[str, float], list[str]]:
    """One step. Returns the losses, their gradient's length and the mean cosine to the own centre, over all ranks, and
    advice. Raises Diverged before a weight has moved."""
    config, student, world = training.config, training.student, training.world
    for optimiser in student.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
    forced = student.step < config.distillation.forced_steps
    window, sums = Accumulation(len(batch), student.precision), dict[str, Tensor]()
    for part in batch.parts(config.micro_batch or len(batch), world):
        picture = normalise(torch.from_numpy(part.crops).to(world.device))
        picture = picture.contiguous(memory_format=torch.channels_last)
        with student.precision.autocast():
            hint, embedding = training.ways(picture, part.crops, student.step)
        loss, losses = training.objective(student, embedding, part, hint, forced=forced)
        window.add(loss, len(part))
        for name, value in {"loss": loss, **losses, **observe(training, embedding, part)}.items():
            sums[name] = sums.get(name, 0) + value.detach() * (len(part) / len(batch))
    average(student.model, world)
    moving = student.moving
    window.close(*moving)
    norm = clip_gradients(student.model.parameters(), (), config.max_gradient_norm, world)
    of_head = clip_gradients((), student.head.parameters(), math.inf, world)  # measured, not shortened
    means = dict(zip(sums, world.mean(torch.stack(list(sums.values()))).tolist(), strict=True))
    advice = training.diagnosis.check(
        student.step,
        {name: value for name, value in means.items() if name not in SEEN},
        gradient=torch.hypot(norm, of_head),
        precision=student.precision,
        target_cosine=means.get("cosine"),
        spread=means["spread"],
        modules={"model": student.model, "head": student.head},
        pictures=picture,
    )
    window.step(*moving, norm=torch.hypot(norm, of_head))
    follow(student.average, student.model, student.step, config.ema)
    student.step += 1
    return {**means, "gradient": float(norm)}, advice


@torch.no_grad()
def observe(training: Training, embedding: Tensor, batch: Batch) -> dict[str, Tensor]:
    """What tells how the training goes beside its losses: `spread`, and `cosine`, the mean to the own class centre,
    where one process has all the centres. Both are explained in training.loop.diagnosis."""
    config, student = training.config, training.student
    measured = {"spread": spread(embedding)}
    waiting = not config.head.weight or student.step < config.distillation.forced_steps
    if not waiting and not student.partial and batch.clean.any():
        own = target_cosine(embedding[batch.clean], student.head.weight, batch.label[batch.clean])
        measured["cosine"] = batch.density * own
    return measured


def evaluate(training: Training, validation: Faces, best: checkpoint.Best, tracker: Tracker) -> None:
    """Measure the average on validation, by the first rank; the best so far is kept beside the last."""
    state = training.student.state(training.config)  # every rank has its part in it

    def measure() -> None:
        try:
            results = validate(training.student.average, validation)
        except NotUnitVectors as error:  # an average of few steps may overflow: not yet a collapse
            tracker.say(f"no validation: {error}")
            return
        if results:
            tracker.validation(results)
        if GATED in results:
            best.offer(results, state)
        else:
            tracker.say(f"validation has too few impostor pairs for {GATED}: no best checkpoint is kept")

    by_the_first(measure, training.world)


def save(training: Training, last: Path) -> None:
    state = training.student.state(training.config)
    by_the_first(lambda: checkpoint.save(last, state), training.world)


def prepare(
    config: EmbedderConfig, run: Path, faces: Faces, teacher: Teacher | None, world: World
) -> Training:
    """The student at its first step, the teacher's targets, and the losses between them."""
    if faces.identities < 2:
        raise BadData(
            "training needs at least two identities: a margin between one person and nobody is undefined"
        )
    if int(faces.label.min()) < 0:
        raise BadData(f"a label is {faces.label.min()}: number the identities from 0")
    if config.distilled and teacher is None:
        raise BadConfig(
            "the configuration distils, but there is no teacher: give one, or set its weights to 0"
        )
    torch.set_num_threads(config.threads)
    targets = None
    if teacher and config.distilled:
        if config.distillation.weight and teacher.dimension != config.dimension:
            raise BadConfig(
                f"the teacher's embeddings have {teacher.dimension} numbers, the student's {config.dimension}: "
                "make them equal, or distil relations alone (distillation.weight = 0)"
            )
        targets = teacher_targets(teacher, faces.crops(), run / "cache", world)
    student = build(config, faces, targets, world)
    ways = Ways(student.model, _hints(config, faces, teacher, student), config)
    diagnosis = Diagnosis(config.metric.triplet_margin if config.metric.triplet else None)
    return Training(config, student, Objective(config, targets, world), ways, diagnosis, world)


def _hints(config: EmbedderConfig, faces: Faces, teacher: Teacher | None, student: Student) -> Hints | None:
    if not config.distillation.hint_steps:
        return None
    if not isinstance(teacher, ReferenceEmbedder):
        raise BadConfig(
            "hint_steps: only the reference embedder's layers are known; set it to 0 for another teacher"
        )
    plain = np.asarray(faces.crops()[:64])
    return Hints(teacher.path, plain, config.threads, student.precision.dtype)


def tracked(training: Training, run: Path, total: int) -> Tracker:
    config, student, world = training.config, training.student, training.world
    return Tracker(
        run,
        total=total,
        initial=student.step,
        unit="img",
        flops_per_sample=6 * macs(student.model),
        config=config.model_dump(mode="json"),
        peak=peak_flops(world.device, student.precision.dtype) * world.size if world.first else None,
        quiet=not world.first,
    )


if __name__ == "__main__":
    from training.embedder.command import main

    sys.exit(main())
