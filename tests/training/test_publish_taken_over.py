"""People's photographs alone suffice to publish: a published detector is taken over, and what is missing is said."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.folder import Bundle, BundleTampered
from tests.training.untrained import paced
from training import __main__ as command
from training import incumbent
from training import publish as publishing
from training.config import REPOSITORY, BadConfig, read_config
from training.data.identities import BadData, load_faces
from training.evaluation.floors import Floors
from training.export import graphs as exporting
from training.export.graphs import Graphs
from training.gates import Policy
from training.order import Order
from training.publish import Refused, evaluate, publish

PEOPLE_ONLY = REPOSITORY / "training" / "configs" / "people-only"
OFF = math.inf
FLOORS = Floors(lfw_least=OFF, fnmr_ratio_most=OFF, recall_least=0, ap_over_yunet_least=OFF)


@pytest.fixture(autouse=True, scope="module")
def at_one_pace() -> Iterator[None]:
    with paced():
        yield


@pytest.fixture(scope="module")
def people(order: Order, published: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Order:
    """To publish the embedder with the published detector, from people's faces and nothing else."""
    folder = tmp_path_factory.mktemp("people")
    data = folder / "my-data"
    data.mkdir()
    (data / "faces").symlink_to(order.data / "faces")
    (data / "drawn.json").touch()
    return replace(
        order,
        detector=published.path,
        data=data,
        to=folder / "mine",
        work=folder / "work",
        floors=FLOORS,
    )


