"""A detector is taken over as its bundle has it, with all that was recorded of it, or not at all."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from bundle.folder import Bundle, BundleIncomplete, BundleTampered, digest_of, open_bundle, write_bundle
from training.data.identities import BadData
from training.export.ladder import CANONICAL
from training.export.parity import ParityFailed
from training.export.taken_over import FIGURE, take_over


def rewritten(of: Bundle, to: Path, detector: Path | None = None, **changed: Any) -> Bundle:
    """The bundle with other fields, or another detector's graph, sealed anew."""
    manifest = of.manifest
    fields = manifest.model_dump(exclude={"files", "seal"}) | changed
    files = {name: of.path / name for name in manifest.files}
    if detector:
        files["detector.onnx"] = detector
        fields["calibration"] = manifest.calibration.model_copy(update={"detector": digest_of(detector)})
    return write_bundle(to, fields, files)


def test_everything_that_the_bundle_has_and_says_of_it_comes_along(published: Bundle) -> None:
    manifest, of = published.manifest, take_over(published.path)
    canonical, ladder = of.graphs()
    assert canonical.digest == manifest.files["detector.onnx"].sha256
    assert ladder.served.path == published.path / "detector.onnx"
    assert (of.spec, of.variants) == (manifest.detector, ())
    assert {rung.kind: rung.row() for rung in ladder.rungs} == manifest.metrics["detector_ladder"]
    assert of.provenance() == manifest.provenance.configs["detector"]
    assert (of.step, of.alike) == (40, 0)
    assert [record.model_dump() for record in of.records] == of.provenance()["records"]
    assert of.figure() == published.file(FIGURE).read_bytes()
    kept = of.detection.metrics()
    assert kept.pop("taken_over") == {"from": manifest.model_id, "sha256": canonical.digest}
    assert kept == manifest.metrics["detection"]
    assert of.detection.recall == kept["facet"]["recall@1fp"]
    report = published.file("REPORT.md").read_text().split("## Detection\n\n")[1].split("\n\n## ")[0]
    assert of.detection.told.endswith(f"What follows is that bundle's report.\n\n{report}")


def test_what_was_taken_over_already_is_told_of_its_first_bundle(published: Bundle, tmp_path: Path) -> None:
    first = take_over(published.path).detection
    metrics = published.manifest.metrics | {"detection": first.metrics()}
    report = tmp_path / "REPORT.md"
    report.write_text(f"# second@2\n\n## Detection\n\n{first.told}\n\n## Thresholds\n")
    manifest = published.manifest
    files = {name: published.path / name for name in manifest.files} | {"REPORT.md": report}
    fields = manifest.model_dump(exclude={"files", "seal"}) | {"name": "second", "metrics": metrics}
    again = take_over(write_bundle(tmp_path / "second", fields, files).path).detection
    assert (again.origin, again.told) == (manifest.model_id, first.told)
    assert again.metrics() == first.metrics()


def test_a_bundle_without_figures_drawn_or_a_report_is_taken_over_in_a_sentence(
    published: Bundle, tmp_path: Path
) -> None:
    manifest = published.manifest
    files = {n: published.path / n for n in manifest.files if n.endswith(".onnx")}
    bare = take_over(
        write_bundle(tmp_path / "bare", manifest.model_dump(exclude={"files", "seal"}), files).path
    )
    assert bare.figure() is None
    assert bare.detection.told.endswith("nothing of it was measured anew.")


def test_a_folder_that_is_no_bundle_is_refused_with_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(
        BadData, match=r"no bundle, for it has no bundle\.json; name .*models/default.*last\.pt"
    ):
        take_over(tmp_path)


def test_a_damaged_bundle_is_refused_by_its_file(published: Bundle, tmp_path: Path) -> None:
    shutil.copytree(published.path, tmp_path / "b")
    with (tmp_path / "b" / "detector.onnx").open("r+b") as file:
        file.write(b"\0")
    with pytest.raises(BundleTampered, match=r"detector\.onnx"):
        take_over(tmp_path / "b")
    (tmp_path / "b" / "detector.onnx").unlink()
    with pytest.raises(BundleIncomplete, match=r"detector\.onnx is missing"):
        take_over(tmp_path / "b")


def test_a_bundle_that_nobody_measured_is_refused(synthetic_bundle: Path) -> None:
    with pytest.raises(
        BadData, match=r"does not record how .* \('detector' is missing\); only a bundle that `python"
    ):
        take_over(synthetic_bundle)


def without(of: Any, key: str) -> dict[str, Any]:
    return {name: value for name, value in of.items() if name != key}


