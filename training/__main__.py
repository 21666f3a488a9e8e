"""`python -m training`: each step of training by itself, or all of them from data to a published bundle."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from training.loop.stop import in_one_line

if __name__ == "__main__":
    sys.excepthook = in_one_line  # before torch, which takes seconds to import
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: its pool would take every core for every small thing

from bundle.folder import BundleError
from training.ablate import add_ablate
from training.config import REPOSITORY, BadConfig, datasets, read_config
from training.data.annotations.checking import add_verb
from training.data.annotations.marking import add_marking
from training.data.annotations.writing import add_writing
from training.data.identities import BadData, load_faces
from training.data.synthetic import SMALL, SyntheticSize, write_synthetic
from training.detector import train as detector
from training.detector.command import teacher_for
from training.detector.config import DetectorConfig
from training.detector.material import bare, boxed, load, measured, own, selected
from training.detector.remarks import switched_off
from training.embedder import train as embedder
from training.embedder.config import EmbedderConfig
from training.embedder.distillation import ReferenceEmbedder
from training.evaluation.calibration import TooFewPeople
from training.evaluation.detection_report import detection_part
from training.evaluation.floors import Floors
from training.evaluation.recognition_report import validation_line
from training.evaluation.verification import TooFewImpostors
from training.export.parity import ParityFailed
from training.export.sensitivity import add_sensitivity_verb
from training.export.suppression import add_one_graph_verb
from training.gates import Policy
from training.landmarks import add_landmarks
from training.loop.ending import EXPECTED as ALWAYS_EXPECTED
from training.loop.ending import in_words
from training.order import Order
from training.prepare import add_verbs, bundle_finder
from training.publish import Refused, evaluate, publish
from training.verify import add_verify

CONFIGS = Path(__file__).resolve().parent / "configs"


class TrainingFailed(Exception):
    """The training in the process beside ended early; the message is its last line."""


EXPECTED = (
    *ALWAYS_EXPECTED,
    BadData,
    BundleError,
    ParityFailed,
    Refused,
    TooFewImpostors,
    TooFewPeople,
    TrainingFailed,
)


@dataclass(frozen=True)
class Recipe:
    """Which data, which configurations, and where runs and the bundle go: real or drawn, never mixed."""

    data: Path | None  # None: drawn into `runs`
    configs: Path
    runs: Path
    to: Path
    size: SyntheticSize | None

    @property
    def synthetic(self) -> bool:
        return self.data is None

    @property
    def landmarks(self) -> Path:
        return self.runs / "detector" / "landmarks.npz"

    def source(self) -> Path:
        """The folder of data sets, drawn first where there is none."""
        return self.data or write_synthetic(self.runs / "data", self.size or SyntheticSize(), self.landmarks)


def recipe(synthetic: str | None, runs: Path = REPOSITORY / "runs") -> Recipe:
    """The real data's recipe where there is data; `synthetic` ("full", "small") asks for the drawn one regardless."""
    found = None if synthetic else datasets()
    if found:
        return Recipe(found, CONFIGS, runs, REPOSITORY / "models" / "default", None)
    small = synthetic == "small"
    name = "synthetic-small" if small else "synthetic"
    size = SMALL if small else SyntheticSize()
    return Recipe(None, CONFIGS / name, runs / name, REPOSITORY / "models" / "synthetic", size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0, or 1 with one line that says why, or 130 where it was stopped."""
    asked = _parser().parse_args(arguments)
    try:
        return int(asked.act(asked) or 0)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is finished", file=sys.stderr)
        return 130
    except EXPECTED as error:
        print(f"{'refused' if isinstance(error, Refused) else 'failed'}: {in_words(error)}", file=sys.stderr)
        return 1


def train_and_publish(asked: argparse.Namespace) -> None:
    """Data → both trainings, resumed where they stopped → evaluate → export → parity → calibrate → publish."""
    plan = recipe(asked.synthetic, asked.runs)
    if plan.synthetic:
        print(
            f"no data sets used: everything is drawn; the bundle goes to {asked.to or plan.to}, models/default stays"
        )
    else:
        print(f"data sets: {plan.data}")
    _refuse_early(plan, asked)
    if not asked.detector_teacher:
        for line in switched_off(read_config(DetectorConfig, plan.configs / "detector.toml")):
            print(line)
    data = plan.source()
    with _beside(plan, asked) as detector_done:
        embedder_at = _train_embedder(plan, data, asked)
        detector_at = detector_done()
    _publish(plan, data, embedder_at, detector_at, asked)


def _refuse_early(plan: Recipe, asked: argparse.Namespace) -> None:
    """What the detector's training would find out in its own process, while the embedder trains for hours."""
    given = (asked.detector_teacher, *asked.photographs, *asked.also_boxed)
    if plan.synthetic and any(given):
        raise BadConfig(
            "drawn data take no --detector-teacher, --photographs or --also-boxed: what is published is drawn alone"
        )
    if asked.photographs and not asked.detector_teacher:
        raise BadConfig("--photographs are pictures without boxes: they need a --detector-teacher")
    for path in (*asked.photographs, *asked.also_boxed):
        if not path.exists():
            raise BadData(f"{path}: no such folder of photographs")
    teacher_for(read_config(DetectorConfig, plan.configs / "detector.toml"), asked.detector_teacher)


@contextmanager
def _beside(plan: Recipe, asked: argparse.Namespace) -> Iterator[Callable[[], Path]]:
    """The detector's training in a process of its own: one core each is faster than two for one after the other.

    Yields what waits for its checkpoint, or raises TrainingFailed. Leaving early ends it; it resumes next time.
    """
    run = plan.runs / "detector" / "default"
    run.mkdir(parents=True, exist_ok=True)
    verb = [sys.executable, "-m", "training", "detector", "--runs", str(asked.runs.resolve())]
    verb += ["--synthetic", asked.synthetic] if asked.synthetic else []
    verb += ["--threads", str(asked.threads)] if asked.threads else []
    verb += ["--detector-teacher", str(asked.detector_teacher.resolve())] if asked.detector_teacher else []
    for option, paths in (("--photographs", asked.photographs), ("--also-boxed", asked.also_boxed)):
        verb += [option, *(str(path.resolve()) for path in paths)] if paths else []
    print(f"the detector trains beside the embedder; its progress: {run / 'train.log'}")
    with (run / "train.log").open("wb") as log:
        process = subprocess.Popen(verb, stdout=log, stderr=log, cwd=REPOSITORY)

    def done() -> Path:
        if process.wait():
            lines = (run / "train.log").read_text(errors="replace").strip().splitlines()
            raise TrainingFailed(
                f"the detector's training ended with {process.returncode}: {lines[-1] if lines else ''}"
            )
        return run / "last.pt"

    try:
        yield done
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _train_embedder(plan: Recipe, data: Path, asked: argparse.Namespace) -> Path:
    config = read_config(EmbedderConfig, plan.configs / "embedder.toml")
    config = config.model_copy(update={"threads": asked.threads or config.threads})
    reference = data / "reference" / "MobileFaceNet.onnx"
    teacher = ReferenceEmbedder(reference) if config.distilled and reference.is_file() else None
    faces = data / "faces"
    run = plan.runs / "embedder" / "default"
    return embedder.train(config, run, load_faces(faces, "train"), load_faces(faces, "validation"), teacher)


def _train_detector(plan: Recipe, data: Path, asked: argparse.Namespace) -> Path:
    _refuse_early(plan, asked)
    config = read_config(DetectorConfig, plan.configs / "detector.toml")
    config = config.model_copy(update={"threads": asked.threads or config.threads})
    teacher = teacher_for(config, asked.detector_teacher)
    run, longest, dense = plan.runs / "detector" / "default", config.longest, teacher.name if teacher else ""
    sources = own(data, plan.landmarks, longest, dense)
    sources += [boxed(path, longest, dense) for path in asked.also_boxed]
    sources += [bare(folder, longest, dense) for folder in asked.photographs]
    apart = measured(data, run.parent)
    photographs = load(sources, run.parent, longest, encoded=config.encoded, apart=apart)
    return detector.train(config, run, photographs, selected(sources, apart), teacher)


def _publish(
    plan: Recipe, data: Path, embedder_at: Path, detector_at: Path, asked: argparse.Namespace
) -> None:
    bundle = publish(_order(plan, data, embedder_at, detector_at, asked))
    print((bundle.path / "REPORT.md").read_text().split("## Limits")[0])
    print(f"published {bundle.manifest.model_id} at {bundle.path}")


def _order(
    plan: Recipe, data: Path, embedder_at: Path, detector_at: Path, asked: argparse.Namespace
) -> Order:
    to = asked.to or plan.to
    if plan.synthetic and to.resolve() == REPOSITORY / "models" / "default":
        raise Refused(["a bundle made from drawn pictures never replaces models/default"])
    return Order(
        embedder=embedder_at,
        detector=detector_at,
        data=data,
        to=to,
        work=plan.runs / "publish",
        floors=read_config(Floors, asked.floors or plan.configs / "floors.toml"),
        policy=read_config(Policy, asked.gates or plan.configs / "gates.toml"),
        first=asked.first,
        without_faces=asked.faceless,
        command=shlex.join(["python", "-m", "training", *sys.argv[1:]]),
        synthetic=plan.synthetic,
        name=asked.name,
        version=asked.version,
        threads=asked.threads or 1,
    )


def _only_publish(asked: argparse.Namespace) -> None:
    plan = recipe(asked.synthetic, asked.runs)
    _publish(plan, plan.source(), *_checkpoints(plan, asked), asked)


def _only_evaluate(asked: argparse.Namespace) -> None:
    plan = recipe(asked.synthetic, asked.runs)
    results = evaluate(_order(plan, plan.source(), *_checkpoints(plan, asked), asked))
    print(detection_part(results.detection, results.aligned, drawn=plan.synthetic))
    print(validation_line(results))
    print("\n".join(map(str, results.verdicts)))


def _checkpoints(plan: Recipe, asked: argparse.Namespace) -> tuple[Path, Path]:
    default = [plan.runs / name / "default" / "last.pt" for name in ("embedder", "detector")]
    return asked.embedder or default[0], asked.detector or default[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training", description="train the models and publish the bundle"
    )
    verbs = parser.add_subparsers(required=True, metavar="verb")
    for name, text, act in (
        ("train-and-publish", "everything, from data to a published bundle", train_and_publish),
        ("embedder", "train the embedder", lambda asked: _only_train(_train_embedder, asked)),
        ("detector", "train the detector", lambda asked: _only_train(_train_detector, asked)),
        ("evaluate", "measure two models as served", _only_evaluate),
        ("publish", "evaluate, calibrate and publish two models", _only_publish),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(act=act)
        verb.add_argument("--synthetic", choices=["full", "small"], help="draw the data, whatever is present")
        verb.add_argument(
            "--runs", type=Path, default=REPOSITORY / "runs", help="where runs are kept and resumed"
        )
        verb.add_argument("--threads", type=int, help="for training and for the runtime")
        if name in ("train-and-publish", "detector"):
            _add_material(verb)
        if name in ("evaluate", "publish"):
            verb.add_argument("--embedder", type=Path, help="a checkpoint (default: of the default run)")
            verb.add_argument(
                "--detector",
                type=Path,
                help="a checkpoint (default: of the default run), or a bundle's folder: its detector is taken over",
            )
        if name in ("train-and-publish", "evaluate", "publish"):
            verb.add_argument(
                "--to", type=Path, help="the bundle's folder (default: models/default, models/synthetic)"
            )
            verb.add_argument(
                "--faceless", type=Path, metavar="DIR", help="pictures without faces, to count false ones on"
            )
            verb.add_argument("--floors", type=Path, help="TOML of the floors to hold")
            verb.add_argument("--gates", type=Path, help="TOML of the promotion gates to pass")
            verb.add_argument(
                "--first", action="store_true", help="compare with no bundle that stands there already"
            )
            verb.add_argument("--name", default="", help="of the bundle (default: the folder's)")
            verb.add_argument("--version", default="", help="of the bundle (default: today)")
    add_verbs(verbs)
    add_verb(verbs)
    add_marking(verbs, bundle_finder)
    add_writing(verbs)
    add_ablate(verbs)
    add_landmarks(verbs)
    add_verify(verbs)
    add_sensitivity_verb(verbs)
    add_one_graph_verb(verbs)
    return parser


def _add_material(verb: argparse.ArgumentParser) -> None:
    """What the detector may learn from beside the data sets' labels."""
    verb.add_argument(
        "--detector-teacher", type=Path, help="an SCRFD graph (ONNX): the detector's dense teacher"
    )
    verb.add_argument(
        "--photographs", type=Path, nargs="+", default=[], metavar="DIR", help="pictures for that teacher"
    )
    verb.add_argument(
        "--also-boxed", type=Path, nargs="+", default=[], metavar="SET", help="boxed photographs besides"
    )


def _only_train(step: Callable[[Recipe, Path, argparse.Namespace], Path], asked: argparse.Namespace) -> None:
    plan = recipe(asked.synthetic, asked.runs)
    print(f"checkpoint: {step(plan, plan.source(), asked)}")


if __name__ == "__main__":
    sys.exit(main())
