"""One detector run, read downwards: photographs → model → steps → selection → checkpoint.

    python -m training.detector.train --config training/configs/detector.toml --run runs/detector/default

Stopped at any moment, the same command goes on from the last checkpoint. `--epochs` shortens or lengthens a run: the
decay is the last `decay_share` of it, so a run that has passed two thirds of its new length decays at once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from training.config import datasets, read_config
from training.data.widerface import Photograph, wider
from training.detector import losses
from training.detector.config import DetectorConfig
from training.detector.dataset import Batch, Photographs, batch_of, load
from training.detector.retinanet import RetinaNet, normalise
from training.detector.selection import select
from training.loop import checkpoint
from training.loop.averaging import follow
from training.loop.decay import parameter_groups
from training.loop.schedule import warmup_stable_decay

LOG_STEPS = 20
PARTS = ("score", "box", "landmark")
Outputs = tuple[Tensor, Tensor, Tensor]


class Diverged(Exception):
    """The loss is not a number; the message says at which step and what to try."""


@dataclass
class Run:
    """What a checkpoint holds: the model, its slow average, the optimiser and the place in the data."""

    model: RetinaNet
    average: RetinaNet
    optimiser: torch.optim.AdamW
    step: int = 0

    def state(self, config: DetectorConfig) -> dict[str, Any]:
        return {
            "kind": "detector",
            "config": config.model_dump(mode="json"),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any], source: Path) -> None:
        if state.get("kind") != "detector":
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is not a detector's checkpoint; use another --run"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
        except RuntimeError as error:
            raise checkpoint.UnreadableCheckpoint(
                f"{source} is of another model: {error}; use another --run"
            ) from error
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])


def model_of(config: DetectorConfig) -> RetinaNet:
    return RetinaNet(
        config.widths, config.depths, config.pyramid, tuple(len(of) for of in config.anchors.sizes)
    )


def trained(run: Path) -> tuple[RetinaNet, DetectorConfig]:
    """The averaged model of a run's last checkpoint, in eval mode, and the configuration it was made with."""
    state = checkpoint.load(run / "last.pt")
    config = DetectorConfig.model_validate(state["config"])
    model = model_of(config)
    model.load_state_dict(state["average"])
    return model.eval(), config


def build(config: DetectorConfig) -> Run:
    torch.manual_seed(config.seed)
    model = model_of(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = model_of(config)
    average.load_state_dict(model.state_dict())
    groups = parameter_groups(config.weight_decay, model)
    return Run(model, average.eval(), torch.optim.AdamW(groups, lr=config.learning_rate))


def loss_of(outputs: Outputs, batch: Batch, config: DetectorConfig) -> dict[str, Tensor]:
    """The three losses, unweighted."""
    logits, deltas, offsets = outputs
    positive = batch.label == 1
    boxes = losses.decoded(deltas[positive], batch.anchors, config.anchors)
    return {
        "score": losses.focal(logits, batch.label),
        "box": losses.distance_iou(boxes, batch.boxes) / max(1, len(boxes)),
        "landmark": losses.landmark_error(offsets[positive], batch.offsets),
    }


def train_step(
    run: Run, forward: Callable[[Tensor], Outputs], batch: Batch, config: DetectorConfig
) -> dict[str, float]:
    """One batch. Returns the losses and the gradient's norm; raises Diverged."""
    pictures = normalise(batch.pixels).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = forward(pictures)
    parts = loss_of(outputs, batch, config)
    loss = parts["score"] + config.box_weight * parts["box"] + config.landmark_weight * parts["landmark"]
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(run.model.parameters(), config.max_gradient_norm).item()
    if not np.isfinite(loss.item()) or not np.isfinite(norm):
        raise Diverged(f"step {run.step}: loss {loss.item()}, gradient {norm}; try a lower learning_rate")
    run.optimiser.step()
    follow(run.average, run.model, run.step, config.ema)
    run.step += 1
    return {"loss": loss.item(), "gradient": norm, **{name: part.item() for name, part in parts.items()}}


def log(folder: Path, record: dict[str, Any]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def train(
    config: DetectorConfig, folder: Path, photographs: Photographs, selection: list[Photograph]
) -> Path:
    """Train to the end of `config.epochs`, resuming `folder`. Returns the path of the last checkpoint."""
    torch.set_num_threads(config.threads)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config.model_dump_json(indent=2))
    run, last = build(config), folder / "last.pt"
    if last.is_file():
        run.restore(checkpoint.load(last), last)
    forward: Callable[[Tensor], Outputs] = torch.compile(run.model) if config.compile else run.model
    per_epoch = max(1, len(photographs) // config.batch)
    total, evaluate = int(config.epochs * per_epoch), max(1, int(config.evaluate_epochs * per_epoch))
    run.model.train()
    saved = time.monotonic()
    with tqdm(
        total=total, initial=run.step, unit="step", desc="detector", mininterval=10, smoothing=0.05
    ) as bar:
        while run.step < total:
            record = _timed_step(run, forward, photographs, total, config)
            bar.update()
            bar.set_postfix(
                {name: f"{record[name]:.3f}" for name in ("loss", "gradient", *PARTS)}, refresh=False
            )
            at_end = run.step == total
            if run.step % LOG_STEPS == 0 or at_end:
                log(folder, {"step": run.step, "epoch": run.step / per_epoch, **record})
            if run.step % evaluate == 0 or at_end:
                results = select(run.average, selection, config)
                log(folder, {"step": run.step, "epoch": run.step / per_epoch, **results})
                tqdm.write(f"step {run.step}: " + ", ".join(f"{k} {v:.4f}" for k, v in results.items()))
            if time.monotonic() - saved > 60 * config.checkpoint_minutes or at_end:
                checkpoint.save(last, run.state(config))
                saved = time.monotonic()
    return last


def _timed_step(
    run: Run,
    forward: Callable[[Tensor], Outputs],
    photographs: Photographs,
    total: int,
    config: DetectorConfig,
) -> dict[str, float]:
    """Set the rate, draw the batch, step. Returns what `train_step` does, the rate's factor and the pace."""
    factor = warmup_stable_decay(run.step, total, config.warmup_steps, int(config.decay_share * total))
    for group in run.optimiser.param_groups:
        group["lr"] = config.learning_rate * factor
    started = time.perf_counter()
    batch = batch_of(photographs, run.step, config)
    drawn = time.perf_counter()
    parts = train_step(run, forward, batch, config)
    seconds = time.perf_counter() - started
    return {
        "factor": factor,
        "img/s": config.batch / seconds,
        "data_share": (drawn - started) / seconds,
        **parts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="train the detector on photographs with boxed faces")
    parser.add_argument("--config", type=Path, default=Path("training/configs/detector.toml"))
    parser.add_argument("--run", type=Path, default=Path("runs/detector/default"))
    parser.add_argument(
        "--epochs", type=float, help="instead of the configuration's, to end a run earlier or later"
    )
    arguments = parser.parse_args()
    config = read_config(DetectorConfig, arguments.config)
    if arguments.epochs:
        config = config.model_copy(update={"epochs": arguments.epochs})
    data = datasets()
    if data is None:
        raise SystemExit(
            "no data sets found: set FACET_DATASETS, or run `make train-and-publish` for the synthetic set"
        )
    photographs = load(data, arguments.run.parent / "landmarks.npz", config.longest)
    train(config, arguments.run, photographs, list(wider(data / "wider", "selection")))


if __name__ == "__main__":
    main()
