"""Publishing is all or nothing: floors and parity decide, the old bundle stays, and a program can read why."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bundle.folder import open_bundle
from training import __main__ as command
from training import publish as publishing
from training.data.identities import load_faces
from training.detector.config import DetectorConfig
from training.detector.train import build as build_detector
from training.embedder.config import EmbedderConfig
from training.embedder.train import build as build_embedder
from training.evaluation.floors import Floors
from training.export import measure
from training.loop import checkpoint
from training.publish import Order, Refused, evaluate, publish

NO_FLOORS = Floors(lfw_least=0, fnmr_ratio_most=math.inf, recall_least=0)
EMBEDDER = EmbedderConfig(dimension=16, distillation_weight=0, compile=False)
DETECTOR = DetectorConfig(widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), pyramid=16, compile=False)


@pytest.fixture(scope="module")
def checkpoints(drawn_sets, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Untrained models whose statistics fit the drawn faces: their answers differ from face to face."""
    folder = tmp_path_factory.mktemp("runs")
    faces = load_faces(drawn_sets.root / "faces", "train")
    student, detector = build_embedder(EMBEDDER, faces, None), build_detector(DETECTOR)
    seen = torch.from_numpy(faces.crops().copy()).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
    for model in (student.average, detector.average):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = None
        with torch.no_grad():
            model(seen[:, :, :96, :96] if model is detector.average else seen)
    student.average.load_state_dict(student.average.eval().state_dict())
    checkpoint.save(folder / "embedder" / "last.pt", student.state(EMBEDDER))
    checkpoint.save(folder / "detector" / "last.pt", detector.state(DETECTOR))
    (folder / "embedder" / "metrics.jsonl").write_text(
        '{"step": 20, "loss": 3.0}\n{"step": 40, "loss": 2.0}\n'
    )
    return folder / "embedder" / "last.pt", folder / "detector" / "last.pt"


@pytest.fixture(scope="module")
def order(checkpoints: tuple[Path, Path], drawn_sets, tmp_path_factory: pytest.TempPathFactory) -> Order:
    folder = tmp_path_factory.mktemp("published")
    return Order(
        *checkpoints,
        data=drawn_sets.root,
        to=folder / "models" / "synthetic",
        work=folder / "work",
        floors=NO_FLOORS,
        command="python -m training publish",
        synthetic=True,
    )


@pytest.fixture(scope="module")
def published(order: Order):
    return publish(order)


def outcome(order: Order) -> dict:
    return json.loads((order.work / "outcome.json").read_text())


def test_the_bundle_is_whole_and_says_what_it_is(published, order: Order) -> None:
    bundle = open_bundle(order.to)
    manifest = bundle.manifest
    assert manifest.name == "synthetic"
    assert manifest.licence.id == "commercial"
    assert manifest.embedder.dimension == 16
    assert set(manifest.files) == {
        "embedder.onnx",
        "detector.onnx",
        "embedder.prelu-rewrite.onnx",
        "REPORT.md",
        "report-recognition.png",
        "report-detection.png",
        "report-calibration.png",
        "report-training.png",
    }
    assert outcome(order)["published"] is True
    assert outcome(order)["model_id"] == manifest.model_id


def test_the_variant_is_of_the_canonical_embedder(published) -> None:
    manifest = published.manifest
    (variant,) = manifest.variants
    assert (variant.of, variant.kind, variant.backends) == ("embedder", "prelu-rewrite", ("onnxruntime",))
    assert variant.derived_from == manifest.files["embedder.onnx"].sha256
    assert variant.cost["difference_most"] <= 1e-4


def test_provenance_is_enough_to_make_it_again(published, order: Order) -> None:
    provenance = published.manifest.provenance
    assert [line.split(" sha256:")[0] for line in provenance.datasets] == ["faces", "lfw", "masks", "wider"]
    assert provenance.configs["embedder"]["dimension"] == 16
    assert provenance.configs["detector"]["pyramid"] == 16
    assert provenance.command == order.command


def test_the_calibration_rests_on_its_split_alone(published, drawn_sets) -> None:
    calibration = published.manifest.calibration
    assert (calibration.people, calibration.pictures) == (60, 120)
    assert calibration.embedder == published.manifest.files["embedder.onnx"].sha256
    assert 0 < calibration.threshold_for_fmr(0.1).value < 1