@pytest.fixture(scope="module")
def mine(people: Order) -> Bundle:
    """Published without a look at a detector's pictures."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("measure_detection", "likenesses", "operating_point"):
            patch.setattr(publishing, name, lambda *_: pytest.fail("measured"))
        patch.setattr(exporting, "export_detector", lambda *_: pytest.fail("exported"))
        return publish(people)


def outcome(order: Order) -> dict:
    return json.loads((order.work / "outcome.json").read_text())


def gate(order: Order, name: str) -> dict:
    (found,) = [of for of in outcome(order)["gates"] if of["name"].startswith(name)]
    return found


def test_the_detector_is_the_other_bundle_s_byte_for_byte(mine: Bundle, published: Bundle) -> None:
    ours, theirs = mine.manifest, published.manifest
    assert mine.file("detector.onnx").read_bytes() == published.file("detector.onnx").read_bytes()
    assert ours.detector == theirs.detector
    assert ours.provenance.configs["detector"] == theirs.provenance.configs["detector"]
    assert ours.metrics["detector_ladder"] == theirs.metrics["detector_ladder"]
    assert ours.metrics["parity"]["detector.onnx"] == theirs.metrics["parity"]["detector.onnx"]
    assert ours.metrics["training_photographs_like_validation"] == 0
    assert (
        mine.file("report-detection.png").read_bytes() == published.file("report-detection.png").read_bytes()
    )
    assert ours.calibration.detector == theirs.files["detector.onnx"].sha256


def test_manifest_and_report_say_what_was_taken_over_and_what_was_not_assessed(
    mine: Bundle, published: Bundle
) -> None:
    metrics, report = mine.manifest.metrics, mine.file("REPORT.md").read_text()
    theirs, digest = published.manifest, published.manifest.files["detector.onnx"].sha256
    source = {"from": theirs.model_id, "sha256": digest}
    assert metrics["detection"] == theirs.metrics["detection"] | {"taken_over": source}
    assert metrics["recognition"]["facet"]["lfw"] == "not assessed"
    assert list(metrics["floors"]) == ["recall at 1 false positive a picture, at least"]
    assert [line.split(" sha256:")[0] for line in mine.manifest.provenance.datasets] == ["faces"]
    assert f"- detector: taken over from {theirs.model_id} (sha256 {digest}), measured when" in report
    assert "- ten folds of the drawn pairs: not assessed, there are no pairs" in report
    assert f"\n## Detection\n\n**Taken over** from {theirs.model_id}" in report
    assert f"As {theirs.model_id} recorded it when it was published" in report
    assert f"Each held, the detector by what {theirs.model_id} recorded:" in report
    assert "The embedder's training run." in report


def test_published_anew_over_itself_the_detector_is_no_worse(
    mine: Bundle, people: Order, tmp_path: Path
) -> None:
    """And a bundle may take its detector over from itself."""
    shutil.copytree(mine.path, tmp_path / "mine")
    policy = people.standing.model_copy(update={"recall_margin": 0.01, "ap_margin": 0.01})
    again = replace(people, to=tmp_path / "mine", detector=tmp_path / "mine", version="2", policy=policy)
    of = publish(again).manifest
    for name in ("detection: recall", "detection: WIDER's AP"):
        assert gate(again, name)["reason"].startswith("the detector is that of mine@")
    assert of.metrics["detection"] == mine.manifest.metrics["detection"]
    assert of.version == "2"


@pytest.fixture(scope="module")
def exported(people: Order) -> Graphs:
    return publishing._graphs(
        people, *publishing._models(people), load_faces(people.data / "faces", "validation")
    )


def test_another_detector_is_compared_on_pictures_or_not_at_all(
    mine: Bundle, people: Order, exported: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_graphs", lambda *_: exported)
    monkeypatch.setattr(incumbent, "same_detector", lambda *_: False)
    monkeypatch.setattr(publishing, "calibrate", lambda *_: pytest.fail("calibrated"))
    asked = people.standing.model_copy(update={"recall_margin": 0.01})
    with pytest.raises(
        Refused, match=r"detection: .* not assessed: the pictures are too few .* or there are none"
    ):
        publish(replace(people, policy=asked))
    stopped = people.standing.model_copy(update={"recall_margin": math.inf, "detector_megabytes_most": 0.001})
    with pytest.raises(Refused, match=r"^size of the detector"):
        publish(replace(people, policy=stopped))
    assert gate(people, "detection: recall")["reason"] == "does not apply: the policy sets no limit"


def test_the_recorded_recall_is_held_to_its_floor(
    mine: Bundle, people: Order, exported: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_graphs", lambda *_: exported)
    results = evaluate(replace(people, floors=FLOORS.model_copy(update={"recall_least": 1.0})))
    (verdict,) = results.verdicts
    recorded = mine.manifest.metrics["detection"]["facet"]["recall@1fp"]
    assert (verdict.measured, verdict.holds) == (recorded, False)


def test_a_checkpoint_without_boxed_photographs_is_refused_with_both_ways_out(
    people: Order, order: Order
) -> None:
    asked = replace(people, detector=order.detector, work=people.work / "none")
    for run in (publish, evaluate):
        with pytest.raises(
            BadData, match=r"no wider and no masks; .*put them there, or take .*--detector models"
        ):
            run(asked)
    assert "no wider and no masks" in outcome(asked)["reasons"][0]


def test_pictures_without_faces_are_not_passed_over_in_silence(people: Order, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"is taken over with its figures.*leave --faceless out"):
        evaluate(replace(people, without_faces=tmp_path))


@pytest.mark.parametrize("named", ["folder", "damaged", "unmeasured"])
def test_what_cannot_be_taken_over_ends_before_anything_is_made(
    published: Bundle, synthetic_bundle: Path, people: Order, tmp_path: Path, named: str
) -> None:
    sources = {"folder": tmp_path, "damaged": tmp_path / "damaged", "unmeasured": synthetic_bundle}
    shutil.copytree(published.path, tmp_path / "damaged")
    (tmp_path / "damaged" / "detector.onnx").write_bytes(b"shorter")
    asked = replace(people, detector=sources[named], to=tmp_path / "none", work=tmp_path / "work")
    with pytest.raises(BundleTampered if named == "damaged" else BadData):
        publish(asked)
    assert not asked.to.exists()
    assert not (asked.work / "graphs").exists()


def test_the_shipped_floors_and_gates_ask_for_what_people_alone_can_show() -> None:
    floors = read_config(Floors, PEOPLE_ONLY / "floors.toml")
    policy = read_config(Policy, PEOPLE_ONLY / "gates.toml")
    assert floors == Floors(lfw_least=math.inf, fnmr_ratio_most=math.inf, ap_over_yunet_least=math.inf)
    assert policy == Policy(times_reference_most=math.inf, times_yunet_most=math.inf)


def test_a_folder_named_as_detector_reaches_the_order(
    tmp_path: Path, people: Order, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Order] = []

    def evaluated(order: Order) -> None:
        asked.append(order)
        raise BadData("seen")

    monkeypatch.setattr(command, "evaluate", evaluated)
    monkeypatch.setenv("FACET_DATASETS", str(people.data))
    models = ["--embedder", str(people.embedder), "--detector", str(people.detector)]
    files = ["--floors", str(PEOPLE_ONLY / "floors.toml"), "--gates", str(PEOPLE_ONLY / "gates.toml")]
    assert command.main(["evaluate", *models, *files, "--runs", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "failed: seen\n"
    assert (asked[0].detector, asked[0].data) == (people.detector, people.data)
    assert math.isinf(asked[0].floors.lfw_least)
