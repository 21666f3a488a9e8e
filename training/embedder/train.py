"""One embedder run, read downwards: data → teacher → model → steps → validation → checkpoint.

    python -m training.embedder.train --config training/configs/embedder.toml --run runs/embedder/default

Stopped at any moment, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from training.config import datasets, read_config
from training.data.augment import augment
from training.data.identities import BadData, Faces, load_faces
from training.embedder.backbones.mobilefacenet import MobileFaceNet
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import ReferenceEmbedder, cosine_distance, teacher_targets
from training.embedder.margins import ArcFace
from training.evaluation.verification import TooFewImpostors, all_pairs, fnmr_at_fmr
from training.loop import checkpoint
from training.loop.averaging import follow
from training.loop.decay import parameter_groups
from training.loop.schedule import warmup_stable_decay

NOISY = 0.25  # similarity to the own centroid below which a label is probably wrong (see the data's notes)


class Diverged(Exception):
    """The loss is not a number; the message says at which step and what to try."""


@dataclass
class Student:
    """What a checkpoint holds: the model, its slow average, the head, the optimiser and the place in the data."""

    model: MobileFaceNet
    average: MobileFaceNet
    head: ArcFace
    optimiser: torch.optim.AdamW
    step: int = 0

    def state(self, config: EmbedderConfig) -> dict[str, object]:
        return {
            "kind": "embedder",
            "config": config.model_dump(),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "head": self.head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, object], source: Path) -> None:
        if state.get("kind") != "embedder":
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is not an embedder's checkpoint; use another --run"
            )
        try:
            self.model.load_state_dict(state["model"])  # type: ignore[arg-type]
            self.average.load_state_dict(state["average"])  # type: ignore[arg-type]
            self.head.load_state_dict(state["head"])  # type: ignore[arg-type]
        except RuntimeError as error:
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is of another model: {error}; use another --run"
            ) from error
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.step = int(state["step"])  # type: ignore[call-overload]


def normalise(crops: Tensor) -> Tensor:
    """uint8 [n, 112, 112, 3] RGB → float [n, 3, 112, 112] in −1 … 1 (the exported graph holds the same line)."""
    return (crops.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def batch_of(faces: Faces, step: int, config: EmbedderConfig) -> tuple[np.ndarray, np.ndarray]:
    """(indices [b], crops uint8 [b, 112, 112, 3]) of one step: a function of the step alone, so a resume is exact."""
    per_epoch = len(faces) // config.batch
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng((config.seed, epoch)).permutation(len(faces))
    index = order[place * config.batch : (place + 1) * config.batch]
    rng = np.random.default_rng((config.seed, 1, step))
    return index, np.stack([augment(faces.pictures[i], rng) for i in index])


def build(config: EmbedderConfig, faces: Faces, targets: np.ndarray | None) -> Student:
    torch.manual_seed(config.seed)
    model = MobileFaceNet(config.dimension).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = ArcFace(config.dimension, faces.identities, config.arcface_scale, config.arcface_margin)
    if targets is not None:  # start the head at the teacher's centroids, so that both losses pull one way
        centroids = torch.zeros(faces.identities, config.dimension)
        centroids.index_add_(0, torch.from_numpy(faces.label), torch.from_numpy(targets))
        head.weight.data.copy_(F.normalize(centroids))
    average = MobileFaceNet(config.dimension)
    average.load_state_dict(model.state_dict())
    groups = parameter_groups(config.weight_decay, model, head)
    return Student(model, average.eval(), head, torch.optim.AdamW(groups, lr=config.learning_rate))


def train_step(
    student: Student,
    forward: Callable[[Tensor], Tensor],
    faces: Faces,
    targets: Tensor | None,
    config: EmbedderConfig,
) -> dict[str, float]:
    """One batch. Returns the losses and the gradient's norm; raises Diverged."""
    index, crops = batch_of(faces, student.step, config)
    picture = normalise(torch.from_numpy(crops)).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        embedding = forward(picture)
    loss, parts = torch.zeros(()), {}
    if targets is not None and config.distillation_weight:
        distance = cosine_distance(embedding, targets[torch.from_numpy(index)])
        loss, parts["distillation"] = loss + config.distillation_weight * distance, distance.item()
    clean = torch.from_numpy(faces.similarity[index] >= NOISY)
    if config.arcface_weight and clean.any():
        softmax = student.head(embedding[clean], torch.from_numpy(faces.label[index])[clean])
        loss, parts["arcface"] = loss + config.arcface_weight * softmax, softmax.item()
    student.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(student.model.parameters(), config.max_gradient_norm).item()
    if not np.isfinite(loss.item()) or not np.isfinite(norm):
        raise Diverged(f"step {student.step}: loss {loss.item()}, gradient {norm}; try a lower learning_rate")
    student.optimiser.step()
    follow(student.average, student.model, student.step, config.ema)
    student.step += 1
    return {"loss": loss.item(), "gradient": norm, **parts}


