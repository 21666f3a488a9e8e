"""What more data brings, and a teacher: the same recipe on a part of the people, measured for the report.

    python -m training ablate --config training/configs/embedder_alone.toml --shares 1 0.5 0.25

Every share trains as many steps, so that the curve shows the data and not the time. Stopped at any moment, the same
command goes on, and measures what is finished anew; the next publishing's report has what `runs/ablations.json` holds
by then.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from training.config import REPOSITORY, BadConfig, datasets, read_config
from training.data.identities import Faces
from training.embedder.command import splits, teacher_for
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import Teacher
from training.embedder.sampling import sampler_of
from training.embedder.train import train
from training.embedder.validation import embed
from training.evaluation.ablations import FILE, Ablation, read_ablations, write_ablations
from training.evaluation.verification import ten_folds
from training.export.checkpoints import trained_embedder
from training.export.measure import verification_pairs
from training.loop.distributed import ALONE

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

SEED = 0  # of the draw: a smaller share's people are among those of a larger one


def part_of(faces: Faces, share: float) -> Faces:
    """All faces of that share of the people, at least two of them, drawn at random; labels are dense again."""
    people = np.random.default_rng(SEED).permutation(faces.identities)
    chosen = np.sort(people[: max(2, math.ceil(share * len(people)))])
    rows = np.flatnonzero(np.isin(faces.label, chosen))
    return replace(
        faces,
        pictures=faces.pictures[rows],
        identity=faces.identity[rows],
        label=np.searchsorted(chosen, faces.label[rows]),
        family=faces.family[rows],
        similarity=faces.similarity[rows],
        source=faces.source[rows],
        people=faces.people[chosen] if len(faces.people) else faces.people,
    )


def ablate(
    config: EmbedderConfig,
    run: Path,
    faces: Faces,
    validation: Faces,
    share: float,
    teacher: Teacher | None,
    data: Path | None = None,
) -> Ablation:
    """Train on a share of the people, as many steps as the configuration makes of all, and measure. `run` resumes.

    data: the folder of data sets, with LFW in it or not. Raises what `train` raises, and TooFewImpostors where
    validation cannot carry the FMR.
    """
    part = part_of(faces, share)
    of_all, of_part = (sampler_of(config, those, ALONE).batches_per_epoch for those in (faces, part))
    epochs = (int(config.epochs * of_all) + 0.5) / of_part  # the half keeps rounding from losing a step
    last = train(config.model_copy(update={"epochs": epochs}), run, part, validation, teacher)
    trained = trained_embedder(last)
    return Ablation.measured(
        run.name,
        embed(trained.model, validation.crops()),
        validation,
        identities=part.identities,
        faces=len(part),
        steps=trained.step,
        distilled=config.distilled,
        lfw=_on_lfw(trained.model, data) if data else None,
    )


def _on_lfw(model: nn.Module, data: Path) -> tuple[float, float] | None:
    """Accuracy over the folds and its standard error, 0–1, of one crop without flip; None where there are no folds."""
    pairs = verification_pairs(data)
    if pairs is None or pairs.folds < 2:
        return None
    return ten_folds(pairs.similarity(embed(model, pairs.crops)), pairs.same, pairs.folds)


def _ablate(asked: argparse.Namespace) -> None:
    if not asked.config.is_file():
        raise BadConfig(f"--config {asked.config}: no such file")
    if wrong := [share for share in asked.shares if not 0 < share <= 1]:
        raise BadConfig(f"--shares {wrong[0]:g}: a share of the people is above 0 and at most 1")
    config, file = read_config(EmbedderConfig, asked.config), asked.runs / FILE
    before = {of.name: of for of in read_ablations(file)}
    teacher, (faces, validation) = teacher_for(config, asked.teacher, ALONE), splits(asked.faces)
    name = asked.config.parent.name if asked.config.suffix == ".json" else asked.config.stem
    for share in asked.shares:
        run = asked.runs / "ablations" / f"{name}-{share:g}"
        of = ablate(config, run, faces, validation, share, teacher, datasets())
        before[of.name] = of
        write_ablations(file, list(before.values()))
        on_lfw = f", LFW {of.lfw:.2%} ± {of.lfw_error:.2%}" if of.lfw is not None else ""
        print(
            f"{of.name}: FNMR {of.fnmr.value:.1%} ({of.fnmr.low:.1%} to {of.fnmr.high:.1%}){on_lfw}; kept in {file}"
        )


def add_ablate(verbs: Verbs) -> None:
    """The verb `ablate`."""
    text = "train the embedder on shares of the people, and keep for the report what each gave"
    verb = verbs.add_parser("ablate", help=text, description=text)
    verb.set_defaults(act=_ablate)
    verb.add_argument("--config", type=Path, required=True, help="TOML of the runs, or a run's config.json")
    verb.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[1.0, 0.5, 0.25],
        help="of the people, one run each (default: 1 0.5 0.25)",
    )
    verb.add_argument(
        "--runs",
        type=Path,
        default=REPOSITORY / "runs",
        help="where runs are kept and resumed, and the result",
    )
    verb.add_argument("--faces", type=Path, help="a set of faces (default: the data sets' own)")
    verb.add_argument("--teacher", type=Path, help="as of the embedder's training")
