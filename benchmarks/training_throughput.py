"""How many faces a second does a training step take in, and how near is that to what the arithmetic alone costs?

    python -m benchmarks.training_throughput [--rounds 10] [--steps 3] [--threads 1] [--devices cpu cuda]

The package's step (`training.embedder.train.train_step`) beside plain PyTorch loops of the same model, optimiser and
batches, which the package's loader draws and augments for all of them. Every contender has a process of its own, since
the C library's allocator is set when a process starts; they take turns, and compilation and the first steps are not
counted. The floor is 6 × MACs an image (forward, and twice that backward) over the device's measured bf16 peak.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.measure import versions, write_result
from training.config import REPOSITORY
from training.data.drawing import aligned
from training.data.identities import SIDE, Faces
from training.data.sampling import Shuffled
from training.embedder.backbones import BACKBONES, backbone
from training.embedder.backbones.cost import macs
from training.embedder.backbones.depthwise import GlobalDepthwise, StridedDepthwise
from training.embedder.config import Distillation, EmbedderConfig, HeadLoss
from training.embedder.distillation import normalise
from training.embedder.objective import Batch, batch_of
from training.embedder.train import prepare, train_step
from training.loop.distributed import World
from training.loop.loader import Prefetch
from training.loop.precision import DTYPES, Kind
from training.loop.tracking import peak_flops

PICTURES = 1024  # drawn once; what a picture shows costs no time
WARM_UP = 3  # steps, the first of which compiles
BATCH = {"cpu": 64, "cuda": 512}
Step = Callable[[Batch], object]


@dataclass(frozen=True)
class Contender:
    """package: train_step as `make train-and-publish` runs it, else a plain loop; kept: the allocator keeps what is
    freed, as the Makefile asks; stock: the strided depthwise layers in the form that everybody writes."""

    name: str
    package: bool = False
    precision: Kind = "bf16"
    compiled: bool = True
    kept: bool = False
    stock: bool = False


PLAIN = Contender("plain, fp32", precision="fp32", compiled=False)
CONTENDERS = (
    Contender("Facet", package=True, kept=True),
    PLAIN,
    Contender("plain, bf16", compiled=False),
    Contender("plain, bf16, compiled"),
    Contender("plain, bf16, compiled, memory kept", kept=True),
    Contender("plain, bf16, compiled, stock convolutions", stock=True),
)


@dataclass(frozen=True)
class Task:
    """What every contender of a device is given."""

    device: str
    backbone: str
    batch: int
    identities: int
    threads: int
    workers: int
    steps: int  # a turn

    def config(self) -> EmbedderConfig:
        return EmbedderConfig(
            backbone=self.backbone,
            batch=self.batch,
            threads=self.threads,
            head=HeadLoss(weight=1.0),
            distillation=Distillation(weight=0.0),
        )


@dataclass(frozen=True)
class Turn:
    """Of one step, the mean over a turn. wall, cpu: seconds, cpu of the training process alone; waited: share of
    `wall` in which the next batch was not there; peak: FLOP/s in bf16, measured just before."""

    wall: float
    cpu: float
    waited: float
    peak: float


class Runner:
    """One contender, ready to take its turns."""

    def __init__(self, contender: Contender, task: Task) -> None:
        self.task, config, faces = task, task.config(), drawn_faces(task.identities)
        sampler = Shuffled(len(faces), task.batch, config.seed)
        self.batches = Prefetch(  # before a GPU is used: its workers are forked
            lambda step: batch_of(faces, sampler.batch(step), step, 0, config), workers=task.workers
        )
        torch.set_num_threads(task.threads)
        self.step = package_step(task, faces) if contender.package else plain_step(contender, task)
        for _ in range(WARM_UP):
            self.step(next(self.batches))

    def turn(self) -> Turn:
        peak = peak_flops(self.task.device, torch.bfloat16)
        for _ in range(self.task.workers):  # the batches that were prepared while others had their turn
            self.step(next(self.batches))
        self._finish()
        waited, cpu, began = 0.0, time.process_time(), time.perf_counter()
        for _ in range(self.task.steps):
            asked = time.perf_counter()
            batch = next(self.batches)
            waited += time.perf_counter() - asked
            self.step(batch)
        self._finish()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        return Turn(wall / self.task.steps, cpu / self.task.steps, waited / wall, peak)

    def _finish(self) -> None:
        if self.task.device == "cuda":
            torch.cuda.synchronize()


def drawn_faces(identities: int) -> Faces:
    """PICTURES drawn faces whose labels are spread over `identities` people."""
    label = np.linspace(0, identities - 1, PICTURES).astype(np.int64)
    return Faces(
        pictures=np.stack([aligned(who, 0, SIDE) for who in range(PICTURES)]),
        identity=label,
        label=label,
        family=np.full(PICTURES, ""),
        similarity=np.ones(PICTURES, np.float32),
        source=np.full(PICTURES, "drawn"),
    )


def package_step(task: Task, faces: Faces) -> Step:
    config = task.config()
    training = prepare(config, Path("unused"), faces, None, World(device=torch.device(task.device)))
    training.student.model.train()
    return lambda batch: train_step(training, batch, config.optimiser.learning_rate)


def plain_step(contender: Contender, task: Task) -> Step:
    """The loop that one writes down first: forward pass, loss, backward pass, optimiser; channels first."""
    config, device = task.config(), torch.device(task.device)
    torch.manual_seed(config.seed)
    model = backbone(task.backbone, config.dimension).to(device)
    if contender.stock:
        as_everybody_writes(model)
    head = PlainArcFace(config.dimension, task.identities).to(device)
    optimiser = torch.optim.AdamW(
        [*model.parameters(), *head.parameters()],
        lr=config.optimiser.learning_rate,
        weight_decay=config.optimiser.weight_decay,
    )
    through = torch.compile(model) if contender.compiled else model
    dtype = DTYPES[contender.precision]

    def step(batch: Batch) -> None:
        picture = normalise(torch.from_numpy(batch.crops).to(device)).contiguous()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            embedding = through(picture)
        loss = head(embedding.float(), batch.label.to(device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


class PlainArcFace(nn.Module):
    """s · cos(θ + m) to the own class centre, s · cos θ to the others, cross-entropy."""

    def __init__(self, dimension: int, identities: int, scale: float = 32.0, margin: float = 0.3) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(torch.randn(identities, dimension) * 0.01)

    def forward(self, embedding: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """float32 [n, dimension], int64 [n] → scalar."""
        cosine = F.linear(F.normalize(embedding), F.normalize(self.weight)).clamp(-1 + 1e-6, 1 - 1e-6)
        own = cosine.gather(1, label[:, None])
        penalised = (own.acos() + self.margin).cos()
        return F.cross_entropy(self.scale * cosine.scatter(1, label[:, None], penalised), label)


def as_everybody_writes(model: nn.Module) -> None:
    """The same layers and weights, without the forms that train fast on a CPU."""
    for layer in model.modules():
        if isinstance(layer, (StridedDepthwise, GlobalDepthwise)):
            layer.__class__ = nn.Conv2d  # type: ignore[assignment]


def kept_memory() -> dict[str, str]:
    """The allocator's settings that `make train-and-publish` sets."""
    line = re.search(r"^ALLOCATOR\s*:=\s*(.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert line, "the Makefile has no ALLOCATOR"
    return dict(word.split("=", 1) for word in line[1].split())


_runner: Runner  # of this process


def _begin(contender: Contender, task: Task) -> None:
    global _runner
    _runner = Runner(contender, task)


def _ready() -> None:
    """Returns when `_begin` has."""


def _take_turn() -> Turn:
    return _runner.turn()


def start(contender: Contender, task: Task) -> ProcessPoolExecutor:
    """A process in which the contender waits for its turns. Its allocator is what the environment says now."""
    os.environ["OMP_NUM_THREADS"] = str(task.threads)
    for name, value in kept_memory().items():
        os.environ.pop(name, None)
        if contender.kept:
            os.environ[name] = value
    process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (contender, task))
    process.submit(_ready).result()
    return process