@torch.inference_mode()
def embed(model: nn.Module, crops: np.ndarray, batch: int = 64) -> np.ndarray:
    """uint8 [n, 112, 112, 3] → float32 [n, d] unit vectors, model in eval mode, fp32."""
    model.eval()
    parts = [
        model(normalise(torch.from_numpy(np.ascontiguousarray(crops[i : i + batch]))))
        for i in range(0, len(crops), batch)
    ]
    return F.normalize(torch.cat(parts)).numpy()


def validate(student: Student, validation: Faces) -> dict[str, float]:
    scores = all_pairs(embed(student.average, validation.crops()), validation.identity, validation.family)
    results = {}
    for fmr in (1e-2, 1e-3):
        try:
            results[f"fnmr@{fmr:g}"] = fnmr_at_fmr(scores, fmr)[0]
        except TooFewImpostors:
            continue  # a tiny set (the synthetic one) carries only the coarser rate
    return results


def log(run: Path, record: dict[str, object]) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def train(
    config: EmbedderConfig, run: Path, faces: Faces, validation: Faces, teacher: ReferenceEmbedder | None
) -> Path:
    """Train to the end of `config.epochs`, resuming `run`. Returns the path of the last checkpoint."""
    if faces.identities < 2:
        raise BadData(
            "training needs at least two identities: a margin between one person and nobody is undefined"
        )
    if len(faces) < config.batch:
        raise BadData(f"{len(faces)} faces are fewer than one batch of {config.batch}: lower `batch`")
    torch.set_num_threads(config.threads)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(config.model_dump_json(indent=2))
    targets = teacher_targets(teacher, faces.crops(), run / "cache") if teacher else None
    student = build(config, faces, targets)
    last = run / "last.pt"
    if last.is_file():
        student.restore(checkpoint.load(last), last)
    forward: Callable[[Tensor], Tensor] = torch.compile(student.model) if config.compile else student.model
    target = torch.from_numpy(targets) if targets is not None else None
    per_epoch = len(faces) // config.batch
    total, decay = int(config.epochs * per_epoch), int(config.decay_epochs * per_epoch)
    student.model.train()
    with tqdm(
        total=total, initial=student.step, unit="step", desc="embedder", mininterval=5, smoothing=0.05
    ) as bar:
        while student.step < total:
            rate = config.learning_rate * warmup_stable_decay(student.step, total, config.warmup_steps, decay)
            for group in student.optimiser.param_groups:
                group["lr"] = rate
            started = time.perf_counter()
            losses = train_step(student, forward, faces, target, config)
            bar.update()
            bar.set_postfix({k: f"{v:.3f}" for k, v in losses.items()}, refresh=False)
            at_end = student.step == total
            if student.step % 20 == 0 or at_end:
                seconds = time.perf_counter() - started
                log(run, {"step": student.step, "rate": rate, "img/s": config.batch / seconds, **losses})
            if student.step % config.evaluate_steps == 0 or at_end:
                results = validate(student, validation)
                log(run, {"step": student.step, **results})
                tqdm.write(f"step {student.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in results.items()))
            if student.step % config.checkpoint_steps == 0 or at_end:
                checkpoint.save(last, student.state(config))
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description="train the embedder on labelled faces")
    parser.add_argument("--config", type=Path, default=Path("training/configs/embedder.toml"))
    parser.add_argument("--run", type=Path, default=Path("runs/embedder/default"))
    arguments = parser.parse_args()
    config = read_config(EmbedderConfig, arguments.config)
    data = datasets()
    if data is None:
        raise SystemExit(
            "no data sets found: set FACET_DATASETS, or run `make train-and-publish` for the synthetic set"
        )
    reference = data / "reference" / "MobileFaceNet.onnx"
    teacher = ReferenceEmbedder(reference) if config.distillation_weight and reference.is_file() else None
    train(
        config,
        arguments.run,
        load_faces(data / "faces", "train"),
        load_faces(data / "faces", "validation"),
        teacher,
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
