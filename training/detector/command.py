"""The command `python -m training.detector.train`: what it is asked, on which photographs, and how it ends."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.config import REPOSITORY, BadConfig, datasets, read_config
from training.data.annotations.sources import SUPPORTED
from training.data.crops import TooManyUnread
from training.data.identities import BadData
from training.data.photographs import Photograph
from training.detector.config import DetectorConfig
from training.detector.dataset import Photographs
from training.detector.material import Source, bare, boxed, load, measured, own, selected
from training.detector.sweep import find_rate
from training.detector.teacher import Teacher
from training.detector.train import train
from training.loop.agreement import by_the_first
from training.loop.distributed import World, start
from training.loop.ending import ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the status of the process, see `ended`."""
    asked = _parser().parse_args(arguments)
    return ended(lambda: _run(asked), asked.run / "last.pt", (BadData,), (TooManyUnread,))


def _run(asked: argparse.Namespace) -> None:
    if not asked.config.is_file():
        raise BadConfig(f"--config {asked.config}: no such file")
    config = read_config(DetectorConfig, asked.config)
    if asked.epochs is not None:
        if not 0 < asked.epochs < math.inf:
            raise BadConfig(f"--epochs {asked.epochs:g}: a number above 0")
        config = config.model_copy(update={"epochs": asked.epochs})
    with start(config.device) as world:
        teacher = teacher_for(config, asked.teacher)
        photographs, selection = splits(asked, config, teacher, world)
        if not asked.find_rate:
            train(config, asked.run, photographs, selection, teacher, world, asked.begin_from)
            return
        rate = find_rate(config, asked.run, photographs, teacher, world)
        if world.first:
            print(f"suggested learning_rate: {rate:.2g}; the sweep is drawn in {asked.run}/learning-rate.png")


def teacher_for(config: DetectorConfig, path: Path | None) -> Teacher | None:
    """The dense teacher at `path`, if any. Raises BadData for what is none, BadConfig where it would have no weight."""
    if path is None:
        return None
    if not config.teacher.asked:
        raise BadConfig("the configuration gives a teacher no weight: set teacher.weight, or give none")
    return Teacher(path, config.teacher.layers, config.threads)


def splits(
    asked: argparse.Namespace, config: DetectorConfig, teacher: Teacher | None, world: World
) -> tuple[Photographs, list[Photograph]]:
    """Training and selection photographs. The first process reads before the others: it writes the caches."""
    found: list[tuple[Photographs, list[Photograph]]] = []

    def read() -> None:
        sources = _sources(asked, config.longest, teacher.name if teacher else "")
        apart = measured(datasets(), asked.run.parent)
        training = load(sources, asked.run.parent, config.longest, encoded=config.encoded, apart=apart)
        found.append((training, selected(sources, apart)))

    by_the_first(read, world)
    if not found:
        read()
    return found[0]


def _sources(asked: argparse.Namespace, longest: int, dense: str) -> list[Source]:
    """Those that are named, and the data sets' own unless `--boxed` replaces them."""
    if asked.photographs and not dense:
        raise BadConfig(
            "--photographs are pictures without boxes: they need a --teacher to say what is on them"
        )
    sources: list[Source] = []
    if not asked.boxed:
        data = datasets()
        if data is None:
            raise BadData(
                "no data sets found: set FACET_DATASETS, give --boxed, or run `make train-and-publish` for drawn ones"
            )
        sources += own(data, asked.run.parent / "landmarks.npz", longest, dense)
    for path in (*asked.boxed, *asked.also_boxed):
        sources.append(boxed(path, longest, dense, pictures=asked.pictures, faces=asked.faces))
    return sources + [bare(folder, longest, dense) for folder in asked.photographs]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.detector.train",
        description="Train the detector on boxed photographs. Stopped at any moment, the same command goes on.",
        epilog=SUPPORTED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=REPOSITORY / "training/configs/detector.toml",
        help="TOML of the run, or the config.json that another left (default: the default bundle's recipe)",
    )
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/detector/default"),
        help="folder of its checkpoints and records (default: %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=float, help="instead of the configuration's, to end a run earlier or later"
    )
    several: dict[str, Any] = {"type": Path, "nargs": "+", "default": []}
    parser.add_argument(
        "--boxed", **several, metavar="SET", help="boxed photographs, instead of the data sets' own"
    )
    parser.add_argument("--also-boxed", **several, metavar="SET", help="boxed photographs besides")
    parser.add_argument("--pictures", type=Path, help="their folder, where it is not near a set's list")
    parser.add_argument("--faces", nargs="+", metavar="CLASS", help="which classes are faces")
    parser.add_argument(
        "--teacher", type=Path, help="an SCRFD graph (ONNX): a dense teacher, on boxed and other pictures"
    )
    parser.add_argument(
        "--photographs", **several, metavar="DIR", help="pictures that nobody boxed, for the teacher"
    )
    parser.add_argument(
        "--begin-from", type=Path, help="another run's checkpoint whose weights a new run starts with"
    )
    parser.add_argument(
        "--find-rate", action="store_true", help="sweep the learning rate instead of training"
    )
    return parser
