"""What stands beside the new embedder in the same run: the old bundle's, as it was served, and the reference's."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from bundle.manifest import DetectorSpec
from tests.training.evaluation.drawn_scores import drawn_people
from training.data.identities import BadData, Faces
from training.data.pairs import load_pairs
from training.data.synthetic import TERMS
from training.evaluation.bootstrap import Interval
from training.evaluation.calibration import TooFewPeople
from training.evaluation.calibration_set import CalibrationSet
from training.evaluation.promise import calibration_report
from training.evaluation.wider_protocol import SETTINGS
from training.export import difference, measure
from training.export.difference import DetectorDifference
from training.export.measure import (
    PEOPLE_LEAST,
    calibrate,
    data_terms,
    dataset_digests,
    lfw_measured,
    measure_incumbent,
    measure_old_detector,
    measure_recognition,
    paces,
    picture_paces,
    same_detector,
    stated,
    told_terms,
    verification_pairs,
)
from training.export.sessions import ServedGraph, served_graph


def old(files: dict[str, tuple[str, ...]], folder: Path) -> SimpleNamespace:
    """A bundle whose variants are `files`, each for its backends."""
    variants = [
        SimpleNamespace(of="embedder", file=name, backends=backends) for name, backends in files.items()
    ]
    variants.insert(0, SimpleNamespace(of="detector", file="detector.int8.onnx", backends=("onnxruntime",)))
    manifest = SimpleNamespace(
        variants=variants, embedder=SimpleNamespace(file="embedder.onnx"), detector=DetectorSpec()
    )
    return SimpleNamespace(manifest=manifest, file=lambda name: folder / name)


def test_the_old_embedder_runs_in_the_form_that_was_served(tiny, tmp_path: Path) -> None:
    for name in ("embedder.onnx", "first.onnx", "second.onnx"):
        (tmp_path / name).write_bytes(tiny.graph.path.read_bytes())
    forms = {"gpu.onnx": ("tensorrt",), "first.onnx": ("onnxruntime",), "second.onnx": ("onnxruntime",)}
    assert served_graph(old(forms, tmp_path)).path.name == "first.onnx"
    assert served_graph(old({"gpu.onnx": ("tensorrt",)}, tmp_path)).path.name == "embedder.onnx"


def test_the_old_detector_runs_in_the_form_that_was_served(detector, tmp_path: Path) -> None:
    for name in ("detector.onnx", "detector.int8.onnx"):
        (tmp_path / name).write_bytes(detector.graph.path.read_bytes())
    assert served_graph(old({}, tmp_path), "detector").path.name == "detector.int8.onnx"


def test_an_embedder_is_not_inferior_to_itself(tiny, many_faces: Faces, tmp_path: Path) -> None:
    (tmp_path / "embedder.onnx").write_bytes(tiny.graph.path.read_bytes())
    found = measure_incumbent(old({}, tmp_path), tiny.graph, many_faces, tmp_path / "cache", 1e-2)
    assert found == Interval(0, 0, 0)


@pytest.fixture
def pictures(drawn_sets, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data sets in which eight drawn validation pictures carry an interval."""
    monkeypatch.setattr(difference, "LEAST_PICTURES", 8)
    return drawn_sets.root


def test_a_detector_is_not_inferior_to_itself_and_looks_once(
    detector, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "detector.int8.onnx").write_bytes(detector.graph.path.read_bytes())
    of, cache = old({}, tmp_path), tmp_path / "cache"
    found = measure_old_detector(of, detector.graph, DetectorSpec(), pictures, cache)
    same = Interval(0, 0, 0)
    assert found == DetectorDifference(same, dict.fromkeys(SETTINGS, same))
    assert len(list(cache.iterdir())) == 1  # both are one graph, looked at in one way
    monkeypatch.setattr(ServedGraph, "run", lambda *_: pytest.fail("looked again"))
    assert measure_old_detector(of, detector.graph, DetectorSpec(), pictures, cache) == found


def test_pictures_too_few_for_an_interval_give_no_figure(detector, drawn_sets, tmp_path: Path) -> None:
    (tmp_path / "detector.int8.onnx").write_bytes(detector.graph.path.read_bytes())
    given = old({}, tmp_path), detector.graph, DetectorSpec(), drawn_sets.root, tmp_path / "cache"
    assert measure_old_detector(*given) is None


def test_without_boxed_photographs_no_detector_is_compared(detector, tmp_path: Path) -> None:
    (tmp_path / "detector.int8.onnx").write_bytes(detector.graph.path.read_bytes())
    given = old({}, tmp_path), detector.graph, DetectorSpec(), tmp_path / "people", tmp_path / "cache"
    assert measure_old_detector(*given) is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("changed", "same"),
    [({}, True), ({"min_score": 0.9}, True), ({"nms_iou": 0.3}, False), ({"near_scale": 0.0}, False)],
)
def test_a_detector_is_the_same_where_graph_and_reading_are(
    detector, tmp_path: Path, changed: dict[str, float], same: bool
) -> None:
    """From which score a face is reported moves along the curve, and does not change it."""
    (tmp_path / "detector.int8.onnx").write_bytes(detector.graph.path.read_bytes())
    assert same_detector(old({}, tmp_path), detector.graph, DetectorSpec(**changed)) is same


