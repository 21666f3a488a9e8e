"""Publishing is all or nothing: the gates decide, the old bundle stays byte for byte, and a program can read why."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.folder import BundleTampered, open_bundle
from bundle.sentinel import check
from tests.training.evaluation.test_aligned import OURS as THROUGH
from tests.training.evaluation.test_aligned import YUNET
from tests.training.untrained import FACES, LINEAGE, NO_FLOORS, POLICY, SCENES, paced
from training import __main__ as command
from training import incumbent
from training import publish as publishing
from training.data.identities import load_faces
from training.evaluation.aligned import write_aligned
from training.evaluation.bootstrap import Interval
from training.export import measure
from training.export.difference import DetectorDifference
from training.export.sessions import ServedGraph
from training.loop import checkpoint
from training.loop.records import (
    TeacherRecord,
    learnt_from,
    records_of,
)
from training.order import Order
from training.publish import Refused, evaluate, publish


@pytest.fixture(autouse=True, scope="module")
def at_one_pace() -> Iterator[None]:
    with paced():
        yield


@pytest.fixture(scope="module")
def kept() -> dict[str, object]:
    return {}


def once(name: str, kept: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    made = getattr(publishing, name)

    def remembered(*arguments: object) -> object:
        if name not in kept:
            kept[name] = made(*arguments)
        return kept[name]

    monkeypatch.setattr(publishing, name, remembered)


@pytest.fixture
def exported_once(kept: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """The graphs are those of the first time."""
    once("_graphs", kept, monkeypatch)


@pytest.fixture
def measured_once(exported_once: None, kept: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs and results are those of the first time: what is tested is what is decided on them."""
    once("measured", kept, monkeypatch)


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
        "report-identification.png",
        "report-detection.png",
        "report-calibration.png",
        "report-promise.png",
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
    assert provenance.configs["embedder"]["lineage"] == LINEAGE
    assert provenance.configs["embedder"]["records"] == [FACES.model_dump(mode="json")]
    assert provenance.configs["detector"]["records"] == [SCENES.model_dump()]
    report = published.file("REPORT.md").read_text()
    assert f"- embedder: {FACES}\n- detector: {SCENES}\n" in report
    assert (
        "(embedder 40 steps, begun with the weights of 1,215 steps of mobilefacenet, those begun with 4,860 steps of "
        "mbf; detector 40 steps)"
    ) in report
    assert provenance.command == order.command


def test_the_calibration_rests_on_its_split_alone(published, drawn_sets) -> None:
    calibration = published.manifest.calibration
    assert (calibration.people, calibration.pictures) == (60, 120)
    assert calibration.embedder == published.manifest.files["embedder.onnx"].sha256
    assert 0 < calibration.threshold_for_fmr(0.1).value < 1


def test_evaluating_reads_no_calibration_face_and_publishes_nothing(
    published, order: Order, monkeypatch, tmp_path: Path, exported_once: None
) -> None:
    read: list[str] = []

    def watched(root: Path, split: str):
        read.append(split)
        return load_faces(root, split)

    monkeypatch.setattr(measure, "load_faces", watched)
    monkeypatch.setattr(publishing, "load_faces", watched)
    digest = published.manifest.files["detector.onnx"].sha256
    write_aligned(tmp_path / "landmarks.json", [YUNET, THROUGH.model_copy(update={"sha256": digest})])
    results = evaluate(replace(order, to=tmp_path / "none", work=tmp_path / "work"))
    kept = results.metrics()["detection"]["good_enough_to_align_by"]  # type: ignore[index]
    assert (kept["facet"]["sha256"], kept["facet"]["accuracy"]) == (digest, THROUGH.accuracy)
    assert set(read) == {"validation"}
    assert not (tmp_path / "none").exists()
    assert 0 <= results.detection.served.at_one.recall <= 1


@pytest.mark.parametrize(
    ("floor", "reason"),
    [
        ({"lfw_least": 1.0}, "LFW accuracy"),
        ({"recall_least": 1.0}, "recall at 1 false positive"),
        ({"fnmr_ratio_most": 2.5}, "FNMR .* not assessed"),
        ({"ap_over_yunet_least": 0.0}, "AP to YuNet's .* not assessed"),
    ],
)
def test_below_a_floor_the_old_bundle_stays_and_the_reason_is_kept(
    published, order: Order, floor: dict[str, float], reason: str, exported_once: None
) -> None:
    before = {of.name: of.read_bytes() for of in order.to.iterdir()}
    with pytest.raises(Refused, match=reason):
        publish(replace(order, floors=NO_FLOORS.model_copy(update=floor)))
    assert {of.name: of.read_bytes() for of in order.to.iterdir()} == before
    told = outcome(order)
    assert told["published"] is False
    assert any(re.search(reason, line) for line in told["reasons"])
    assert sum(not of["holds"] for of in told["floors"]) == len(told["reasons"]) == 1
    assert sum(not of["holds"] for of in told["gates"]) == len(told["reasons"])
    assert {of["name"] for of in told["gates"]} >= {"parity", "licence"}


