"""The command trains, ends with one line that says what is wrong, and says how to go on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.embedder.runs import at_step
from training.config import REPOSITORY
from training.data.identities import Faces, load_faces
from training.data.shards import write_shards
from training.embedder import command
from training.embedder.backbones import BACKBONES
from training.embedder.command import main
from training.loop import checkpoint, ending
from training.loop.distributed import World

pytestmark = pytest.mark.usefixtures("tiny_backbone", "quick_tracking")


@pytest.fixture(scope="module")
def drawn_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face set of six people with two pictures each for training, and of two for validation."""
    root = tmp_path_factory.mktemp("set") / "faces"
    colour = np.random.default_rng(2).integers(0, 256, (8, 2, 3), np.uint8)
    flat = [
        (np.full((120, 120, 3), colour[who, n]), f"p{who}", "drawn") for who in range(8) for n in range(2)
    ]
    write_shards(root, flat)
    rows = [f"{who},{'train' if who < 6 else 'validation'},2" for who in range(8)]
    (root / "split.csv").write_text("\n".join(["identity,split,faces", *rows]))
    return root


def write_toml(folder: Path, distilled: bool = False, **changed: Any) -> Path:
    """A tiny run, without a teacher unless asked."""
    values = {
        "backbone": "tiny",
        "dimension": 16,
        "batch": 6,
        "epochs": 1,
        "precision": "fp32",
        "device": "cpu",
        "compile": False,
        **changed,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in values.items()]
    lines += ["schedule = { warmup = 1 }", f"distillation = {{ weight = {20 * distilled} }}"]
    (folder / "tiny.toml").write_text("\n".join(lines))
    return folder / "tiny.toml"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(of)}" for key, of in value.items()) + " }"
    return json.dumps(value)


