"""Any pairs are verified with known figures, what a set does not carry is a dash, and what is no set is named."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import DrawnSets
from tests.training.data.plain_faces import encoded
from tests.training.embedder.tiny import TINY, tiny
from training import verify as verifying
from training.__main__ import main
from training.data.identities import BadData, Faces
from training.data.pairs import Pairs, load_pairs
from training.data.pictures import encode_face
from training.embedder.backbones import BACKBONES
from training.embedder.student import build
from training.embedder.validation import embed
from training.export.checkpoints import trained_embedder
from training.export.measure import lfw_measured
from training.export.sessions import ServedGraph
from training.loop import checkpoint
from training.prepare import Embedder
from training.verify import REFERENCE, Verified, opened, verify


def pairs_of(similarity: np.ndarray, same: np.ndarray, folds: int = 10) -> tuple[Pairs, np.ndarray]:
    """Pairs, and vectors of which each pair has that cosine: of picture 0 and one of its own."""
    places = np.arange(1, len(same) + 1)
    blank = np.zeros((len(same) + 1, 1, 1, 3), np.uint8)
    pairs = Pairs(blank, tuple(map(str, range(len(blank)))), np.zeros_like(places), places, same, folds)
    plane = np.stack([similarity, np.sqrt(1 - similarity**2)], 1)
    return pairs, np.concatenate([[[1, 0]], plane]).astype(np.float32)


@pytest.mark.parametrize(("impostors", "carried"), [(10_000, True), (9_999, False)])
def test_the_figures_are_those_of_the_set_s_own_pairs(impostors: int, carried: bool) -> None:
    """A quarter of the mated pairs are unlike, and ten of the others alike: as many as FMR 1e-3 allows."""
    same = np.concatenate([np.ones(2000, bool), np.zeros(impostors, bool)])
    similarity = np.concatenate(
        [np.full(500, 0.1), np.full(1500, 0.9), np.full(10, 0.95), np.full(impostors - 10, 0.2)]
    )
    order = np.random.default_rng(0).permutation(len(same))
    found = Verified.measured(*pairs_of(similarity[order], same[order]))
    assert (found.pictures, found.pairs) == (len(same) + 1, len(same))
    assert found.accuracy is not None
    assert found.accuracy[0] == pytest.approx(1 - 510 / len(same), abs=1e-4)
    assert 0 < found.accuracy[1] < 0.005
    assert found.fnmr == (0.25 if carried else None)
    assert found.cells()[-1] == ("25.00%" if carried else "–")


def test_a_list_without_folds_has_no_accuracy() -> None:
    found = Verified.measured(*pairs_of(np.array([0.9, 0.1] * 10), np.array([True, False] * 10), folds=1))
    assert found.accuracy is None
    assert found.cells() == ["21", "20", "–", "–"]


def colours(crops: np.ndarray, name: str) -> np.ndarray:
    """float32 [n, 49 · 3]: a small picture, of length 1."""
    small = crops.reshape(len(crops), 7, 16, 7, 16, 3).mean((2, 4)).reshape(len(crops), -1).astype(np.float32)
    return small / np.linalg.norm(small, axis=1, keepdims=True)


EMBEDDER = Embedder(colours, "c010" * 16)


@pytest.fixture
def sets(tmp_path: Path, drawn_sets: DrawnSets) -> Path:
    """The drawn pairs as a folder and, the same ones, as a pack; and what is no set."""
    shutil.copytree(drawn_sets.root / "lfw", tmp_path / "lfw")
    pairs = load_pairs(tmp_path / "lfw")
    pictures = [encode_face(crop) for crop in pairs.crops]
    rows = np.stack([pairs.first, pairs.second], 1).ravel()
    pack = [pictures[row] for row in rows], pairs.same.tolist()
    (tmp_path / "pack.bin").write_bytes(pickle.dumps(pack))
    (tmp_path / "text.bin").write_text("no pickle")
    (tmp_path / "alike.bin").write_bytes(pickle.dumps(([encoded(1)] * 20, [True] * 10)))
    (tmp_path / "small.bin").write_bytes(pickle.dumps(([encoded(1, side=96)] * 20, [True] * 5 + [False] * 5)))
    (tmp_path / "empty").mkdir()
    return tmp_path


def rows_of(told: str) -> list[list[str]]:
    """The cells of a table's rows."""
    lines = [line for line in told.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[2:]]


def test_a_folder_and_a_pack_are_measured_alike(sets: Path) -> None:
    told = verify({"ours": EMBEDDER}, [sets / "lfw", sets / "pack.bin"], sets / "cache")
    folder, pack = rows_of(told)
    assert (folder[0], pack[0]) == (str(sets / "lfw"), str(sets / "pack.bin"))
    assert folder[1:4] == ["ours", "60", "40"]
    assert folder[5] == pack[5] == "–"
    assert folder[4].endswith("%")


