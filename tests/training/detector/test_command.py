"""The command: from boxed photographs to a checkpoint, and one line for whatever is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.training.data.annotations.drawn_set import coco, draw_pictures, encoded
from tests.training.detector.oblongs import SMALL, oblongs
from tests.training.detector.scrfd import write_scrfd
from training.detector import command, train
from training.detector.command import main
from training.detector.config import Backbone
from training.detector.student import build
from training.loop import checkpoint, tracking
from training.loop.records import PHOTOGRAPHS

TOML = """
backbone = { widths = [8, 8, 8, 8], depths = [1, 1, 1, 1] }
pyramid = 8
sides = [64]
batch = 4
epochs = 0.5
precision = "fp32"
device = "cpu"
schedule = { warmup = 1 }
compile = false
"""


@pytest.fixture(autouse=True)
def _quick_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "peak_flops", lambda device, dtype: 1e11)
    monkeypatch.setattr(tracking, "_commit", lambda: None)
    monkeypatch.setattr(command, "datasets", lambda: None)
    monkeypatch.setattr(tracking, "_tensorboard", lambda folder, initial: None)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets, graphs and checkpoints, good and bad."""
    root = tmp_path_factory.mktemp("places")
    (root / "small.toml").write_text(TOML)
    (root / "wrong.toml").write_text(TOML + "epoch = 3")
    (root / "none.toml").write_text(TOML + "teacher = { weight = 0 }")
    (root / "doors").mkdir()
    for place, one in enumerate(oblongs(24)):
        cv2.imwrite(str(root / "doors" / f"{place}.png"), one.pixels[..., ::-1])
        (x1, y1, x2, y2), (height, width) = one.boxes[0] + 0.5, one.pixels.shape[:2]
        box = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
        (root / "doors" / f"{place}.txt").write_text(f"0 {' '.join(f'{of:.6f}' for of in box)}\n")
    (root / "crowd").mkdir()
    for place in range(3):
        noise = np.random.default_rng(place).integers(0, 256, (120, 160, 3), np.uint8)
        cv2.imwrite(str(root / "crowd" / f"{place}.jpg"), noise)
    (root / "empty").mkdir()
    defects(root)
    write_scrfd(root / "scrfd.onnx")
    checkpoint.save(root / "embedder" / "last.pt", {"kind": "embedder", "config": {}})
    other = SMALL.model_copy(update={"backbone": Backbone(name="mobilenet", width=0.25)})
    checkpoint.save(root / "mobilenet" / "last.pt", build(other).state(other))
    (root / "damaged").mkdir()
    (root / "damaged" / "last.pt").write_bytes(b"half")
    return root


def defects(root: Path) -> None:
    """COCO lists of three pictures, each with a box that cannot be."""
    for name, box in (
        ("outside", [70, 10, 20, 20]),
        ("nan", [float("nan"), 10, 20, 20]),
        ("fractions", [0.1, 0.2, 0.3, 0.4]),
    ):
        (root / name).mkdir()
        file = coco(root / name)
        of = json.loads(file.read_text())
        of["annotations"][0]["bbox"] = box
        file.write_text(json.dumps(of))


def asked(places: Path, run: Path, *more: str) -> list[str]:
    basic = ["--config", str(places / "small.toml"), "--run", str(run), "--boxed", str(places / "doors")]
    return [*basic, *(of.replace("{}", str(places)) for of in more)]


def test_boxed_photographs_become_a_checkpoint_that_knows_them(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked(places, tmp_path / "run")) == 0
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    (record,) = state[PHOTOGRAPHS]
    assert (record["name"], record["labels"], record["terms"]) == (
        "doors",
        "official (YOLO text)",
        "not stated",
    )
    assert record["faces"] == record["pictures"] > 15
    assert "the five points are not learnt" in capsys.readouterr().err
    assert (tmp_path / "run" / "best.pt").is_file()


def test_a_run_is_repeated_from_what_it_left(places: Path, tmp_path: Path) -> None:
    assert main(asked(places, tmp_path / "run", "--epochs", "0.4")) == 0
    left = ["--config", str(tmp_path / "run" / "config.json"), "--run", str(tmp_path / "again")]
    assert main([*left, "--boxed", str(places / "doors")]) == 0
    one, other = (checkpoint.load(tmp_path / run / "last.pt") for run in ("run", "again"))
    assert one["config"] == other["config"]
    assert one["step"] == other["step"]
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name


def test_a_teacher_and_bare_photographs_take_part_and_are_recorded(places: Path, tmp_path: Path) -> None:
    more = ("--teacher", "{}/scrfd.onnx", "--photographs", "{}/crowd", "--epochs", "0.4")
    assert main(asked(places, tmp_path / "run", *more)) == 0
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    doors, crowd = state[PHOTOGRAPHS]
    assert doors["labels"].startswith("official (YOLO text); imitates scrfd.onnx sha256:")
    assert crowd["labels"].startswith("pseudo, by scrfd.onnx sha256:")
    assert (crowd["pictures"], crowd["faces"]) == (3, 0)
    assert state["config"]["epochs"] == 0.4
    begun = asked(places, tmp_path / "next", "--begin-from", str(tmp_path / "run" / "last.pt"))
    assert main(begun) == 0
    state = checkpoint.load(tmp_path / "next" / "last.pt")
    assert [of["name"] for of in state[PHOTOGRAPHS]] == ["doors", "crowd", "doors"]
    assert len(state["lineage"]) == 1


