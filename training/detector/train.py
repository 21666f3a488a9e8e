"""One detector run, read downwards: photographs → student → steps → selection → checkpoint.

    python -m training.detector.train --config training/configs/detector.toml --run runs/detector/default
    torchrun --nproc-per-node 8 -m -- training.detector.train …

Stopped at any moment (Ctrl-C ends with a checkpoint), the same command goes on from there. `--epochs` shortens or
lengthens a run: the decay is the last share of it, so a run that has passed that share's start decays at once.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from training.config import REPOSITORY, BadConfig, datasets, read_config
from training.data.crops import Unread
from training.data.identities import BadData
from training.data.photographs import Photograph
from training.data.sampling import Shuffled
from training.data.widerface import wider
from training.detector.config import DetectorConfig
from training.detector.dataset import Batch, Photographs, batch_of, load, load_sets
from training.detector.objective import Objective, counts_of
from training.detector.retinanet import normalise
from training.detector.selection import select, show
from training.detector.student import Student, build
from training.detector.student import model_of as model_of
from training.detector.teacher import Teacher, Ways
from training.loop import checkpoint
from training.loop.accumulation import Accumulation, micro_batches
from training.loop.averaging import follow
from training.loop.diagnosis import Diagnosis, Diverged
from training.loop.distributed import ALONE, World, average, clip_gradients, start
from training.loop.finder import find, finder_figure
from training.loop.loader import LoaderFailed, Prefetch
from training.loop.memory import free_memory, training_memory
from training.loop.stop import Stop
from training.loop.tracking import Tracker, peak_flops

GATED = "recall@0.1fp"  # what the best checkpoint is chosen by, on the held-out pictures
EXPECTED = (BadConfig, BadData, Diverged, LoaderFailed, checkpoint.UnreadableCheckpoint, OSError)


@dataclass
class Training:
    """Everything that a step needs and that no checkpoint holds."""

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
) -> Path:
    """Train to the end of `config.epochs`, resuming `run`. Returns the path of the last checkpoint.

    Raises BadData, BadConfig, UnreadableCheckpoint, Diverged, and OSError for a full disk; whichever it is, the last
    checkpoint stays. Ctrl-C is KeyboardInterrupt, after a checkpoint.
    """
    sampler = Shuffled(len(photographs), config.batch, config.seed, world.rank, world.size)
    total = int(config.epochs * sampler.batches_per_epoch)
    evaluate = max(1, int(config.evaluate_epochs * sampler.batches_per_epoch))
    config.schedule.factor(0, total)  # a run too short for its schedule is refused here
    make = lambda step: batch_of(photographs, sampler.batch(step), step, world.rank, config)  # noqa: E731
    # the scales of the teacher's layers come from the first batch, the same at every start
    training = prepare(config, make(0) if teacher else None, teacher, world)
    student, last = training.student, run / "last.pt"
    if world.first:
        checkpoint.clear_partials(run)
    if last.is_file():
        student.restore(last, config)
    best, unread = checkpoint.Best(run / "best.pt", GATED, lower=False), Unread(len(photographs))
    with (
        Stop() as stop,
        tracked(training, run, total) as tracker,
        Prefetch(make, student.step, stop=total, workers=config.workers) as batches,
    ):
        student.model.train()
        saved = student.step
        while student.step < total and not stop.requested:
            with tracker.waiting():
                batch = next(batches)
            unread.note(batch.unread)
            rate = config.optimiser.learning_rate * config.schedule.factor(student.step, total)
            losses, advice = train_step(training, batch, rate)
            tracker.step(len(batch) * world.size, losses, rate)
            for line in advice:
                tracker.say(line)
            at_end = student.step == total
            if student.step % evaluate == 0 or at_end:
                with tracker.aside():
                    if world.first and selection:
                        results = select(student.average, selection, config)
                        tracker.validation(results)
                        show(student.average, selection, config, run, student.step)
                        best.offer(results, student.state(config))
                    world.wait()
            if student.step % config.checkpoint_steps == 0 or at_end:
                saved = save(training, last)
        if saved != student.step:
            save(training, last)
    return last


def train_step(training: Training, batch: Batch, rate: float) -> tuple[dict[str, float], list[str]]:
    """One step. Returns the losses with the gradient's length, and advice; raises Diverged before anything moved."""
    config, student, world = training.config, training.student, training.world
    for group in student.optimiser.param_groups:
        group["lr"] = rate
    answers = training.teacher.ask(batch.pixels.numpy()) if training.teacher else None
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
            weighed = value.detach() * share
            sums[name] = sums[name] + weighed if name in sums else weighed
    average(student.model, world)
    window.close(student.optimiser)
    norm = clip_gradients(student.model.parameters(), (), config.max_gradient_norm, world)
    losses = {name: float(value) for name, value in sums.items()}
    advice = training.diagnosis.check(
        student.step,
        losses,
        gradient=norm,
        precision=student.precision,
        modules={"model": student.model},
        pictures=picture,
    )
    window.step(student.optimiser, norm=norm)
    follow(student.average, student.model, student.step, config.ema)
    student.step += 1
    return {**losses, "gradient": float(norm), "unread": float(len(batch.unread))}, advice