def measure(task: Task, rounds: int) -> dict[str, list[Turn]]:
    """`rounds` turns of each contender, by name; in every round each has one."""
    turns: dict[str, list[Turn]] = {of.name: [] for of in CONTENDERS}
    with ExitStack() as stack:
        processes = {}
        for of in CONTENDERS:
            print(f"{task.device}: preparing {of.name}", flush=True)
            processes[of.name] = stack.enter_context(start(of, task))
        for number in range(rounds):
            for name, process in processes.items():
                turns[name].append(process.submit(_take_turn).result())
            faces = " ".join(f"{task.batch / of[-1].wall:.0f}" for of in turns.values())
            print(f"{task.device}: round {number + 1} of {rounds}, img/s: {faces}", flush=True)
    return turns


def rows_of(task: Task, device: str, turns: Mapping[str, list[Turn]]) -> list[dict[str, object]]:
    """Medians over the rounds; `times_plain`: what a round's plain fp32 loop took over what this one took, by the wall
    clock and by processor time, which other work on the machine disturbs less."""
    flops = 6 * macs(backbone(task.backbone, task.config().dimension)) * task.batch
    peak = max(turn.peak for of in turns.values() for turn in of)
    plain_wall, plain_cpu = _taken(turns[PLAIN.name])
    rows: list[dict[str, object]] = []
    for name, of in turns.items():
        wall, cpu = _taken(of)
        step = float(np.median(wall))
        rows.append(
            {
                "device": device,
                "contender": name,
                "batch": task.batch,
                "ms_a_step": round(step * 1e3, 1),
                "cpu_ms_a_step": round(float(np.median(cpu)) * 1e3, 1),
                "img_s": round(task.batch / step, 1),
                "of_flop_floor": round(flops / peak / step, 3),
                "loader_wait": round(float(np.median([turn.waited for turn in of])), 3),
                "times_plain": round(float(np.median(plain_wall / wall)), 2),
                "times_plain_cpu": round(float(np.median(plain_cpu / cpu)), 2),
                "peak_tflop_s": round(peak / 1e12, 3),
            }
        )
    return rows


