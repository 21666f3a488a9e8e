"""One detector run, read downwards: photographs → student → steps → selection → checkpoint.

    python -m training.detector.train --config training/configs/detector.toml --run runs/detector/default
    torchrun --nproc-per-node 8 -m -- training.detector.train …

(Without the two dashes torchrun takes `--run` for an option of its own.) Stopped at any moment (Ctrl-C ends with a
checkpoint), the same command goes on from there, on any number of processes. `--epochs` shortens or lengthens a run:
the decay is the last share of it, so a run that has passed that share's start decays at once.
"""

from __future__ import annotations

import sys

from training.loop.stop import Stop, in_one_line

if __name__ == "__main__":
    sys.excepthook = in_one_line  # before torch, which takes seconds to import

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from training.config import BadConfig
from training.data.crops import Unread
from training.data.photographs import Photograph
from training.data.sampling import Shuffled
from training.detector.config import DetectorConfig
from training.detector.dataset import Batch, Photographs, batch_of
from training.detector.objective import Objective, counts_of
from training.detector.remarks import remarks, switched_off
from training.detector.retinanet import normalise
from training.detector.selection import GATED, select, show
from training.detector.student import Student, build
from training.detector.student import model_of as model_of
from training.detector.teacher import Teacher, Ways, refuse_other_anchors
from training.loop import checkpoint
from training.loop.accumulation import Accumulation, micro_batches
from training.loop.agreement import alike, anywhere, by_the_first
from training.loop.averaging import follow
from training.loop.diagnosis import Diagnosis
from training.loop.distributed import ALONE, World, average, clip_gradients
from training.loop.loader import Prefetch
from training.loop.records import united
from training.loop.tracking import Tracker, peak_flops


@dataclass
class Training:
    """Everything that a step needs: the student, which the checkpoints hold, and around it what they do not."""

    config: DetectorConfig
    student: Student
    objective: Objective
    ways: Ways
    teacher: Teacher | None
    diagnosis: Diagnosis
    world: World


def train(
    config: DetectorConfig,
    run: Path,
    photographs: Photographs,
    selection: Sequence[Photograph],
    teacher: Teacher | None = None,
    world: World = ALONE,
    begin: Path | None = None,
) -> Path:
    """Train to the end of `config.epochs`, resuming `run`. Returns the path of the last checkpoint.

    teacher: without one the configuration's part [teacher] is switched off aloud. begin: another run's checkpoint,
    whose weights a new run starts with (see `Student.begin_from`).

    A checkpoint of step n holds all that n steps did, selection included: what was stopped within it is done again.
    Raises BadData, BadConfig, UnreadableCheckpoint, Diverged, LoaderFailed, and OSError for a full disk; whichever it
    is, the last checkpoint stays. On other ranks than the first, FirstFailed for what is wrong there. Ctrl-C is
    KeyboardInterrupt, after a checkpoint.
    """
    said = [] if teacher else switched_off(config)
    config = config if teacher else config.alone()
    sampler = Shuffled(len(photographs), config.batch, config.seed, world.rank, world.size)
    total = int(config.epochs * sampler.batches_per_epoch)
    if not total:
        raise BadConfig(
            f"epochs = {config.epochs:g} of {sampler.batches_per_epoch} steps is less than a step: train longer"
        )
    evaluate_steps = max(1, int(config.evaluate_epochs * sampler.batches_per_epoch))
    config.schedule.factor(0, total)  # a run too short for its schedule is refused here
    training = prepare(config, first_crops(photographs, config) if teacher else None, teacher, world)
    student, last = training.student, run / "last.pt"
    if world.first:
        checkpoint.clear_partials(run)
    if last.is_file():
        student.restore(last, config)
    elif begin:
        said.append(student.begin_from(begin, config))
    if not alike(student.step, world):
        raise BadConfig(
            f"the processes see different checkpoints: {run} has to be a folder that all of them share"
        )
    student.records = united(student.records, photographs.records)
    best, unread = checkpoint.Best(run / "best.pt", GATED, lower=False), Unread(len(photographs))

    def make(step: int) -> Batch:
        return batch_of(photographs, sampler.batch(step), step, world.rank, config)

    with (
        Stop() as stop,
        tracked(training, run, total) as tracker,
        Prefetch(make, student.step, stop=total, workers=config.workers) as batches,
    ):
        for line in (*said, *remarks(config, student, photographs, selection, total, world)):
            tracker.say(line)
        student.model.train()
        stopping = False
        while student.step < total and not stopping:
            with tracker.waiting():
                batch = next(batches)
            unread.note(batch.unread)
            rate = config.optimiser.learning_rate * config.schedule.factor(student.step, total)
            losses, advice = train_step(training, batch, rate)
            tracker.step(len(batch) * world.size, losses, rate)
            for line in advice:
                tracker.say(line)
            with tracker.aside():
                at_end = student.step == total
                if selection and (at_end or student.step % evaluate_steps == 0):
                    evaluate(training, selection, best, tracker, run)
                stopping = anywhere(stop.requested, world)
                if at_end or stopping or student.step % config.checkpoint_steps == 0:
                    save(training, last)
    if stopping:
        raise KeyboardInterrupt  # another process was asked to stop, and so all do
    return last