def prepare(config: DetectorConfig, plain: Batch | None, teacher: Teacher | None, world: World) -> Training:
    """The student at its first step and its ways through. plain: crops that the scales of the teacher's layers are
    measured on, where there is a teacher."""
    torch.set_num_threads(config.threads)
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


def tracked(training: Training, run: Path, total: int) -> Tracker:
    """The run's tracker; says before the first step what the run will need."""
    config, student, world = training.config, training.student, training.world
    largest = max(config.sides)
    tracker = Tracker(
        run,
        total=total,
        initial=student.step,
        unit="img",
        flops_per_sample=sum(3 * flops(config, side) for side in config.sides) / len(config.sides),
        config=config.model_dump(mode="json"),
        peak=peak_flops(world.device, student.precision.dtype) * world.size,
        quiet=not world.first,
    )
    needed = training_memory(
        copy.deepcopy(student.average),
        torch.zeros(1, 3, largest, largest, device=world.device),
        config.micro_batch or config.batch,
        identities=0,
        dimension=0,
        states=config.optimiser.states,
        activation_bytes=4 if config.precision == "fp32" else 2,
    )
    tracker.say(f"memory: about {needed}")
    free = free_memory(world.device)
    short = needed.advice(free) if free is not None else None
    alone = "no dense teacher: the labels alone" if config.teacher.layers and not training.teacher else None
    for line in (short, alone):
        if line:
            tracker.say(line)
    return tracker


def flops(config: DetectorConfig, side: int) -> int:
    """Of one forward pass: 2 × MACs, counted on a model without memory."""
    with torch.device("meta"):
        model, picture = model_of(config).eval(), torch.empty(1, 3, side, side)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(picture)
    return counter.get_total_flops()


def save(training: Training, last: Path) -> int:
    """Write the checkpoint; returns its step."""
    if training.world.first:
        checkpoint.save(last, training.student.state(training.config))
    training.world.wait()
    return training.student.step


def find_rate(
    config: DetectorConfig,
    run: Path,
    photographs: Photographs,
    teacher: Teacher | None = None,
    steps: int = 100,
) -> float:
    """Sweep the learning rate on a student of its own; writes learning-rate.png into `run`. Returns the suggestion."""
    sampler = Shuffled(len(photographs), config.batch, config.seed)
    make = lambda step: batch_of(photographs, sampler.batch(step), step, 0, config)  # noqa: E731
    training = prepare(config, make(0) if teacher else None, teacher, ALONE)
    training.student.model.train()
    finding = find(
        lambda rate: train_step(training, make(training.student.step), rate)[0]["loss"], 1e-5, 1.0, steps
    )
    run.mkdir(parents=True, exist_ok=True)
    (run / "learning-rate.png").write_bytes(finder_figure(finding))
    return finding.suggestion


def main() -> int:
    """Returns 0, or 1 with one line that says why, or 130 where it was stopped."""
    parser = argparse.ArgumentParser(description="train the detector on photographs with boxed faces")
    parser.add_argument("--config", type=Path, default=REPOSITORY / "training/configs/detector.toml")
    parser.add_argument("--run", type=Path, default=Path("runs/detector/default"))
    parser.add_argument(
        "--epochs", type=float, help="instead of the configuration's, to end a run earlier or later"
    )
    parser.add_argument(
        "--boxed", type=Path, nargs="*", help="other sets than the data sets' own: see docs/training.md"
    )
    parser.add_argument(
        "--teacher", type=Path, help="an SCRFD graph (ONNX): a dense teacher, on labelled and other pictures"
    )
    parser.add_argument(
        "--photographs",
        type=Path,
        nargs="*",
        default=[],
        help="folders of pictures without boxes, for the teacher",
    )
    parser.add_argument(
        "--find-rate", action="store_true", help="sweep the learning rate instead of training"
    )
    try:
        _train(parser.parse_args())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    except EXPECTED as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


def _train(asked: argparse.Namespace) -> None:
    config = read_config(DetectorConfig, asked.config)
    if asked.epochs:
        config = config.model_copy(update={"epochs": asked.epochs})
    if asked.photographs and not asked.teacher:
        raise BadConfig(
            "--photographs are pictures without boxes: they need a --teacher to say what is on them"
        )
    photographs, selection = _splits(asked, config)
    teacher = Teacher(asked.teacher, config.teacher.layers, config.threads) if asked.teacher else None
    if asked.find_rate:
        print(f"suggested learning_rate: {find_rate(config, asked.run, photographs, teacher):.2g}")
        return
    with start(config.device) as world:
        train(config, asked.run, photographs, selection, teacher, world)


def _splits(asked: argparse.Namespace, config: DetectorConfig) -> tuple[Photographs, list[Photograph]]:
    """Training and selection photographs: of the sets that are named, or else of the data sets."""
    cache, data = asked.run.parent, datasets()
    if asked.boxed:
        return load_sets(asked.boxed, cache, config.longest, asked.photographs, encoded=config.encoded)
    if data is None:
        raise BadData(
            "no data sets found: set FACET_DATASETS, give --boxed, or run `make train-and-publish` for drawn ones"
        )
    own = load(data, cache / "landmarks.npz", config.longest, asked.photographs, encoded=config.encoded)
    return own, list(wider(data / "wider", "selection"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
