"""Photographs of drawn people become a clean set, through a bundle's own detector and embedder, as they are served."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from bundle.align import align
from tests.drawn_faces import blank, draw_person, place_people
from training.data.alignment import with_border
from training.data.identities import load_faces
from training.data.pictures import BadData, decode_face, encode_face
from training.prepare import bundle_finder, embedder_at

PEOPLE, EACH = 8, 5


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people with five photographs each, and one of each thing that goes wrong."""
    root = tmp_path_factory.mktemp("raw") / "photographs"
    for who in range(PEOPLE):
        for variation in range(EACH):
            save(root / f"person {who}" / f"{variation}.png", draw_person(who, variation, 120))
    save(root / "person 0" / "wall.png", blank())
    save(root / "person 1" / "couple.png", place_people([1, 2], columns=2)[0])
    save(root / "person 2" / "small.png", draw_person(2, 0, 20))
    (root / "person 3" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    save(root / "person 4" / "again.jpg", draw_person(4, 1, 120))  # the same picture in another format
    save(root / "person 5" / "wrong.png", draw_person(6, 7, 120))  # somebody else
    return root


def save(file: Path, picture: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), picture[..., ::-1])


@pytest.fixture(scope="module")
def aligned(
    photographs: Path, synthetic_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The set, and what was printed."""
    to = tmp_path_factory.mktemp("aligned") / "set"
    with pytest.MonkeyPatch.context() as patch:
        told: list[str] = []
        patch.setattr("builtins.print", lambda *of, **_: told.append(" ".join(map(str, of))))
        assert run("align", photographs, "--to", to, "--bundle", synthetic_bundle) == 0
    return to, "\n".join(told)


def run(*arguments: object) -> int:
    from training.__main__ import main

    return main([str(of) for of in arguments])


@pytest.fixture
def face_set(aligned: tuple[Path, str], tmp_path: Path) -> Path:
    """A set without a split, so that everybody is looked at."""
    root = Path(shutil.copytree(aligned[0], tmp_path / "set"))
    (root / "split.csv").unlink(missing_ok=True)
    return root


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as opened:
        return list(csv.DictReader(opened))


def test_align_makes_a_set_and_tells_of_every_reject(aligned: tuple[Path, str], photographs: Path) -> None:
    root, told = aligned
    faces = load_faces(root)
    assert faces.people.tolist() == [f"person {who}" for who in range(PEOPLE)]
    assert len(faces) == PEOPLE * EACH + 2
    assert {of["photograph"]: of["reason"] for of in rows(root / "rejects.csv")} == {
        "person 0/wall.png": "no_face",
        "person 1/couple.png": "several_faces_ambiguous",
        "person 2/small.png": "too_small",
        "person 3/broken.jpg": "unreadable",
    }
    assert "aligned                        42" in told
    assert "several_faces_ambiguous         1" in told


def test_the_aligned_crops_are_those_that_the_service_would_embed(
    aligned: tuple[Path, str], synthetic_bundle: Path
) -> None:
    find, _ = bundle_finder(synthetic_bundle)
    photograph = draw_person(3, 2, 120)
    found = find(photograph)
    assert len(found) == 1
    picture = with_border(photograph, found.landmarks[0])
    assert np.array_equal(picture[4:-4, 4:-4], align(photograph, found.landmarks[0]))
    stored = decode_face(encode_face(picture), "the same")
    assert np.array_equal(load_faces(aligned[0]).pictures[3 * EACH + 2], stored)


def test_a_photograph_larger_than_the_canvas_is_found_in_its_own_pixels(synthetic_bundle: Path) -> None:
    find, name = bundle_finder(synthetic_bundle)
    scene, boxes = place_people([5], size=400)
    found = find(scene)
    x, y, width, height = boxes[0]
    assert found.boxes[0].tolist() == pytest.approx([x, y, x + width, y + height], abs=12)
    assert name.startswith("detector ")


def test_clean_proposes_what_is_wrong_and_applies_what_a_person_left(
    face_set: Path, synthetic_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to, runs = tmp_path / "proposals.csv", tmp_path / "runs"
    before = (face_set / "train.csv").read_bytes()
    common = ("clean", face_set, "--to", to, "--copy", 0.99)  # drawings of one person are nearly copies
    assert run(*common, "--embedder", synthetic_bundle, "--runs", runs) == 0
    found = {(of["finding"], of["identity"]) for of in rows(to)}
    assert found == {("copy", "4"), ("outlier", "5")}
    assert next(of for of in rows(to) if of["finding"] == "outlier")["other_identity"] == "6"
    assert "outliers                            1" in capsys.readouterr().out
    assert (face_set / "train.csv").read_bytes() == before  # nothing goes by itself
    kept = [line for line in to.read_text().splitlines() if ",copy," not in line]
    to.write_text("\n".join(kept) + "\n")  # a person strikes the copy out
    assert run(*common, "--apply") == 0
    assert (
        "1 faces dropped, 0 identities merged: 41 faces of 8 identities are left" in capsys.readouterr().out
    )
    assert len(load_faces(face_set)) == 41
    assert run(*common, "--apply") == 1
    assert "was it applied already?" in capsys.readouterr().err


def test_embeddings_are_kept_until_the_pictures_or_the_embedder_change(
    face_set: Path, synthetic_bundle: Path, tmp_path: Path
) -> None:
    runs, to = tmp_path / "runs", tmp_path / "p.csv"
    arguments = ("clean", face_set, "--to", to, "--runs", runs, "--embedder")
    assert run(*arguments, synthetic_bundle) == run(*arguments, synthetic_bundle / "embedder.onnx") == 0
    assert len(list((runs / "cache").iterdir())) == 1  # the same graph
    assert run(*arguments, synthetic_bundle, "--apply") == 0
    assert run(*arguments, synthetic_bundle) == 0
    assert len(list((runs / "cache").iterdir())) == 2


def test_overlap_finds_who_is_in_both_sets(
    face_set: Path, synthetic_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = tmp_path / "evaluation"
    (evaluation / "Person_7").mkdir(parents=True)
    (evaluation / "someone").mkdir()
    find, _ = bundle_finder(synthetic_bundle)
    pairs = []
    for who, name in ((7, "Person_7"), (30, "someone"), (31, "nobody else")):
        for variation in (11, 12):
            photograph = draw_person(who, variation, 120)
            save(
                evaluation / name / f"{name}_{variation:04d}.png",
                align(photograph, find(photograph).landmarks[0]),
            )
        pairs.append(f"{name}\t11\t12")
    pairs += ["Person_7\t11\tsomeone\t11", "someone\t11\tnobody else\t12", "Person_7\t12\tnobody else\t11"]
    (evaluation / "pairs.txt").write_text("\n".join(["1\t3", *pairs]) + "\n")
    to = tmp_path / "report" / "overlap.json"
    common = ("--embedder", synthetic_bundle, "--runs", tmp_path / "runs", "--to", to)
    assert run("overlap", face_set, "--evaluation", evaluation, *common) == 0
    told = json.loads(to.read_text())
    (report,) = told["evaluations"]
    assert (report["evaluation"], report["people"], report["overlapping"]) == ("evaluation", 3, 1)
    assert report["matches"][0]["person"] == "Person_7"
    assert report["matches"][0]["train_person"] == "person 7"
    assert report["matches"][0]["by"] == ["face", "name"]
    assert (
        "evaluation: 1 of 3 people may be among the 8 trained on (1 by face, 1 by name"
        in capsys.readouterr().out
    )


def test_a_sets_own_other_splits_are_looked_at_too(
    face_set: Path, synthetic_bundle: Path, tmp_path: Path
) -> None:
    split = ["train"] * 4 + ["validation"] * 2 + ["calibration"] * 2
    lines = ["identity,split,faces", *(f"{who},{of},5" for who, of in enumerate(split))]
    (face_set / "split.csv").write_text("\n".join(lines) + "\n")
    to = tmp_path / "overlap.json"
    common = ("--embedder", synthetic_bundle, "--runs", tmp_path / "runs", "--to", to)
    assert run("overlap", face_set, "--evaluation", face_set, *common) == 0
    reports = json.loads(to.read_text())["evaluations"]
    assert [of["evaluation"] for of in reports] == ["set, validation", "set, calibration"]
    assert [(of["people"], of["train_people"], of["overlapping"]) for of in reports] == [(2, 4, 0), (2, 4, 0)]


def test_what_is_no_embedder_is_refused(tmp_path: Path, synthetic_bundle: Path) -> None:
    (tmp_path / "text.onnx").write_text("not an ONNX file")
    with pytest.raises(BadData, match="not a bundle and not an ONNX file"):
        embedder_at(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(BadData, match="not an embedder that is known here"):
        embedder_at(tmp_path / "empty.onnx")


@pytest.mark.needs_data
def test_the_reference_embedder_is_known(datasets: Path) -> None:
    embedder = embedder_at(datasets / "reference" / "MobileFaceNet.onnx")
    vectors = embedder.embed(np.zeros((2, 112, 112, 3), np.uint8), "two")
    assert vectors.shape == (2, 128)
    assert np.linalg.norm(vectors, axis=1).tolist() == pytest.approx([1, 1])