def test_another_graph_is_another_detector(detector, embedder, tmp_path: Path) -> None:
    (tmp_path / "detector.int8.onnx").write_bytes(detector.graph.path.read_bytes())
    assert not same_detector(old({}, tmp_path), embedder.graph, DetectorSpec())


def test_two_embedding_spaces_of_different_dimensions_are_compared(
    tiny, embedder, many_faces: Faces, tmp_path: Path
) -> None:
    (tmp_path / "embedder.onnx").write_bytes(embedder.graph.path.read_bytes())
    found = measure_incumbent(old({}, tmp_path), tiny.graph, many_faces, tmp_path / "cache", 1e-2)
    assert found is not None
    assert found.low <= found.value <= found.high


def test_faces_that_do_not_carry_the_rate_give_no_figure(tiny, drawn_faces: Faces, tmp_path: Path) -> None:
    (tmp_path / "embedder.onnx").write_bytes(tiny.graph.path.read_bytes())
    assert measure_incumbent(old({}, tmp_path), tiny.graph, drawn_faces, tmp_path / "cache", 1e-3) is None


def test_the_reference_runs_beside_where_it_is_present(tiny, tmp_path: Path, monkeypatch) -> None:
    given = []
    session = SimpleNamespace(run=lambda names, feed: given.append(feed["input0"]))
    monkeypatch.setattr(measure, "ReferenceEmbedder", lambda path, threads: SimpleNamespace(session=session))
    graphs = {"new": tiny.graph.path, "old": tiny.graph.path}
    absent = tmp_path / "absent.onnx"
    assert set(paces(graphs, absent)) == {"new", "old"}
    (tmp_path / "reference.onnx").touch()
    taken = paces(graphs, tmp_path / "reference.onnx")
    assert set(taken) == {"new", "old", "reference"}
    assert taken["new"] > 0
    assert {(of.shape, of.dtype.name) for of in given} == {((1, 3, 112, 112), "float32")}


def test_yunet_s_graph_runs_beside_where_it_is_present(detector, tmp_path: Path, monkeypatch) -> None:
    given = []
    beside = SimpleNamespace(
        get_inputs=lambda: [SimpleNamespace(name="input")],
        run=lambda names, feed: given.append(feed["input"]),
    )
    monkeypatch.setattr(measure, "session", lambda path: beside)
    graph, spec = detector.graph, DetectorSpec()
    assert picture_paces(graph.path, spec, tmp_path / "absent.onnx") is None
    (tmp_path / "yunet.onnx").touch()
    taken = picture_paces(graph.path, spec, tmp_path / "yunet.onnx")
    assert taken is not None
    assert taken[0] > taken[1] >= 0
    assert {(of.shape, of.dtype.name) for of in given} == {((1, 3, 480, 640), "float32")}


def test_only_sets_that_were_drawn_or_say_so_may_be_used_commercially(drawn_sets, tmp_path: Path) -> None:
    assert set(data_terms(drawn_sets.root).values()) == {"commercial"}
    assert told_terms(drawn_sets.root) == dict.fromkeys(("faces", "lfw", "masks", "wider"), TERMS)
    for name in ("faces", "wider", "reference"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "faces" / "TERMS").write_text("licence: commercial; photographs of our staff, who agreed\n")
    (tmp_path / "wider" / "TERMS").write_text("Commercial use needs a contract.\n")
    strict = "research-only"
    assert data_terms(tmp_path) == {"faces": "commercial", "reference": strict, "wider": strict}


@pytest.mark.parametrize(
    ("terms", "licence"),
    [
        ("licence: commercial", "commercial"),
        ("licence: commercial; CC BY 4.0", "commercial"),
        ("licence: commercial use is forbidden", "research-only"),
        ("commercial", "research-only"),
        ("not licence: commercial", "research-only"),
        ("licence: research-only; ask first", "research-only"),
        ("", "research-only"),
    ],
)
def test_a_statement_is_taken_by_the_letter(terms: str, licence: str) -> None:
    assert stated(terms) == licence


def test_a_few_faces_of_each_are_taken_in_their_order() -> None:
    label = np.array([2, 0, 2, 2, 1, 0, 2])
    assert measure._first_of_each(label, 2).tolist() == [0, 1, 2, 4, 5]
    assert measure._first_of_each(label, 9).tolist() == list(range(7))