def test_a_bundle_answers_with_its_served_graph_once_and_the_look_is_counted(
    sets: Path, synthetic_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACET_DATASETS", str(sets))
    asked = ["verify", "--embedder", str(synthetic_bundle), "--runs", str(sets / "runs")]
    assert main(asked) == 0
    told = capsys.readouterr().out
    ((name, embedder, *_),) = rows_of(told)
    assert (name, embedder) == (str(sets / "lfw"), str(synthetic_bundle))
    assert "Nothing may be selected" in told.splitlines()[-1]
    assert lfw_measured(sets, sets / "runs" / "publish" / "cache") == 1

    def never(*_: object) -> np.ndarray:
        raise AssertionError("asked again")

    monkeypatch.setattr(ServedGraph, "embed", never)
    assert main([*asked, "--pairs", str(sets / "lfw")]) == 0
    assert capsys.readouterr().out == told


def test_a_checkpoint_answers_with_its_average(
    tmp_path: Path, drawn_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", TINY["tiny"])
    config = tiny()
    checkpoint.save(tmp_path / "last.pt", build(config, drawn_faces).state(config))
    found = opened(tmp_path / "last.pt", threads=1)
    expected = embed(trained_embedder(tmp_path / "last.pt").model, drawn_faces.crops())
    np.testing.assert_allclose(found.embed(drawn_faces.crops(), "x"), expected, atol=1e-6)
    assert len(found.digest) == 64


def test_the_reference_has_rows_of_its_own_and_is_no_look_of_ours(
    sets: Path, synthetic_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACET_DATASETS", str(sets))
    monkeypatch.setattr(verifying, "embedder_at", lambda path, threads: EMBEDDER)
    asked = ["verify", "--embedder", str(synthetic_bundle), "--runs", str(sets / "runs"), "--reference"]
    assert main(asked) == 1
    assert "the reference embedder is not here" in capsys.readouterr().err
    (sets / "reference").mkdir()
    (sets / "reference" / "MobileFaceNet.onnx").touch()
    assert main(asked) == 0
    assert [row[1] for row in rows_of(capsys.readouterr().out)] == [str(synthetic_bundle), REFERENCE]
    assert lfw_measured(sets, sets / "runs" / "publish" / "cache") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{}/nowhere.bin", "nowhere.bin: no such file or folder"),
        ("{}/empty", "empty: no pairs found; a set of faces is one of"),
        ("{}/text.bin", "text.bin: truncated, or not a verification pack"),
        ("{}/small.bin", "small.bin:0: 96 × 96 pixels, expected 120 × 120 or 112 × 112"),
        ("{}/alike.bin", "alike.bin: all pairs are of one kind"),
        ("{}/lfw/pairs.txt", "pairs.txt: no pairs found"),
    ],
)
def test_what_is_no_set_of_pairs_is_named(
    given: str,
    message: str,
    sets: Path,
    synthetic_bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = given.replace("{}", str(sets))
    asked = ["verify", "--embedder", str(synthetic_bundle), "--runs", str(sets / "runs"), "--pairs", path]
    assert main(asked) == 1
    assert message in capsys.readouterr().err


def test_a_misspelt_set_is_named_before_the_first_is_embedded(
    sets: Path, synthetic_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["verify", "--embedder", str(synthetic_bundle), "--runs", str(sets / "runs")]
    assert main([*asked, "--pairs", str(sets / "lfw"), str(sets / "nowhere")]) == 1
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    assert not (sets / "runs").exists()


@pytest.mark.parametrize(
    ("embedder", "message"),
    [
        ("{}/nowhere.pt", "nowhere.pt: no such checkpoint"),
        ("{}/text.bin", "text.bin cannot be read"),
        ("{}/empty", "no bundle.json"),
    ],
)
def test_what_is_no_embedder_is_named(
    embedder: str, message: str, sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = embedder.replace("{}", str(sets))
    assert (
        main(["verify", "--embedder", path, "--pairs", str(sets / "lfw"), "--runs", str(sets / "runs")]) == 1
    )
    assert message in capsys.readouterr().err


def test_without_data_sets_pairs_have_to_be_given(
    monkeypatch: pytest.MonkeyPatch, synthetic_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verifying, "datasets", lambda: None)
    assert main(["verify", "--embedder", str(synthetic_bundle)]) == 1
    assert "give --pairs" in capsys.readouterr().err


def test_an_embedder_that_answers_nonsense_is_named_with_the_set(sets: Path) -> None:
    broken = Embedder(lambda crops, name: np.full((len(crops), 4), np.nan, np.float32), "0" * 64)
    with pytest.raises(BadData, match=r"broken on .*lfw: embeddings must be unit vectors"):
        verify({"broken": broken}, [sets / "lfw"], sets / "cache")