def test_an_outcome_that_cannot_be_written_is_said_and_hides_nothing(
    order: Order, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "work").write_text("not a folder")
    with pytest.raises(checkpoint.UnreadableCheckpoint, match="no such checkpoint"):
        publish(replace(order, embedder=tmp_path / "none.pt", work=tmp_path / "work"))
    assert "outcome.json could not be written" in capsys.readouterr().err


def test_graphs_that_differ_from_their_models_are_not_published(
    order: Order, tmp_path: Path, monkeypatch
) -> None:
    from training.export import parity

    monkeypatch.setattr(parity, "DIFFERENCE_MOST", -1.0)
    with pytest.raises(Refused, match=r"parity: detector\.onnx: score off by"):
        publish(replace(order, to=tmp_path / "none", work=tmp_path / "work"))
    assert not (tmp_path / "none").exists()
    told = outcome(replace(order, work=tmp_path / "work"))
    assert told["reasons"] == [f"parity: {told['gates'][0]['reason']}"]
    assert told["gates"][0]["holds"] is False


def files(folder: Path) -> dict[str, bytes]:
    return {of.name: of.read_bytes() for of in folder.iterdir()}


def gate(order: Order, name: str) -> dict:
    (found,) = [of for of in outcome(order)["gates"] if of["name"].startswith(name)]
    return found


def test_all_gates_and_the_ladder_are_kept_in_the_manifest_and_told_in_the_report(published) -> None:
    metrics, text = published.manifest.metrics, published.file("REPORT.md").read_text()
    assert all(of["holds"] for of in metrics["gates"].values())
    assert set(metrics["gates"]) >= {"parity", "licence", "calibration", "size of the bundle"}
    accuracy = metrics["gates"]["accuracy: FNMR at FMR 0.01 on validation, less the old bundle's"]
    assert accuracy["reason"] == "does not apply: there is no incumbent"
    assert {kind: of["published"] for kind, of in metrics["ladder"].items()} == {
        "onnx": True,
        "prelu-rewrite": True,
        "fp16": False,
        "int8": False,
    }
    assert {kind: of["published"] for kind, of in metrics["detector_ladder"].items()} == {
        "onnx": True,
        "fp16": False,
        "int8": False,
        "prelu-rewrite": False,
    }
    assert "## Forms of the detector" in text
    assert "| int8 | 6.00 |" in text
    assert "no: not 1.05 × faster than prelu-rewrite" in text
    assert "- licence: commercial" in text


def test_the_bundle_carries_a_sentinel_that_its_graphs_answer(published) -> None:
    for name in ("embedder.onnx", "embedder.prelu-rewrite.onnx"):
        graph = ServedGraph(published.file(name))
        assert check(published.manifest.sentinel, lambda crops, graph=graph: graph.run(crops)[0]) > 0.9999


def test_the_same_models_again_are_not_inferior_and_replace_the_bundle(
    published, order: Order, tmp_path: Path
) -> None:
    """The old bundle's own embedder is run on the same faces: no difference, not even a small one."""
    again = replace(order, to=tmp_path / "synthetic", version="2")
    shutil.copytree(order.to, again.to)
    assert publish(again).manifest.version == "2"
    found = gate(again, "accuracy")
    assert (found["measured"], found["interval"], found["holds"]) == (0, [0, 0], True)
    assert f"against {published.manifest.model_id}" in found["reason"]
    for name in ("detection: recall", "detection: WIDER's AP"):
        assert gate(again, name)["holds"]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"embedder_megabytes_most": 1}, "size of the embedder: "),
        ({"times_old_most": 0.01}, "speed: processor time a face over the old bundle's: "),
        (
            {"times_reference_most": 1.1},
            "speed: processor time a face over the reference embedder's: not asses",
        ),
    ],
)
def test_behind_a_gate_the_old_bundle_stays_byte_for_byte_and_nothing_is_calibrated(
    published, order: Order, policy: dict[str, float], reason: str, measured_once: None, monkeypatch
) -> None:
    monkeypatch.setattr(publishing, "calibrate", lambda *_: pytest.fail("calibrated"))
    before = files(order.to)
    with pytest.raises(Refused, match=reason):
        publish(replace(order, policy=POLICY.model_copy(update=policy)))
    assert files(order.to) == before
    told = outcome(order)
    assert (told["published"], len(told["reasons"])) == (False, 1)
    (failed,) = [of for of in told["gates"] if not of["holds"]]
    assert told["reasons"] == [f"{failed['name']}: {failed['reason']}"]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"realised_over_promised_most": 2.0}, "calibration: not assessed"),
        ({"bundle_megabytes_most": 1}, "size of the bundle: "),
    ],
)
def test_what_only_the_whole_bundle_shows_refuses_it_too(
    published, order: Order, policy: dict[str, float], reason: str, measured_once: None
) -> None:
    before = files(order.to)
    with pytest.raises(Refused, match=reason):
        publish(replace(order, policy=POLICY.model_copy(update=policy)))
    assert files(order.to) == before