def test_the_overlap_is_found_by_the_reference_and_told_in_both_sets_own_terms(
    drawn_sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two validation people and one of the pairs are given the very looks of a training person."""
    from training.data.identities import load_faces
    from training.evaluation.recognition import Embedded

    train = load_faces(drawn_sets.root / "faces", "train")
    validation = load_faces(drawn_sets.root / "faces", "validation")
    lfw = load_pairs(drawn_sets.root / "lfw")
    size = 64
    looks = np.eye(size, dtype=np.float32)[train.label]
    seen = np.eye(size, dtype=np.float32)[20 + validation.label]
    pairs = np.tile(np.eye(size, dtype=np.float32)[50], (len(lfw.names), 1))
    seen[validation.label < 2] = looks[0]
    pairs[0] = looks[0]
    monkeypatch.setattr(measure, "_by_reference", lambda path, crops, cache, name: looks)
    found = measure._overlap(
        Path("r.onnx"), drawn_sets.root, validation, lfw, Embedded("reference", seen, pairs), tmp_path
    )
    assert found.validation == set(validation.identity[validation.label < 2].tolist())
    assert found.lfw == {lfw.names[0].split("/")[0]}
    assert "cosine of the reference embedder at least 1.00" in found.how


def pack(path: Path, folder: Path) -> None:
    """The pairs of a folder as a .bin pack: the pictures, two a pair, encoded."""
    pairs = load_pairs(folder)
    encoded = [cv2.imencode(".png", of[..., ::-1])[1].tobytes() for of in pairs.crops]
    both = [encoded[row] for pair in zip(pairs.first, pairs.second, strict=True) for row in pair]
    path.write_bytes(pickle.dumps((both, pairs.same.tolist())))


def test_pairs_are_a_folder_or_a_pack_or_none_and_never_two(drawn_sets, tmp_path: Path) -> None:
    assert verification_pairs(tmp_path) is None
    assert lfw_measured(tmp_path, tmp_path) == 0
    pack(tmp_path / "lfw.bin", drawn_sets.root / "lfw")
    folder, packed = verification_pairs(drawn_sets.root), verification_pairs(tmp_path)
    assert folder is not None
    assert packed is not None
    assert packed.same.tolist() == folder.same.tolist()
    assert np.array_equal(packed.crops[packed.first], folder.crops[folder.first])
    (tmp_path / "lfw").symlink_to(drawn_sets.root / "lfw")
    with pytest.raises(BadData, match=r"holds lfw and lfw\.bin; which of them"):
        verification_pairs(tmp_path)


def test_an_empty_folder_of_pairs_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "lfw").mkdir()
    with pytest.raises(BadData, match="no pairs found"):
        verification_pairs(tmp_path)


def test_a_pack_is_a_set_with_terms_and_a_digest(drawn_sets, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    (tmp_path / "TERMS").write_text("ask first")
    (tmp_path / "notes.bin").touch()
    before = (tmp_path / "lfw.bin").write_bytes(b"one") and dataset_digests(tmp_path)
    assert told_terms(tmp_path) == {"faces": "ask first", "lfw.bin": "ask first"}
    (tmp_path / "lfw.bin").write_bytes(b"two")
    after = dataset_digests(tmp_path)
    assert [of.split()[0] for of in after] == ["faces", "lfw.bin"]
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False]


def test_people_alone_are_measured_on_validation_alone(
    tiny, many_faces: Faces, drawn_sets, tmp_path: Path
) -> None:
    (tmp_path / "people").mkdir()
    alone, ratio, overlap = measure_recognition(
        tiny.graph, tmp_path / "people", many_faces, tmp_path / "cache"
    )
    assert (len(alone), alone[0].on_lfw, ratio, overlap) == (1, None, None, None)
    pack(tmp_path / "people" / "lfw.bin", drawn_sets.root / "lfw")
    packed, *_ = measure_recognition(tiny.graph, tmp_path / "people", many_faces, tmp_path / "cache")
    whole, *_ = measure_recognition(tiny.graph, drawn_sets.root, many_faces, tmp_path / "cache")
    assert packed[0].fnmr == whole[0].fnmr == alone[0].fnmr
    assert packed[0].lfw == whole[0].lfw


def test_too_few_people_to_calibrate_are_counted_with_what_is_needed(
    drawn_sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "PEOPLE_LEAST", 61)
    monkeypatch.setattr(measure, "embed_once", lambda *_: pytest.fail("embedded"))
    with pytest.raises(TooFewPeople, match="60 people are in `calibration`, at least 61 are needed"):
        calibrate(None, drawn_sets.root, tmp_path, "drawn")


@pytest.mark.parametrize(("people", "enough"), [(PEOPLE_LEAST, True), (PEOPLE_LEAST - 2, False)])
def test_the_fewest_people_are_those_of_whom_each_half_carries_a_calibration(
    people: int, enough: bool
) -> None:
    embedding, identity, family = drawn_people(people, 2, seed=3)
    faces = CalibrationSet(embedding, identity, np.full_like(family, ""))
    if enough:
        assert calibration_report(faces, faces.fit(0), repeats=1)["held_out_fmr"]
    else:
        with pytest.raises(TooFewPeople):
            calibration_report(faces, faces.fit(0), repeats=1)
