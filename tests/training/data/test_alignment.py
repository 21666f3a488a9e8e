"""Raw photographs become a set with nothing lost on the way: each ends as a face or as a reject with its reason."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from bundle.align import TEMPLATE, align
from bundle.decode import Detections
from training.data.alignment import (
    REJECTS,
    Aligned,
    Policy,
    align_photographs,
    choose,
    prominence,
    with_border,
)
from training.data.identities import load_faces
from training.data.pictures import BadData
from training.data.raw_photographs import Rejected
from training.data.scenes import draw_scene

SIZE = 200


def landmarks_at(scale: float, angle: float, x: float, y: float) -> np.ndarray:
    """The template turned and scaled about the picture's (x, y): a crop enlarges where scale is below 1."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((TEMPLATE - 56) @ turn.T + (x, y)).astype(np.float32)


@pytest.fixture(scope="module")
def smooth() -> np.ndarray:
    """A picture without edges, so that where a warp samples shows as brightness."""
    coarse = np.random.default_rng(3).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (800, 600), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("scale", [0.4, 1.0, 1.7, 2.3, 3.6])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.5])
def test_the_middle_is_the_served_crop_pixel_for_pixel(
    smooth: np.ndarray, scale: float, angle: float
) -> None:
    points = landmarks_at(scale, angle, 400, 300)
    assert np.array_equal(with_border(smooth, points)[4:-4, 4:-4], align(smooth, points))


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.9, 2.6, 3.6])
def test_the_border_continues_the_crop_on_each_side(smooth: np.ndarray, scale: float) -> None:
    picture = with_border(smooth, landmarks_at(scale, 0.3, 400, 300))
    # where pixel (u, v) of the 120 × 120 lies in the photograph
    turn = scale * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    grid = np.stack(np.meshgrid(np.arange(120), np.arange(120)), -1) - 60.0
    place = (grid @ turn.T + (400, 300)).astype(np.float32)
    expected = cv2.remap(smooth, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
    assert np.abs(picture.astype(int) - expected).max() <= 6  # of 255; a pixel further is up to 10 more


def test_a_face_at_the_edge_is_padded_with_black_not_wrapped(smooth: np.ndarray) -> None:
    picture = with_border(smooth + np.uint8(0), landmarks_at(1.0, 0, 10, 300))
    assert not picture[:, :40].any()
    assert picture[:, 60:].any()


def test_landmarks_that_coincide_fix_no_alignment(smooth: np.ndarray) -> None:
    with pytest.raises(ValueError, match="coincide"):
        with_border(smooth, np.full((5, 2), 50, np.float32))


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(corners, np.zeros((len(corners), 5, 2), np.float32), np.ones(len(corners), np.float32))


@pytest.mark.parametrize(
    ("faces", "expected"),
    [
        (found(), "no_face"),
        (found((300, 200, 400, 300)), 0),
        (found((10, 10, 60, 60), (270, 190, 370, 290)), 1),  # larger and more central
        (found((0, 0, 110, 110), (270, 190, 370, 290)), 1),  # as large, in the corner
        (found((170, 190, 270, 290), (370, 190, 470, 290)), "several_faces_ambiguous"),
        (found((270, 190, 370, 290), (100, 190, 175, 265)), 0),  # 0.56 of the area, but further out
        (found((300, 200, 400, 220)), "too_small"),
        (found((0, 0, 20, 20), (310, 210, 341, 241)), "too_small"),
    ],
)
def test_the_largest_most_central_face_is_taken_or_nobody_can_tell(
    faces: Detections, expected: int | str
) -> None:
    chosen = choose(faces, 640, 480, Policy())
    assert (chosen.reason if isinstance(chosen, Rejected) else chosen) == expected


def test_prominence_is_the_area_inside_the_picture_less_for_what_lies_outward() -> None:
    middle, outward, cut = prominence(
        np.array([(269.5, 189.5, 369.5, 289.5), (-0.5, 189.5, 99.5, 289.5), (-50.5, 189.5, 99.5, 289.5)]),
        640,
        480,
    )
    assert middle == pytest.approx(10_000)
    assert outward == pytest.approx(10_000 * (1 - 270 / 400))  # half of the diagonal is 400 pixels
    assert cut == pytest.approx(outward)  # what lies outside does not count


class Photographs:
    """People drawn into photographs, and what a detector without fault would find in each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[bytes, Detections] = {}
        self.seen: list[bytes] = []

    def add(self, name: str, person: int, variation: int, faces: int = 1) -> None:
        scene = draw_scene(person * 100 + variation, 200, 160, people=[person] * faces)
        self.write(name, scene.pixels, Detections(scene.boxes, scene.landmarks, np.ones(len(scene.boxes))))

    def write(self, name: str, pixels: np.ndarray, of: Detections | None = None) -> None:
        self.found[pixels.tobytes()] = found() if of is None else of
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(self.root / name), pixels[..., ::-1])

    def find(self, photograph: np.ndarray) -> Detections:
        self.seen.append(photograph.tobytes())
        return self.found[photograph.tobytes()]


@pytest.fixture
def photographs(tmp_path: Path) -> Photographs:
    """Four people with three good photographs each."""
    made = Photographs(tmp_path / "photographs")
    for person in range(4):
        for variation in range(3):
            made.add(f"person {person}/{variation}.png", person, variation)
    return made


def run(of: Photographs, to: str = "set", find: Callable | None = None, **options: object) -> Aligned:
    policy = Policy(least=20)
    return align_photographs(of.root, of.root.parent / to, find or of.find, "fake", policy, **options)  # type: ignore[arg-type]


def rejects(root: Path) -> dict[str, str]:
    with (root / REJECTS).open(newline="") as file:
        return {row["photograph"]: row["reason"] for row in csv.DictReader(file)}


def test_an_aligned_set_is_read_with_its_people_and_its_pictures(photographs: Photographs) -> None:
    done = run(photographs)
    assert (done.faces, done.identities, done.rejected.total(), done.lost) == (12, 4, 0, ())
    faces = load_faces(photographs.root.parent / "set")
    assert faces.people.tolist() == [f"person {n}" for n in range(4)]
    assert faces.source.tolist() == ["photographs"] * 12
    scene = draw_scene(201, 200, 160, people=[2])
    truth = with_border(scene.pixels, scene.landmarks[0])
    assert np.abs(faces.pictures[7].astype(int) - truth).mean() < 3  # stored as WebP


def test_people_enough_get_a_split_too(tmp_path: Path) -> None:
    made = Photographs(tmp_path / "photographs")
    for person in range(20):
        made.add(f"{person:02d}/a.png", person, 0)
    assert "split.csv: 17 train, 1 validation, 2 calibration" in str(run(made))
    assert len(load_faces(tmp_path / "set", "train")) == 17


def test_too_few_people_for_a_split_are_said(photographs: Photographs) -> None:
    assert "no split.csv (" in str(run(photographs))


def test_every_file_is_a_face_or_a_reject_with_its_reason(photographs: Photographs) -> None:
    root = photographs.root
    photographs.write("person 0/wall.png", np.full((90, 90, 3), 60, np.uint8))
    photographs.add("person 1/couple.png", 1, 7, faces=2)
    pair = found((60, 60, 120, 120), (80, 60, 140, 120))
    photographs.write("person 1/twins.png", np.full((160, 200, 3), 61, np.uint8), pair)
    photographs.write("person 1/far.png", np.full((160, 200, 3), 62, np.uint8), found((90, 70, 100, 80)))
    photographs.write("person 2/dot.png", np.full((160, 200, 3), 63, np.uint8), found((60, 60, 120, 120)))
    photographs.add("person 2/album/deep.png", 2, 9)
    jpeg = cv2.imencode(".jpg", draw_scene(5).pixels)[1].tobytes()
    (root / "person 3" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (root / "person 3" / "notes.txt").write_text("not a picture")
    (root / "person 3" / "nothing.png").touch()
    (root / "person 3" / "gone.png").symlink_to(root / "nowhere")
    (root / "loose.png").write_bytes(jpeg)
    (root / "nobody").mkdir()
    (root / "only bad").mkdir()
    (root / "only bad" / "a.webp").write_bytes(b"RIFF")
    (root / "person 0" / ".DS_Store").write_bytes(b"left by a system")
    done = run(photographs)
    why = rejects(root.parent / "set")
    couple = why.pop("person 1/couple.png", None)  # two drawn in places of their own: taken or told
    assert couple in (None, "several_faces_ambiguous")
    assert why == {
        "loose.png": "no_identity",
        "nobody/": "empty_folder",
        "only bad/a.webp": "unreadable",
        "person 0/wall.png": "no_face",
        "person 1/far.png": "too_small",
        "person 1/twins.png": "several_faces_ambiguous",
        "person 2/dot.png": "no_alignment",
        "person 3/cut.jpg": "unreadable",
        "person 3/gone.png": "unreadable",
        "person 3/notes.txt": "unreadable",
        "person 3/nothing.png": "unreadable",
    }
    assert done.lost == ("nobody", "only bad")
    files = sum(len([f for f in names if not f.startswith(".")]) for _, _, names in os.walk(root))
    assert done.faces + done.rejected.total() == files + 1  # the empty folder is a line too
    assert "unreadable                      5" in str(done)
    assert "2 identities lost every photograph: nobody, only bad" in str(done)


def contents(root: Path) -> dict[str, bytes]:
    return {of.name: of.read_bytes() for of in sorted(root.iterdir())}


@pytest.mark.parametrize("threads", [1, 3])
def test_a_run_that_was_stopped_goes_on_and_ends_in_the_same_bytes(tmp_path: Path, threads: int) -> None:
    made = Photographs(tmp_path / "photographs")
    for n in range(20):
        made.add(f"{n % 2}/{n:03d}.png", n % 2, n)
    calls = 0

    def stopped(photograph: np.ndarray) -> Detections:
        nonlocal calls
        calls += 1
        if calls > 17:
            raise KeyboardInterrupt
        return made.find(photograph)

    whole = run(made, "whole")
    with pytest.raises(KeyboardInterrupt):
        run(made, "set", stopped, threads=1)
    assert not (tmp_path / "set").exists()
    made.seen.clear()
    done = run(made, "set", threads=threads)
    assert len(made.seen) == 4  # the journal has an entry every 16 photographs
    assert done == whole
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")
    assert not (tmp_path / "set.partial").exists()


def test_photographs_that_came_or_changed_since_are_looked_at_and_no_others(photographs: Photographs) -> None:
    root = photographs.root
    shutil.move(root / "person 3", root.parent / "later")
    disk_runs_full(photographs)
    shutil.move(root.parent / "later", root / "person 3")
    photographs.write("person 1/2.png", np.full((90, 91, 3), 60, np.uint8))
    photographs.seen.clear()
    done = run(photographs)
    assert len(photographs.seen) == 4
    assert (done.faces, done.identities) == (11, 4)
    assert rejects(root.parent / "set") == {"person 1/2.png": "no_face"}


def disk_runs_full(of: Photographs) -> None:
    """A run that ends when everything is looked at and nothing is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.data.alignment.write_shards", _full_disk)
        with pytest.raises(OSError, match="No space left"):
            run(of)


def _full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_another_policy_does_not_go_on_with_a_journal(photographs: Photographs) -> None:
    disk_runs_full(photographs)
    with pytest.raises(
        BadData, match=r"set.partial was begun otherwise: .*remove .*set.partial to begin anew"
    ):
        align_photographs(
            photographs.root, photographs.root.parent / "set", photographs.find, "fake", Policy(least=90)
        )


def test_a_journal_that_is_none_is_named(photographs: Photographs) -> None:
    work = photographs.root.parent / "set.partial"
    work.mkdir()
    (work / "journal.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(BadData, match=r"journal.sqlite: file is not a database; .* remove .*set.partial"):
        run(photographs)


def test_bad_folders_are_refused_before_anything_is_looked_at(
    photographs: Photographs, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one" / "ada").mkdir(parents=True)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("dear")
    for source, to, message in (
        (tmp_path / "nowhere", "set", "no such folder"),
        (tmp_path / "empty", "set", "no folder of photographs; expected one for each of two people"),
        (tmp_path / "one", "set", "one folder of photographs; expected one for each of two people"),
        (photographs.root, "full", "holds something already"),
        (photographs.root, "full/letter.txt", "holds something already"),
        (photographs.root, "photographs/set", "lies among the photographs"),
    ):
        with pytest.raises(BadData, match=message):
            align_photographs(source, tmp_path / to, photographs.find, "fake")
    assert photographs.seen == []
    assert (full / "letter.txt").read_text() == "dear"


def test_where_one_identity_is_left_the_rejects_say_why(photographs: Photographs) -> None:
    def only_the_first(photograph: np.ndarray) -> Detections:
        right = photograph.tobytes() == draw_scene(0, 200, 160, people=[0]).pixels.tobytes()
        return photographs.find(photograph) if right else found()

    with pytest.raises(BadData, match=r"1 of 4 identities have a face left.*set.partial/rejects.csv"):
        run(photographs, find=only_the_first)
    assert set(rejects(photographs.root.parent / "set.partial").values()) == {"no_face"}
