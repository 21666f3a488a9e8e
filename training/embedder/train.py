"""One embedder run, read downwards: data → teacher → student → steps → validation → checkpoint.

    python -m training.embedder.train --config training/configs/embedder.toml --run runs/embedder/default
    torchrun --nproc-per-node 8 -m -- training.embedder.train …

(Without the two dashes torchrun takes `--run` for an option of its own.) Stopped at any moment (Ctrl-C ends with a
checkpoint), the same command goes on from there, on any number of processes.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.config import REPOSITORY, BadConfig, datasets, read_config
from training.data.identities import BadData, Faces, load_faces
from training.data.sampling import PK, Balanced, Sampler, Shuffled
from training.data.sources import open_faces
from training.embedder.backbones.cost import macs
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import (
    ReferenceEmbedder,
    Teacher,
    normalise,
    open_teacher,
    teacher_targets,
)
from training.embedder.hints import Hints, Ways
from training.embedder.objective import Batch, Objective, batch_of, believed
from training.embedder.student import Student, build
from training.evaluation.verification import NotUnitVectors, TooFewImpostors, all_pairs, fnmr_at_fmr
from training.loop import checkpoint
from training.loop.accumulation import Accumulation
from training.loop.agreement import FirstFailed, alike, anywhere, by_the_first
from training.loop.averaging import follow
from training.loop.diagnosis import Diagnosis, Diverged, rate_advice, spread, target_cosine
from training.loop.distributed import ALONE, World, average, clip_gradients, start
from training.loop.finder import find, finder_figure
from training.loop.loader import LoaderFailed, Prefetch
from training.loop.memory import free_memory, training_memory
from training.loop.stop import Stop
from training.loop.tracking import Tracker, peak_flops

FMRS = (1e-2, 1e-3)
GATED = "fnmr@0.001"  # what the best checkpoint is chosen by, on validation
SEEN = ("spread", "cosine")  # what `observe` measures beside the losses
EXPECTED = (
    BadConfig,
    BadData,
    checkpoint.UnreadableCheckpoint,
    checkpoint.UnsoundState,
    Diverged,
    LoaderFailed,
    OSError,
)
ALONE_WITH = (LoaderFailed, OSError)  # what one rank may meet alone, and says itself
SPEAKING_S = 10  # torchrun ends all as soon as one has ended: the others let the first say why


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
    begun = ""
    if last.is_file():
        student.restore(last)
    elif begin:
        begun = student.begin_from(begin)
    if not alike(student.step, world):
        raise BadConfig(
            f"the processes see different checkpoints: {run} has to be a folder that all of them share"
        )
    best = checkpoint.Best(run / "best.pt", GATED)

    def make(step: int) -> Batch:
        return batch_of(faces, sampler.batch(step), step, world.rank, config)

    with (
        Stop() as stop,
        tracked(training, run, total) as tracker,
        Prefetch(make, student.step, stop=total, workers=config.workers) as batches,
    ):
        for line in (*([begun] if begun else []), *remarks(training, faces, total)):
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


def sampler_of(config: EmbedderConfig, faces: Faces, world: World) -> Sampler:
    """The configuration's sampler. Triplets are made of faces whose labels are probably right, for each is a claim."""
    asked, place = config.sampling, (config.seed, world.rank, world.size)
    if asked.name == "pk":
        rows = np.flatnonzero(believed(faces, config))
        return Among(rows, PK(faces.label[rows], asked.people, asked.pictures, *place))
    if asked.name == "balanced":
        return Balanced(faces.label, config.batch, *place, balance=asked.balance)
    return Shuffled(len(faces), config.batch, *place)


@dataclass(frozen=True)
class Among:
    """A sampler of some rows of a set."""

    rows: np.ndarray
    sampler: Sampler

    @property
    def batches_per_epoch(self) -> int:
        return self.sampler.batches_per_epoch

    def batch(self, step: int) -> np.ndarray:
        return self.rows[self.sampler.batch(step)]


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


def remarks(training: Training, faces: Faces, total: int) -> list[str]:
    """What is worth knowing before the first step: what takes no part, and what will not work out."""
    config, student, world = training.config, training.student, training.world
    clean = believed(faces, config)
    single = int((np.bincount(faces.label[clean]) == 1).sum())
    said = []
    if student.step >= total:
        said.append(f"{student.step} steps are done already, the configuration asks for {total}")
    if not clean.all():
        said.append(
            f"{(~clean).sum()} of {len(faces)} faces are unlike their own person (similarity below "
            f"{config.head.least_similarity:g}): identity losses leave them out"
        )
    if config.sampling.name == "pk" and single:
        said.append(f"{single} people have a single picture: they take no part in P × K batches")
    needed = training_memory(
        student.average,
        torch.zeros(1, 3, 112, 112, device=world.device),
        min(config.batch, config.micro_batch or config.batch),
        identities=faces.identities,
        dimension=config.dimension,
        states=config.optimiser.states,
        sample_rate=config.head.sample_rate,
        shards=world.size,
        activation_bytes=4 if config.precision == "fp32" else 2,
    )
    free = free_memory(world.device)
    said.append((free is not None and needed.advice(free)) or f"memory: about {needed}")
    usual = rate_advice(config.optimiser.name, config.optimiser.learning_rate, config.batch * world.size)
    return [*said, usual] if usual else said


