"""The command `python -m training.embedder.train`: what it is asked, on which faces, and how it ends."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from training.config import REPOSITORY, BadConfig, datasets, read_config
from training.data.identities import BadData, Faces, load_faces
from training.data.sources import open_faces
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import Teacher, open_teacher
from training.embedder.sweep import find_rate
from training.embedder.train import train
from training.loop.distributed import World, start
from training.loop.ending import ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the status of the process, see `ended`."""
    asked = _parser().parse_args(arguments)
    return ended(lambda: _run(asked), asked.run / "last.pt", (BadData,))


def _run(asked: argparse.Namespace) -> None:
    if not asked.config.is_file():
        raise BadConfig(f"--config {asked.config}: no such file")
    if asked.run.exists() and not asked.run.is_dir():
        raise BadConfig(f"--run {asked.run}: not a folder; a run's checkpoints and records need one")
    config = read_config(EmbedderConfig, asked.config)
    with start(config.device) as world:
        teacher = teacher_for(config, asked.teacher, world)
        faces, validation = splits(asked.faces)
        if not asked.find_rate:
            train(config, asked.run, faces, validation, teacher, world, asked.begin_from)
            return
        rate = find_rate(config, asked.run, faces, teacher, world)
        if world.first:
            print(f"suggested learning_rate: {rate:.2g}; the sweep is drawn in {asked.run}/learning-rate.png")


def teacher_for(config: EmbedderConfig, path: Path | None, world: World) -> Teacher | None:
    """The teacher at `path`, else the reference embedder; None where nothing is distilled. Raises BadConfig."""
    if not config.distilled:
        return None
    data = datasets()
    chosen = path or (data / "reference" / "MobileFaceNet.onnx" if data else None)
    if chosen is None:
        raise BadConfig("the configuration distils, but there is no teacher: give --teacher")
    return open_teacher(chosen, config.threads, world.device)


def splits(path: Path | None) -> tuple[Faces, Faces]:
    """Training and validation people. A set without a split is all for training: validation is the data sets'."""
    data = datasets()
    own = path or (data / "faces" if data else None)
    if own is None:
        raise BadData(
            "no data sets found: set FACET_DATASETS, give --faces, or run `make train-and-publish` for drawn ones"
        )
    if (own / "pairs.txt").is_file():
        raise BadData(f"{own} holds pairs.txt: a set to verify on; trained on, its figures would say nothing")
    if (own / "split.csv").is_file():
        return open_faces(own, "train"), open_faces(own, "validation")
    if data is None:
        raise BadData(
            f"{own} has no split.csv and there are no data sets to validate on: align it into a set first"
        )
    return open_faces(own), load_faces(data / "faces", "validation")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.embedder.train",
        description="Train the embedder on labelled faces. Stopped at any moment, the same command goes on.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=REPOSITORY / "training/configs/embedder.toml",
        help="TOML of the run, or the config.json that another left (default: the default bundle's recipe)",
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