def _taken(turns: Sequence[Turn]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds a step by the wall clock and of processor time, float64 [rounds] each."""
    return np.array([of.wall for of in turns]), np.array([of.cpu for of in turns])


def verdict(rows: Sequence[Mapping[str, object]]) -> str:
    """The package's step against the first loop that one writes, and against the fastest of the plain ones."""
    ours, *plain = rows
    best = max(plain, key=lambda row: float(str(row["img_s"])))
    times = float(str(ours["img_s"])) / float(str(best["img_s"]))
    return f"{ours['times_plain']} × {PLAIN.name}, {times:.2f} × the best plain loop ({best['contender']})"


def main() -> None:
    asked = _parser().parse_args()
    rows: list[dict[str, object]] = []
    verdicts = {}
    for device in asked.devices:
        on_gpu = device == "cuda"
        loading = max(1, len(os.sched_getaffinity(0)) - 2) if on_gpu else 0
        task = Task(
            device=device,
            backbone=asked.backbone,
            batch=asked.batch or BATCH[device],
            identities=asked.identities,
            threads=asked.threads,
            workers=loading if asked.workers is None else asked.workers,
            steps=asked.steps,
        )
        name = torch.cuda.get_device_name() if on_gpu else f"cpu, {asked.threads} thread(s)"
        measured = rows_of(task, name, measure(task, asked.rounds))
        rows += measured
        verdicts[name] = verdict(measured)
    write_result(
        "training_throughput",
        "How many faces a second does a training step take in, loader and augmentation included, and what share is "
        "that of the floor, 6 × MACs an image over the measured bf16 peak? (times_plain: against the plain fp32 loop; "
        "cpu: by processor time of the training process)",
        rows,
        verdict=verdicts,
        model=f"{asked.backbone}, {asked.identities} identities",
        memory_kept=" ".join(f"{name}={value}" for name, value in kept_memory().items())
        + " (Facet, and where the name says so)",
        libraries=versions("torch", "numpy", "opencv-python-headless"),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    present = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for name, default, text in (
        ("--rounds", 10, "turns of each contender"),
        ("--steps", 3, "of a turn"),
        ("--identities", 7256, "classes of the head"),
        ("--threads", 1, "of torch"),
    ):
        parser.add_argument(name, type=int, default=default, help=f"{text} (default: %(default)s)")
    parser.add_argument("--backbone", choices=list(BACKBONES), default="mobilefacenet")
    parser.add_argument("--batch", type=int, help="faces a step (default: 64 on a CPU, 512 on a GPU)")
    parser.add_argument(
        "--workers", type=int, help="that load (default: 0 on a CPU, all cores but 2 on a GPU)"
    )
    parser.add_argument("--devices", nargs="+", choices=present, default=present)
    return parser


if __name__ == "__main__":
    main()