def test_training_goes_on_past_what_is_wrong_in_a_set_and_reports_it(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundredth of the pictures may be unusable; what is only changed, or never had its other half, is no matter."""
    names = [f"{number:03d}.png" for number in range(200)]
    draw_pictures(tmp_path / "set", [*names, "unannotated.png"])
    boxes = dict.fromkeys([*names, "missing.png"], "5 5 20 20")
    boxes |= {names[20]: "70 5 20 20", names[30]: "5 5 0 20"}
    (tmp_path / "set" / names[10]).write_bytes(encoded(names[10])[:-200])
    lines = (f"{name}\n1\n{box} 0 0 0 0 0 0\n" for name, box in boxes.items())
    (tmp_path / "set" / "list_bbx_gt.txt").write_text("".join(lines))
    run = tmp_path / "run"
    assert main(asked(places, run, "--epochs", "0.1", "--boxed", str(tmp_path / "set"))) == 0
    said = capsys.readouterr().out
    for kind in ("unreadable", "outside", "no_area", "no_annotation", "no_picture"):
        assert said.count(f"  1 {kind} (") == 1
    assert checkpoint.load(run / "last.pt")["step"] > 2


def test_more_sets_join_the_data_sets_own(
    places: Path, tmp_path: Path, drawn_sets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "datasets", lambda: drawn_sets.root)
    (tmp_path / "landmarks.npz").write_bytes(drawn_sets.landmarks.read_bytes())
    monkeypatch.setattr(command, "train", lambda *given: kept.append(given))
    kept: list[Any] = []
    basic = ["--config", str(places / "small.toml"), "--run", str(tmp_path / "run")]
    assert main([*basic, "--also-boxed", str(places / "doors")]) == 0
    photographs, selection = kept[0][2:4]
    assert [of.name for of in photographs.records] == ["wider", "masks", "doors"]
    assert [of.left_out for of in photographs.records] == [0, 0, 0]
    assert {one.name.startswith("train/") for one in selection} == {True, False}


def test_the_rate_is_swept_where_that_is_asked_for(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_rate", lambda *given: 0.0123)
    assert main(asked(places, tmp_path / "run", "--find-rate")) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("suggested learning_rate: 0.012;")
    assert not (tmp_path / "run").exists()


BAD = [
    (["--config", "{}/none-such.toml"], "none-such.toml: no such file"),
    (["--config", "{}/wrong.toml"], "epoch: there is no such key"),
    (["--epochs", "-1"], "--epochs -1: a number above 0"),
    (["--epochs", "nan"], "--epochs nan: a number above 0"),
    (["--boxed", "{}/nowhere"], "nowhere: no such file or folder; a set of boxed photographs is one of"),
    (["--boxed", "{}/empty"], "an empty folder; a set of boxed photographs is one of"),
    (["--boxed", "{}/crowd"], "no annotation; a set of boxed photographs is one of"),
    (
        ["--boxed", "{}/outside/faces.json"],
        "annotation 0: outside: no part of it is in the picture of 64 × 48",
    ),
    (
        ["--boxed", "{}/nan/faces.json"],
        "annotation 0: not_a_number: the box has coordinates that are no numbers",
    ),
    (
        ["--boxed", "{}/fractions/faces.json"],
        "annotation 0: normalised: fractions of the picture where pixels",
    ),
    (["--faces", "7"], "no box is of the class 7; there are 0"),
    (["--photographs", "{}/crowd"], "they need a --teacher to say what is on them"),
    (["--teacher", "{}/scrfd.onnx", "--photographs", "{}/empty"], "empty: no readable picture"),
    (["--teacher", "{}/none.onnx"], "none.onnx: no such teacher"),
    (["--teacher", "{}/small.toml"], "small.toml: not an ONNX graph"),
    (["--teacher", "{}/scrfd.onnx", "--config", "{}/none.toml"], "gives a teacher no weight"),
    (["--run", "{}/embedder"], "a checkpoint of 'embedder', not of 'detector'"),
    (["--run", "{}/mobilenet"], "is of another model: it was trained with backbone"),
    (["--run", "{}/damaged"], "last.pt cannot be read"),
    (["--begin-from", "{}/nowhere.pt"], "nowhere.pt: no such checkpoint; begin from another run"),
    (["--begin-from", "{}/damaged/last.pt"], "begin from another run"),
    (["--begin-from", "{}/embedder/last.pt"], "is not a detector's checkpoint"),
    (["--begin-from", "{}/mobilenet/last.pt"], "that is mobilenet × 0.25, this resnet 8-8-8-8"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_bad_input_ends_in_one_line_of_the_first_rank(
    arguments: list[str],
    message: str,
    places: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled = asked(places, tmp_path / "run", *arguments)
    assert main(filled) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(told) == 1
    assert message in told[0]
    assert not (tmp_path / "run" / "last.pt").exists()


def test_without_data_sets_the_way_out_is_said(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "datasets", lambda: None)
    assert main(["--config", str(places / "small.toml"), "--run", str(tmp_path / "run")]) == 1
    assert "set FACET_DATASETS, give --boxed, or run `make train-and-publish`" in capsys.readouterr().err


def test_the_command_explains_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for argument in ("--boxed", "--also-boxed", "--teacher", "--photographs", "--begin-from", "Pascal VOC"):
        assert argument in told