def broken(metrics: Any, place: str) -> dict[str, Any]:
    """The metrics with something wrong at that place."""
    ladder, detection = metrics["detector_ladder"], metrics["detection"]
    canonical = ladder[CANONICAL]
    return (
        metrics
        | {
            "no figures": {"detection": {}},
            "a recall of 91": {"detection": detection | {"facet": detection["facet"] | {"recall@1fp": 91}}},
            "no number": {"detection": detection | {"facet": detection["facet"] | {"recall@1fp": None}}},
            "a text": {"detection": "good"},
            "no ladder": {"detector_ladder": {}},
            "a rung without its speed": {
                "detector_ladder": {CANONICAL: without(canonical, "milliseconds_a_picture")}
            },
            "a rung of another kind": {"detector_ladder": {CANONICAL: canonical | {"megabytes": "many"}}},
            "no agreement": {"detector_ladder": {CANONICAL: without(canonical, "iou_least")}},
            "another file": {"detector_ladder": {CANONICAL: canonical | {"file": "other.onnx"}}},
        }[place]
    )


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("no figures", "'facet' is missing"),
        ("a recall of 91", "a recall of 91.0"),
        ("no number", "float"),
        ("a text", "string indices"),
        ("no ladder", "does not tell how near"),
        ("a rung without its speed", "'milliseconds_a_picture' is missing"),
        ("a rung of another kind", "megabytes: Input should be a valid number"),
        ("no agreement", "iou_least: Field required"),
        ("another file", "the ladder tells of other.onnx, the bundle holds detector.onnx"),
    ],
)
def test_figures_that_are_not_what_publishing_writes_are_refused(
    published: Bundle, tmp_path: Path, place: str, told: str
) -> None:
    of = rewritten(published, tmp_path / "b", metrics=broken(published.manifest.metrics, place))
    with pytest.raises(BadData, match=r"only a bundle that `python -m training publish` wrote") as raised:
        take_over(of.path)
    assert told in str(raised.value)


@pytest.mark.parametrize("missing", ["metrics", "training"])
def test_what_is_not_recorded_at_all_is_named(published: Bundle, tmp_path: Path, missing: str) -> None:
    manifest = published.manifest
    changed: dict[str, Any] = (
        {"metrics": without(manifest.metrics, "training_photographs_like_validation")}
        if missing == "metrics"
        else {"provenance": manifest.provenance.model_copy(update={"configs": {}})}
    )
    with pytest.raises(BadData, match=r"'(training_photographs_like_validation|detector)' is missing"):
        take_over(rewritten(published, tmp_path / "b", **changed).path)


def test_records_that_are_impossible_are_refused(published: Bundle, tmp_path: Path) -> None:
    provenance = published.manifest.provenance
    configs = provenance.configs | {
        "detector": provenance.configs["detector"] | {"records": [{"name": "doors"}]}
    }
    of = rewritten(published, tmp_path / "b", provenance=provenance.model_copy(update={"configs": configs}))
    with pytest.raises(BadData, match=r"impossible records: 0\.pictures"):
        take_over(of.path)


def test_a_graph_that_does_not_run_here_is_no_detector(published: Bundle, tmp_path: Path) -> None:
    (tmp_path / "notes.onnx").write_text("not a graph")
    of = take_over(rewritten(published, tmp_path / "b", tmp_path / "notes.onnx").path)
    with pytest.raises(ParityFailed, match=r"detector\.onnx: does not run here"):
        of.graphs()


def test_a_graph_of_something_else_is_no_detector(published: Bundle, tmp_path: Path) -> None:
    of = take_over(rewritten(published, tmp_path / "b", published.path / "embedder.prelu-rewrite.onnx").path)
    with pytest.raises(ParityFailed, match=r"detector\.onnx: does not run here"):
        of.graphs()


def test_a_difference_that_was_no_number_stays_none(published: Bundle, tmp_path: Path) -> None:
    """A form that found nothing: JSON has no word for what is not a number."""
    ladder = dict(published.manifest.metrics["detector_ladder"])
    ladder["int8"] = ladder["int8"] | {"points_p99": None, "published": False}
    metrics = published.manifest.metrics | {"detector_ladder": ladder}
    of = take_over(rewritten(published, tmp_path / "b", metrics=metrics).path)
    (rung,) = [rung for rung in of.rungs if rung.kind == "int8"]
    assert math.isnan(rung.agreement.points_p99)
    assert rung.row() == ladder["int8"]


def test_a_form_that_is_served_comes_along_as_the_bundle_lists_it(published: Bundle, tmp_path: Path) -> None:
    """Here the canonical graph under another name, for what is asked is that nothing of the listing is lost."""
    manifest = published.manifest
    shutil.copy(published.path / "detector.onnx", tmp_path / "detector.fp16.onnx")
    variant = {
        "file": "detector.fp16.onnx",
        "of": "detector",
        "kind": "fp16",
        "derived_from": manifest.files["detector.onnx"].sha256,
        "backends": ("onnxruntime", "openvino"),
        "cost": {"recall_difference_value": 0.25},
    }
    ladder = dict(manifest.metrics["detector_ladder"])
    ladder["fp16"] = ladder["fp16"] | {"published": True}
    fields = manifest.model_dump(exclude={"files", "seal"}) | {
        "variants": (*manifest.variants, variant),
        "metrics": manifest.metrics | {"detector_ladder": ladder},
    }
    files = {name: published.path / name for name in manifest.files}
    source = write_bundle(tmp_path / "b", fields, files | {variant["file"]: tmp_path / variant["file"]})
    of = take_over(source.path)
    assert [one.model_dump() for one in of.variants] == [variant]
    assert of.graphs()[1].served.path == source.path / "detector.fp16.onnx"
    assert open_bundle(source.path).manifest.model_id == of.detection.origin