def train_step(training: Training, batch: Batch, rate: float) -> tuple[dict[str, float], list[str]]:
    """One step. Returns the losses, their gradient's length and the number of unread pictures, means over all ranks,
    and advice. Raises Diverged before a weight has moved."""
    config, student, world = training.config, training.student, training.world
    for group in student.optimiser.param_groups:
        group["lr"] = rate
    answers = training.teacher.ask(batch.asked) if training.teacher else None
    counts = counts_of(batch, answers, world)
    window, sums = Accumulation(len(batch), student.precision), dict[str, Tensor]()
    for part in micro_batches(len(batch), config.micro_batch or len(batch)):
        some, taught = batch[part].to(world.device), answers[part].to(world.device) if answers else None
        picture = normalise(some.pixels).contiguous(memory_format=torch.channels_last)
        share = len(some) / len(batch)
        with student.precision.autocast():
            hint, outputs = training.ways(picture, taught, student.step)
        loss, parts = training.objective(outputs, some, taught, hint, counts, share)
        window.add(loss, len(some))
        for name, value in {"loss": loss, **parts}.items():
            sums[name] = sums.get(name, 0) + value.detach() * share
    average(student.model, world)
    window.close(student.optimiser)
    norm = clip_gradients(student.model.parameters(), (), config.max_gradient_norm, world)
    sums["unread"] = torch.tensor(float(len(batch.unread)), device=world.device)
    means = dict(zip(sums, world.mean(torch.stack(list(sums.values()))).tolist(), strict=True))
    unread = means.pop("unread")
    advice = training.diagnosis.check(
        student.step,
        means,
        gradient=norm,
        precision=student.precision,
        modules={"model": student.model},
        pictures=picture,
    )
    window.step(student.optimiser, norm=norm)
    follow(student.average, student.model, student.step, config.ema)
    student.step += 1
    return {**means, "gradient": float(norm), "unread": unread}, advice


def evaluate(
    training: Training, selection: Sequence[Photograph], best: checkpoint.Best, tracker: Tracker, run: Path
) -> None:
    """Measure the average on the pictures held out, by the first rank; the best so far is kept beside the last."""
    config, student = training.config, training.student

    def measure() -> None:
        results = select(student.average, selection, config)
        tracker.validation(results)
        show(student.average, selection, config, run, student.step)
        best.offer(results, student.state(config))

    by_the_first(measure, training.world)


def save(training: Training, last: Path) -> None:
    by_the_first(lambda: checkpoint.save(last, training.student.state(training.config)), training.world)


def prepare(config: DetectorConfig, plain: Batch | None, teacher: Teacher | None, world: World) -> Training:
    """The student at its first step and its ways through. plain: crops that the scales of the teacher's layers are
    measured on, where there is a teacher."""
    torch.set_num_threads(config.threads)
    if teacher:
        refuse_other_anchors(config.anchors)
    student, asked = build(config, world), config.teacher
    scales = teacher.scales(plain.pixels.numpy()) if teacher and plain else []
    ways = Ways(
        student.model,
        [of.to(world.device) for of in scales],
        asked.hint_steps,
        asked.forced_steps,
        compiled=config.compile,
    )
    return Training(config, student, Objective(config), ways, teacher, Diagnosis(), world)


def first_crops(photographs: Photographs, config: DetectorConfig) -> Batch:
    """The first step's crops of a run on one process: the same at every start and on every rank."""
    index = Shuffled(len(photographs), config.batch, config.seed).batch(0)
    return batch_of(photographs, index, 0, 0, config)


def tracked(training: Training, run: Path, total: int) -> Tracker:
    config, student, world = training.config, training.student, training.world
    return Tracker(
        run,
        total=total,
        initial=student.step,
        unit="img",
        flops_per_sample=sum(3 * flops(config, side) for side in config.sides) / len(config.sides),
        config=config.model_dump(mode="json"),
        peak=peak_flops(world.device, student.precision.dtype) * world.size if world.first else None,
        quiet=not world.first,
    )


def flops(config: DetectorConfig, side: int) -> int:
    """Of one forward pass: 2 × MACs, counted on a model without memory."""
    with torch.device("meta"):
        model, picture = model_of(config).eval(), torch.empty(1, 3, side, side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(picture)
    return counter.get_total_flops()


if __name__ == "__main__":
    from training.detector.command import main

    sys.exit(main())