def test_the_command_trains_or_looks_for_a_rate(
    tmp_path: Path, drawn_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["--config", str(write_toml(tmp_path)), "--run", str(tmp_path / "run"), "--faces", str(drawn_set)]
    monkeypatch.setattr(command, "find_rate", lambda *asked: 0.0123)
    assert main([*asked, "--find-rate"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("suggested learning_rate: 0.012;")
    assert not (tmp_path / "run").exists()
    assert main(asked) == 0
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 2


def test_a_run_is_repeated_from_what_it_left(tmp_path: Path, drawn_set: Path) -> None:
    file = write_toml(tmp_path, seed=11, sampling={"name": "balanced", "balance": 0.5})
    for config, run in ((file, "run"), (tmp_path / "run" / "config.json", "again")):
        assert main(["--config", str(config), "--run", str(tmp_path / run), "--faces", str(drawn_set)]) == 0
    one, other = (checkpoint.load(tmp_path / run / "last.pt") for run in ("run", "again"))
    assert one["config"] == other["config"]
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name


def test_the_command_explains_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for argument in ("--config", "--run", "--faces", "--teacher", "--find-rate", "the same command goes on"):
        assert argument in told


def the_one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    return told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "{}/none.toml"], "none.toml: no such file"),
        (["--config", "{}/wrong.toml"], "epoch"),
        (["--config", "{config}", "--faces", "{}/nowhere"], "nowhere: no such file or folder"),
        (["--config", "{config}", "--faces", "{}/empty"], "an empty folder; a set of faces is"),
        (["--config", "{config}", "--run", "{}/other"], "a checkpoint of 'detector', not of 'embedder'"),
        (["--config", "{config}", "--run", "{}/damaged"], "last.pt cannot be read"),
        (["--config", "{config}", "--run", "{}/folder"], "last.pt cannot be read ([Errno 21] Is a directory"),
        (
            ["--config", "{config}", "--run", "{}/module"],
            "last.pt cannot be read (it holds more than tensors",
        ),
        (["--config", "{config}", "--run", "{}/wrong.toml"], "wrong.toml: not a folder"),
        (["--config", "{config}", "--begin-from", "{}/none.pt"], "none.pt: no such checkpoint; begin from"),
        (["--config", "{config}", "--begin-from", "{}/wrong.toml"], "wrong.toml cannot be read"),
        (["--config", "{distils}", "--teacher", "{}/none.onnx"], "none.onnx: no such teacher"),
        (["--config", "{distils}", "--teacher", "{}/wrong.toml"], "wrong.toml takes nothing: a teacher is"),
        (["--config", "{distils}", "--teacher", "{}/module/last.pt"], "plain values); name another teacher"),
    ],
)
def test_bad_input_ends_in_one_line_of_the_first_rank(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    drawn_set: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.toml").write_text("epoch = 3")
    (tmp_path / "distils").mkdir()
    checkpoint.save(tmp_path / "other" / "last.pt", {"kind": "detector"})
    (tmp_path / "folder" / "last.pt").mkdir(parents=True)
    for name in ("damaged", "module"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / "last.pt").write_bytes(b"half")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module" / "last.pt")
    places = {
        "{config}": str(write_toml(tmp_path)),
        "{distils}": str(write_toml(tmp_path / "distils", distilled=True)),
        "{}": str(tmp_path),
    }
    asked = ["--faces", str(drawn_set), "--run", str(tmp_path / "run"), *arguments]
    for place, path in places.items():
        asked = [of.replace(place, path) for of in asked]
    assert main(asked) == 1
    assert message in the_one_line(capsys)
    for rank in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(rank, "1")
    monkeypatch.setattr(command, "start", lambda device: nullcontext(World(1, 1)))
    monkeypatch.setattr(ending, "SPEAKING_S", 0)
    assert main(asked) == 1
    assert "failed" not in capsys.readouterr().err


def replace(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def one_person(table: Path, split: str) -> None:
    """All but one of the split's people go to calibration."""
    lines = table.read_text().splitlines()
    first = next(line for line in lines if f",{split}," in line)
    table.write_text(
        "\n".join(of if of == first else of.replace(f",{split},", ",calibration,") for of in lines)
    )


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def spoil(shard: Path) -> None:
    """Other bytes where the second picture was."""
    with tarfile.open(shard) as tar:
        picture = list(tar)[1]
    data = bytearray(shard.read_bytes())
    data[picture.offset_data : picture.offset_data + picture.size] = bytes(picture.size)
    shard.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda of: replace(of / "train.csv", ",0,drawn,", ",-1,drawn,"), "identity '-1' is out of range"),
        (
            lambda of: replace(of / "train.csv", ",0,drawn,", ",8,drawn,"),
            "1 identities of train.csv have no split",
        ),
        (lambda of: replace(of / "train.csv", ",0,drawn,1.0", ",0,drawn,high"), "similarity_to_own_centroid"),
        (lambda of: (of / "train.csv").write_bytes(b"\xff\xfe"), "not a table in UTF-8"),
        (lambda of: replace(of / "split.csv", "0,train", "0,trian"), "split 'trian'; it is one of"),
        (lambda of: replace(of / "split.csv", ",validation", ",calibration"), "no face belongs to the split"),
        (
            lambda of: one_person(of / "split.csv", "train"),
            "of one identity; there is nobody to tell it from",
        ),
        (lambda of: halve(of / "train-00000.tar"), "truncated or corrupt at byte"),
        (lambda of: (of / "train-00000.tar").unlink(), "cannot be read as an uncompressed tar shard"),
        (lambda of: spoil(of / "train-00000.tar"), "0001.webp: not a readable picture"),
    ],
)
def test_a_set_that_cannot_be_used_ends_in_one_line_before_anything_is_written(
    harm: Callable[[Path], object],
    message: str,
    tmp_path: Path,
    drawn_set: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    faces = Path(shutil.copytree(drawn_set, tmp_path / "faces"))
    harm(faces)
    config = write_toml(tmp_path)
    assert main(["--config", str(config), "--faces", str(faces), "--run", str(tmp_path / "run")]) == 1
    assert message in the_one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_a_verification_set_is_not_trained_on(
    tmp_path: Path, drawn_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = Path(shutil.copytree(drawn_set, tmp_path / "faces"))
    (faces / "pairs.txt").write_text("10\t300\n")
    config = write_toml(tmp_path)
    assert main(["--config", str(config), "--faces", str(faces), "--run", str(tmp_path / "run")]) == 1
    assert "holds pairs.txt: a set to verify on" in the_one_line(capsys)


def test_training_and_validation_people_are_read_and_nobody_else(
    drawn_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def watched(path: Path, split: Any) -> Faces:
        read.append(split)
        return load_faces(path, split)

    monkeypatch.setattr(command, "open_faces", watched)
    faces, validation = command.splits(drawn_set)
    assert read == ["train", "validation"]
    assert set(faces.identity) == {0, 1, 2, 3, 4, 5}
    assert set(validation.identity) == {6, 7}


def test_a_picture_that_becomes_unreadable_meanwhile_ends_in_one_line_and_keeps_the_checkpoint(
    tmp_path: Path, drawn_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faces = Path(shutil.copytree(drawn_set, tmp_path / "faces"))
    monkeypatch.setattr(command, "open_faces", lambda path, split: load_faces(path, split, decoded=0))
    config = write_toml(tmp_path, workers=1, checkpoint_steps=1, epochs=10)
    at_step(monkeypatch, 6, lambda: spoil(faces / "train-00000.tar"))
    assert main(["--config", str(config), "--faces", str(faces), "--run", str(tmp_path / "run")]) == 1
    assert "train-00000.tar at byte" in the_one_line(capsys)
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] >= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_trains_as_the_command_line_asks_for_it(
    name: str, tmp_path: Path, drawn_set: Path
) -> None:
    file = write_toml(tmp_path, backbone=name, batch=2, epochs=0.34, evaluate_steps=1)
    command = [
        sys.executable, "-m", "training.embedder.train",
        "--config", str(file), "--run", str(tmp_path / "run"), "--faces", str(drawn_set)
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 2


@pytest.mark.slow
def test_torchrun_starts_it_as_the_page_says(tmp_path: Path, drawn_set: Path) -> None:
    file = write_toml(tmp_path, backbone="mobilefacenet", batch=2, epochs=0.67, evaluate_steps=1)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "--", "training.embedder.train",
        "--config", str(file), "--run", str(tmp_path / "run"), "--faces", str(drawn_set)
    ]  # fmt: skip
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    state = checkpoint.load(tmp_path / "run" / "last.pt")
    assert state["step"] == 2  # of four faces: twelve are three such steps
    assert "moments" in state["head"]  # the class centres were shared out