def test_a_worse_embedder_is_refused_with_the_interval(
    published, order: Order, measured_once: None, monkeypatch
) -> None:
    monkeypatch.setattr(incumbent, "measure_incumbent", lambda *_: Interval(0.05, 0.02, 0.08))
    before = files(order.to)
    with pytest.raises(
        Refused, match=r"\+5\.00% against synthetic@.*from \+2\.00% to \+8\.00%.* may be \+1\.00%"
    ):
        publish(order)
    assert files(order.to) == before
    assert gate(order, "accuracy")["interval"] == [0.02, 0.08]


def test_a_worse_detector_is_refused_with_the_interval(
    published, order: Order, measured_once: None, monkeypatch
) -> None:
    monkeypatch.setattr(incumbent, "same_detector", lambda *_: False)
    worse = DetectorDifference(Interval(-0.03, -0.05, -0.01), {"hard": Interval(-0.3, -0.4, -0.2)})
    monkeypatch.setattr(incumbent, "measure_old_detector", lambda *_: worse)
    before = files(order.to)
    policy = POLICY.model_copy(update={"recall_margin": 0.01, "ap_margin": 0.01})
    with pytest.raises(
        Refused, match=r"-3\.00% against synthetic@.*from -5\.00% to -1\.00%.* may be -1\.00%"
    ):
        publish(replace(order, policy=policy))
    assert files(order.to) == before
    assert gate(order, "detection: recall")["interval"] == [-0.05, -0.01]
    assert gate(order, "detection: WIDER's AP")["interval"] == [-0.4, -0.2]


@pytest.mark.parametrize("change", [{"first": True}, {"name": "other"}])
def test_a_first_bundle_and_one_of_another_name_have_no_incumbent(
    published, order: Order, change: dict, measured_once: None, monkeypatch
) -> None:
    monkeypatch.setattr(incumbent, "measure_incumbent", lambda *_: pytest.fail("compared"))
    stopped = POLICY.model_copy(update={"detector_megabytes_most": 0.001})
    with pytest.raises(Refused, match="size of the detector"):
        publish(replace(order, policy=stopped, **change))
    assert gate(order, "accuracy")["reason"] == "does not apply: there is no incumbent"


def test_an_old_bundle_that_is_damaged_is_not_passed_over(published, order: Order, tmp_path: Path) -> None:
    damaged = replace(order, to=tmp_path / "synthetic")
    shutil.copytree(order.to, damaged.to)
    (damaged.to / "REPORT.md").write_text("better than ever\n")
    with pytest.raises(BundleTampered, match=r"REPORT\.md"):
        publish(damaged)
    assert (damaged.to / "REPORT.md").read_text() == "better than ever\n"