def test_evaluating_reads_no_calibration_face_and_publishes_nothing(
    order: Order, monkeypatch, tmp_path: Path
) -> None:
    read: list[str] = []

    def watched(root: Path, split: str):
        read.append(split)
        return load_faces(root, split)

    monkeypatch.setattr(measure, "load_faces", watched)
    monkeypatch.setattr(publishing, "load_faces", watched)
    results = evaluate(replace(order, to=tmp_path / "none", work=tmp_path / "work"))
    assert set(read) == {"validation"}
    assert not (tmp_path / "none").exists()
    assert 0 <= results.finding[0].at_one.recall <= 1


@pytest.mark.parametrize(
    ("floors", "reason"),
    [
        (Floors(lfw_least=1.0, fnmr_ratio_most=math.inf, recall_least=0), "LFW accuracy"),
        (Floors(lfw_least=0, fnmr_ratio_most=math.inf, recall_least=1.0), "recall at 1 false positive"),
        (Floors(lfw_least=0, fnmr_ratio_most=2.5, recall_least=0), "not assessed"),
    ],
)
def test_below_a_floor_the_old_bundle_stays_and_the_reason_is_kept(
    published, order: Order, floors: Floors, reason: str
) -> None:
    before = {of.name: of.read_bytes() for of in order.to.iterdir()}
    with pytest.raises(Refused, match=reason):
        publish(replace(order, floors=floors))
    assert {of.name: of.read_bytes() for of in order.to.iterdir()} == before
    told = outcome(order)
    assert told["published"] is False
    assert any(reason in line for line in told["reasons"])
    assert sum(not of["holds"] for of in told["floors"]) == len(told["reasons"])


def test_graphs_that_differ_from_their_models_are_not_published(
    order: Order, tmp_path: Path, monkeypatch
) -> None:
    from training.export import parity

    monkeypatch.setattr(parity, "DIFFERENCE_MOST", -1.0)
    with pytest.raises(Refused, match=r"parity: embedder\.onnx"):
        publish(replace(order, to=tmp_path / "none", work=tmp_path / "work"))
    assert not (tmp_path / "none").exists()
    assert outcome(replace(order, work=tmp_path / "work"))["reasons"]


def test_training_on_an_evaluation_picture_is_refused(order: Order, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(publishing, "likenesses", lambda data, cache: [("train/a", "val/b")])
    with pytest.raises(Refused, match="1 training photographs look like a validation photograph"):
        publish(replace(order, to=tmp_path / "none", work=tmp_path / "work"))


def test_a_checkpoint_of_the_other_kind_or_none_is_refused_by_name(order: Order, tmp_path: Path) -> None:
    elsewhere = replace(order, to=tmp_path / "none", work=tmp_path / "work")
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="not a checkpoint of the embedder"):
        publish(replace(elsewhere, embedder=order.detector))
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="train the detector first"):
        publish(replace(elsewhere, detector=tmp_path / "absent.pt"))
    assert outcome(elsewhere)["reasons"] == [
        f"UnreadableCheckpoint: {tmp_path / 'absent.pt'}: no such checkpoint; train the detector first"
    ]


def test_drawn_pictures_never_replace_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    default = command.REPOSITORY / "models" / "default"
    before = sorted(default.iterdir()) if default.exists() else None
    plan = command.recipe("small")
    asked = command._parser().parse_args(["publish", "--synthetic", "small", "--to", str(default)])
    with pytest.raises(Refused, match="never replaces models/default"):
        command._order(plan, Path("/nowhere"), Path("a"), Path("b"), asked)
    assert (sorted(default.iterdir()) if default.exists() else None) == before


def test_without_data_the_drawn_recipe_is_taken_and_it_publishes_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "datasets", lambda: None)
    assert command.recipe(None).synthetic
    assert command.recipe(None).to.name == "synthetic"
    monkeypatch.setattr(command, "datasets", lambda: tmp_path)
    plan = command.recipe(None)
    assert (plan.data, plan.to.name) == (tmp_path, "default")


def test_a_wrong_folder_of_data_ends_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FACET_DATASETS", str(tmp_path / "absent"))
    assert command.main(["evaluate"]) == 1
    assert capsys.readouterr().err == f"failed: FACET_DATASETS={tmp_path / 'absent'}: no such folder\n"


def test_metrics_in_the_manifest_are_those_of_the_report(published) -> None:
    metrics = published.manifest.metrics
    text = published.file("REPORT.md").read_text()
    accuracy = metrics["recognition"]["facet"]["lfw"]["accuracy"]
    assert f"{accuracy:.2%}" in text
    assert f"{metrics['detection']['facet']['recall@1fp']:.2%}" in text
    assert np.isfinite(accuracy)