@torch.inference_mode()
def embed(model: nn.Module, crops: np.ndarray, batch: int = 64) -> np.ndarray:
    """uint8 [n, 112, 112, 3] → float32 [n, d] unit vectors, model in eval mode, fp32."""
    model.eval()
    device = next(model.parameters()).device
    parts = [
        model(normalise(torch.from_numpy(np.ascontiguousarray(crops[i : i + batch])).to(device)))
        for i in range(0, len(crops), batch)
    ]
    return F.normalize(torch.cat(parts)).cpu().numpy()


def validate(model: nn.Module, validation: Faces) -> dict[str, float]:
    """FNMR at those of FMRS that the impostor pairs of `validation` can carry, kin apart. Raises NotUnitVectors."""
    scores = all_pairs(embed(model, validation.crops()), validation.identity, validation.family)
    results = {}
    for fmr in FMRS:
        try:
            results[f"fnmr@{fmr:g}"] = fnmr_at_fmr(scores, fmr)[0]
        except TooFewImpostors:
            continue  # a tiny set (the synthetic one) carries only the coarser rate
    return results


def find_rate(
    config: EmbedderConfig,
    run: Path,
    faces: Faces,
    teacher: Teacher | None = None,
    world: World = ALONE,
    steps: int = 100,
) -> float:
    """Sweep the learning rate on a student of its own; writes learning-rate.png into `run`. Returns the suggestion."""
    training, sampler = prepare(config, run, faces, teacher, world), sampler_of(config, faces, world)
    training.student.model.train()

    def step(rate: float) -> float:
        at = training.student.step
        batch = batch_of(faces, sampler.batch(at), at, world.rank, config)
        try:
            return train_step(training, batch, rate)[0]["loss"]
        except Diverged:
            return math.nan  # the end of the sweep

    def draw() -> None:
        with checkpoint.replacing(run / "learning-rate.png") as file:
            file.write(finder_figure(finding))

    finding = find(step, 1e-5, 1.0, steps)
    by_the_first(draw, world)
    return finding.suggestion


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0; 1 with one line that says what is wrong; 130 where it was stopped. Of many ranks the first speaks."""
    asked = _parser().parse_args(arguments)
    first, last = os.environ.get("RANK", "0") == "0", asked.run / "last.pt"
    try:
        _run(asked)
    except KeyboardInterrupt:
        if first:
            begun = f"goes on from {last}" if last.is_file() else "begins anew: there is no checkpoint yet"
            print(f"stopped; the same command {begun}", file=sys.stderr)
        return 130
    except (FirstFailed, *EXPECTED) as error:
        if first or isinstance(error, ALONE_WITH):
            print(f"failed: {error}", file=sys.stderr)
        else:
            time.sleep(SPEAKING_S)
        return 1
    return 0


def _run(asked: argparse.Namespace) -> None:
    if not asked.config.is_file():
        raise BadConfig(f"--config {asked.config}: no such file")
    config = read_config(EmbedderConfig, asked.config)
    with start(config.device) as world:
        teacher = _teacher(config, asked.teacher, world)
        faces, validation = _splits(asked.faces)
        if not asked.find_rate:
            train(config, asked.run, faces, validation, teacher, world, asked.begin_from)
            return
        rate = find_rate(config, asked.run, faces, teacher, world)
        if world.first:
            print(f"suggested learning_rate: {rate:.2g}; the sweep is drawn in {asked.run}/learning-rate.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.embedder.train",
        description="Train the embedder on labelled faces. Stopped at any moment, the same command goes on.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=REPOSITORY / "training/configs/embedder.toml",
        help="TOML of the run (default: the default bundle's recipe)",
    )
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/embedder/default"),
        help="folder of its checkpoints and records (default: %(default)s)",
    )
    parser.add_argument(
        "--faces", type=Path, help="a set of faces in any format that is read (default: the data sets' own)"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        help="for distillation: a run's checkpoint (.pt) or an embedder's graph (default: the reference embedder)",
    )
    parser.add_argument(
        "--begin-from", type=Path, help="another run's checkpoint whose weights a new run starts with"
    )
    parser.add_argument(
        "--find-rate", action="store_true", help="sweep the learning rate instead of training"
    )
    return parser


def _teacher(config: EmbedderConfig, path: Path | None, world: World) -> Teacher | None:
    if not config.distilled:
        return None
    data = datasets()
    chosen = path or (data / "reference" / "MobileFaceNet.onnx" if data else None)
    if chosen is None:
        raise BadConfig("the configuration distils, but there is no teacher: give --teacher")
    return open_teacher(chosen, config.threads, world.device)


def _splits(path: Path | None) -> tuple[Faces, Faces]:
    """Training and validation people. A set without a split is all for training: validation is the data sets'."""
    data = datasets()
    own = path or (data / "faces" if data else None)
    if own is None:
        raise BadData(
            "no data sets found: set FACET_DATASETS, give --faces, or run `make train-and-publish` for drawn ones"
        )
    if (own / "split.csv").is_file():
        return open_faces(own, "train"), open_faces(own, "validation")
    if data is None:
        raise BadData(
            f"{own} has no split.csv and there are no data sets to validate on: align it into a set first"
        )
    return open_faces(own), load_faces(data / "faces", "validation")


if __name__ == "__main__":
    sys.exit(main())