def test_real_data_called_drawn_may_not_become_commercial(
    published, order: Order, tmp_path: Path, measured_once: None
) -> None:
    """The same sets without the note that they were drawn: nothing says under which terms they are."""
    sets = tmp_path / "sets"
    sets.mkdir()
    for of in order.data.iterdir():
        if of.is_dir():
            (sets / of.name).symlink_to(of)
    with pytest.raises(Refused, match="licence: the bundle may not claim to be commercial"):
        publish(replace(order, data=sets, to=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def sets_that_say(terms: str, order: Order, folder: Path) -> Path:
    """The drawn sets as if they were photographs, each under the same terms."""
    for of in order.data.iterdir():
        if of.is_dir():
            (folder / of.name).mkdir(parents=True)
            for file in of.iterdir():
                (folder / of.name / file.name).symlink_to(file)
            (folder / of.name / "TERMS").write_text(terms)
    return folder


FREE = "licence: commercial; ours"
PEOPLE = FACES.model_copy(update={"name": "friends", "terms": FREE})
TEACHER = TeacherRecord(name="elder.onnx", sha256="2d", terms=FREE)
PHOTOS = SCENES.model_copy(update={"name": "doors", "terms": FREE})
ASKED = {"terms": "ask first"}
OLD_FACES, OLD_PHOTOS = learnt_from({"step": 40}, Path()), records_of({"step": 40}, Path())


def made_from(order: Order, embedder: Sequence[Any], detector: Sequence[Any]) -> tuple[Any, Any]:
    """The checkpoints as if they had learnt from these."""
    return tuple(
        replace(of, records=tuple(records))
        for of, records in zip(publishing._models(order), (embedder, detector), strict=True)
    )


@pytest.mark.parametrize(
    ("terms", "embedder", "detector", "strict"),
    [
        ("licence: commercial; agreed in writing", [PEOPLE, TEACHER], [PHOTOS], ""),
        ("for research", [PEOPLE], [PHOTOS], "faces, lfw, masks, wider"),
        (FREE, [PEOPLE], [PHOTOS, PHOTOS.model_copy(update=ASKED)], "the detector's doors"),
        (FREE, [PEOPLE.model_copy(update=ASKED)], [PHOTOS], "the embedder's friends"),
        (FREE, [PEOPLE, TEACHER.model_copy(update=ASKED)], [PHOTOS], "the embedder's elder.onnx"),
        (FREE, OLD_FACES, [PHOTOS], "the embedder's not recorded"),
        (FREE, [PEOPLE], OLD_PHOTOS, "the detector's not recorded"),
        (
            FREE,
            [PEOPLE],
            [PHOTOS.model_copy(update={"labels": "pseudo, by scrfd.onnx"})],
            "the dense teacher of doors",
        ),
    ],
)
def test_a_bundle_is_commercial_where_everything_it_was_made_from_says_so(
    published,
    order: Order,
    tmp_path: Path,
    measured_once: None,
    monkeypatch: pytest.MonkeyPatch,
    terms: str,
    embedder: Sequence[Any],
    detector: Sequence[Any],
    strict: str,
) -> None:
    made = made_from(order, embedder, detector)
    monkeypatch.setattr(publishing, "_models", lambda _: made)
    monkeypatch.setattr(publishing, "calibrate", lambda *_: pytest.fail("calibrated"))
    sets = sets_that_say(terms, order, tmp_path / "sets")
    stopped = POLICY.model_copy(update={"detector_megabytes_most": 0.001})
    asked = replace(order, data=sets, to=tmp_path / "none", synthetic=False, policy=stopped)
    with pytest.raises(Refused, match=r"^size of the detector"):
        publish(asked)
    found = gate(asked, "licence")
    assert found["measured"] == found["required"] == ("research-only" if strict else "commercial")
    assert found["reason"].endswith(f"the terms of {strict}" if strict else "the data allow commercial")


@pytest.mark.parametrize(
    ("embedder", "detector", "named"),
    [
        ([FACES, PEOPLE], [SCENES], "the embedder learnt .* drawn pictures \\(friends: 6 identities"),
        ([FACES, TEACHER], [SCENES], "the embedder learnt .*\\(elder.onnx: a teacher"),
        ([FACES], [SCENES, PHOTOS], "the detector learnt .*\\(doors: 14 pictures"),
        ([FACES], [SCENES.model_copy(update={"labels": "official; imitates scrfd.onnx besides"})], "scrfd"),
        (OLD_FACES, [SCENES], "the embedder learnt .*\\(not recorded: unknown"),
        ([FACES], OLD_PHOTOS, "the detector learnt .*\\(not recorded: unknown"),
    ],
)
def test_what_learnt_from_more_than_drawings_is_not_published_as_drawn(
    order: Order,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    embedder: Sequence[Any],
    detector: Sequence[Any],
    named: str,
) -> None:
    made = made_from(order, embedder, detector)
    monkeypatch.setattr(publishing, "_models", lambda _: made)
    monkeypatch.setattr(publishing, "_graphs", lambda *_: pytest.fail("exported"))
    asked = replace(order, to=tmp_path / "none", work=tmp_path / "work")
    with pytest.raises(Refused, match=named):
        publish(asked)
    assert len(outcome(asked)["reasons"]) == 1
    assert not asked.to.exists()


def test_training_on_an_evaluation_picture_is_refused(
    order: Order, tmp_path: Path, monkeypatch, exported_once: None
) -> None:
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
        f"UnreadableCheckpoint: {tmp_path / 'absent.pt'}: no such checkpoint; train the detector first, or take a "
        "bundle's over: --detector models/default"
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
