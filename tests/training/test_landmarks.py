"""Worse points cost accuracy, a face that is not found is counted, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bundle.align import TEMPLATE
from bundle.decode import Detections, Floats
from bundle.folder import open_bundle
from training.__main__ import main
from training.data.alignment import Find
from training.data.identities import BadData
from training.data.raw_photographs import Picture
from training.export.checkpoints import trained_detector
from training.export.onnx import export_detector
from training.export.sessions import ServedGraph
from training.landmarks import Detector, detector_at, through
from training.order import Order
from training.prepare import Embedder

PEOPLE, MARGIN = 4, 24  # people with two photographs each; pixels around the aligned face
POINTS = TEMPLATE + MARGIN


def found(points: Floats) -> Detections:
    return Detections(np.array([[24, 24, 135, 135]], np.float32), points[None], np.ones(1, np.float32))


def exact(photograph: Picture) -> Detections:
    return found(POINTS)


def askew(photograph: Picture) -> Detections:
    """Points turned by an angle that depends on the picture: no two of one person agree."""
    turn = cv2.getRotationMatrix2D((80.0, 80.0), float(photograph[..., 0].sum() % 360), 1.0)
    return found((POINTS @ turn[:, :2].T + turn[:, 2]).astype(np.float32))


def embed(crops: np.ndarray, name: str) -> np.ndarray:
    small = crops.reshape(len(crops), 7, 16, 7, 16, 3).mean((2, 4)).reshape(len(crops), -1).astype(np.float32)
    centred = small - small.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


EMBEDDER = Embedder(embed, "drawn")


def likeness(who: int, number: int) -> Picture:
    """(112, 112, 3): a pattern of that person, a little different on each photograph."""
    pattern = np.random.default_rng(who).integers(0, 256, (7, 7, 3)).astype(np.uint8)
    noise = np.random.default_rng((who, number)).integers(0, 20, (112, 112, 3))
    return (cv2.resize(pattern, (112, 112), interpolation=cv2.INTER_CUBIC) * 0.9 + noise).astype(np.uint8)


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    for who in range(PEOPLE):
        for number in (1, 2):
            canvas = np.zeros((160, 160, 3), np.uint8)
            canvas[MARGIN:-MARGIN, MARGIN:-MARGIN] = likeness(who, number)
            file = tmp_path / "photographs" / f"P{who}" / f"P{who}_{number:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), canvas[..., ::-1])
    mated = [[f"P{who}\t1\t2" for who in pair] for pair in ((0, 1), (2, 3))]
    apart = [["P0\t1\tP1\t1", "P1\t2\tP2\t2"], ["P2\t1\tP3\t1", "P3\t2\tP0\t2"]]
    lines = ["2\t2", *mated[0], *apart[0], *mated[1], *apart[1]]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def run(originals: Path, **finders: Find) -> list:
    named = {name: Detector(find, name, f"sha256 of {name}") for name, find in finders.items()}
    return through(named, EMBEDDER, originals / "photographs", originals / "pairs.txt", originals / "cache")


def test_points_that_disagree_cost_similarity_and_the_first_is_what_others_are_compared_with(
    originals: Path,
) -> None:
    good, same, bad = run(originals, good=exact, same=lambda photograph: exact(photograph), bad=askew)
    assert good.accuracy == 1.0
    assert good.less is None
    assert same.less == (0.0, 0.0)
    assert (same.sha256, same.folds, same.embedder) == ("sha256 of same", 2, "drawn")
    assert same.pairs == "8 pairs of photographs"
    assert bad.mated < good.mated - 0.1
    assert bad.less[0] == pytest.approx(bad.accuracy - good.accuracy)


def test_a_photograph_without_a_face_fails_its_mated_pair_alone(originals: Path) -> None:
    seen: list[int] = []

    def blind_once(photograph: Picture) -> Detections:
        seen.append(1)
        nothing = Detections(
            np.zeros((0, 4), np.float32), np.zeros((0, 5, 2), np.float32), np.zeros(0, np.float32)
        )
        return nothing if len(seen) == 1 else exact(photograph)

    (of,) = run(originals, blind=blind_once)
    assert (of.missed, of.photographs) == (1, 8)
    assert of.accuracy == pytest.approx(7 / 8)
    assert "no face in 1 of 8" in str(of)


def test_a_detector_is_asked_once_for_each_photograph(originals: Path) -> None:
    run(originals, good=exact)

    def never(photograph: Picture) -> Detections:
        raise AssertionError("asked again")

    assert run(originals, good=never)[0].accuracy == 1.0


def test_a_photograph_that_the_pairs_name_and_nobody_has_is_named(originals: Path) -> None:
    (originals / "photographs" / "P3" / "P3_0002.png").unlink()
    with pytest.raises(BadData, match=r"no photograph P3/P3_0002 "):
        run(originals, good=exact)


def test_the_verb_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACET_DATASETS", "")
    monkeypatch.setattr("training.landmarks.datasets", lambda: None)
    assert main(["landmarks", "--photographs", str(tmp_path)]) == 1
    assert "give --pairs" in capsys.readouterr().err


def test_a_checkpoint_answers_before_it_is_published_and_is_known_by_the_graph_s_digest(
    order: Order, tmp_path: Path
) -> None:
    """Exporting a checkpoint again gives the same bytes, so that publishing knows the figures for its own."""
    of = detector_at(order.detector)
    export_detector(trained_detector(order.detector).model, tmp_path / "detector.onnx")
    assert of.sha256 == ServedGraph(tmp_path / "detector.onnx").digest
    assert of.key == f"detector {of.sha256[:16]} from 0.5"
    answer = of.find(np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8))
    assert answer.landmarks.shape == (len(answer), 5, 2)


def test_a_bundle_s_detector_is_known_by_its_manifest(synthetic_bundle: Path) -> None:
    manifest = open_bundle(synthetic_bundle).manifest
    assert detector_at(synthetic_bundle).sha256 == manifest.files[manifest.detector.file].sha256
