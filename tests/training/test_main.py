"""`python -m training`: bad input ends in one line and a status, whatever the verb; a stop has a status of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import __main__ as command
from training import prepare


def test_every_verb_is_listed_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    told = capsys.readouterr().out
    for verb in (
        "train-and-publish",
        "embedder",
        "detector",
        "evaluate",
        "publish",
        "align",
        "clean",
        "overlap",
        "check-boxes",
        "mark-faces",
        "write-coco",
        "verify",
    ):
        assert f"\n    {verb}" in told


@pytest.mark.parametrize("verb", ["align", "clean", "overlap", "publish"])
def test_every_verb_explains_its_arguments(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main([verb, "--help"])
    assert ended.value.code == 0
    assert "--threads" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["align", "{}/nowhere", "--to", "{}/set", "--bundle", "{bundle}"], "nowhere: no such folder"),
        (["align", "{}/empty", "--to", "{}/set", "--bundle", "{bundle}"], "no folder of photographs"),
        (["align", "{}/empty", "--to", "{}/set", "--bundle", "{}/nowhere"], "nowhere: no such folder"),
        (
            ["clean", "{}/empty", "--to", "{}/p.csv"],
            "clean needs --embedder to look for proposals, or --apply",
        ),
        (
            ["clean", "{}/empty", "--to", "{}/p.csv", "--embedder", "{bundle}"],
            "train.csv is missing",
        ),
        (["clean", "{}/empty", "--to", "{}/p.csv", "--apply"], "train.csv is missing"),
        (["clean", "{}/empty", "--to", "{}/p.csv", "--embedder", "{}/nowhere.onnx"], "nowhere.onnx"),
        (["overlap", "{}/empty", "--evaluation", "{}/e", "--embedder", "{bundle}"], "an empty folder"),
    ],
)
def test_bad_input_ends_in_one_line_that_says_what_is_wrong(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    synthetic_bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [of.replace("{bundle}", str(synthetic_bundle)).replace("{}", str(tmp_path)) for of in arguments]
    assert command.main(filled) == 1
    told = capsys.readouterr().err
    assert told.startswith("failed: ")
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "set").exists()
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("threads", ["0", "-1", "many"])
def test_impossible_threads_are_refused_by_name(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["align", "photographs", "--to", "set", "--threads", threads])
    assert "argument --threads: invalid positive value" in capsys.readouterr().err


def test_without_the_wheel_mtcnn_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.main(["align", str(tmp_path), "--to", str(tmp_path / "set"), "--detector", "mtcnn"]) == 1
    assert "pip install --no-deps facenet-pytorch==2.5.3" in capsys.readouterr().err


def test_a_stop_is_answered_with_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    synthetic_bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "align_photographs", stopped)
    arguments = ["align", str(tmp_path), "--to", str(tmp_path / "set"), "--bundle", str(synthetic_bundle)]
    assert command.main(arguments) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on from what is finished\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--synthetic", "small", "--detector-teacher", "{}/scrfd.onnx"],
            "drawn data take no --detector-teacher",
        ),
        (["--synthetic", "small", "--also-boxed", "{}/empty"], "what is published is drawn alone"),
        (["--photographs", "{}/empty"], "they need a --detector-teacher"),
        (["--detector-teacher", "{}/none.onnx"], "none.onnx: no such teacher"),
        (["--detector-teacher", "{}/notes.onnx"], "notes.onnx: not an ONNX graph"),
        (["--also-boxed", "{}/nowhere"], "nowhere: no such folder of photographs"),
    ],
)
@pytest.mark.parametrize("verb", ["train-and-publish", "detector"])
def test_what_the_detector_is_to_learn_from_is_looked_at_before_anything_is_trained(
    verb: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("empty", "sets"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.onnx").write_text("no graph")
    monkeypatch.setenv("FACET_DATASETS", str(tmp_path / "sets"))
    monkeypatch.setattr(command, "write_synthetic", lambda root, size, landmarks: root)
    filled = [of.replace("{}", str(tmp_path)) for of in arguments]
    assert command.main([verb, "--runs", str(tmp_path / "runs"), *filled]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_detector_s_own_process_is_given_what_it_is_to_learn_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("crowd", "doors", "sets"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("FACET_DATASETS", str(tmp_path / "sets"))
    begun: list[list[str]] = []

    class Process:
        def __init__(self, verb: list[str], **_: object) -> None:
            begun.append(verb)

        def wait(self) -> int:
            return 0

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(command.subprocess, "Popen", Process)
    monkeypatch.setattr(command, "_train_embedder", lambda *_: tmp_path / "e.pt")
    monkeypatch.setattr(command, "_publish", lambda *_: None)
    monkeypatch.setattr(command, "teacher_for", lambda config, path: None)
    monkeypatch.chdir(tmp_path)
    asked = ["train-and-publish", "--runs", "runs"]
    given = ["--detector-teacher", "scrfd.onnx", "--photographs", "crowd", "--also-boxed", "doors"]
    assert command.main([*asked, *given]) == 0
    verb = begun[0]
    assert verb[verb.index("detector") :] == [
        "detector",
        "--runs",
        f"{tmp_path}/runs",
        "--detector-teacher",
        f"{tmp_path}/scrfd.onnx",
        "--photographs",
        f"{tmp_path}/crowd",
        "--also-boxed",
        f"{tmp_path}/doors",
    ]
    assert "no dense teacher" not in capsys.readouterr().out
    assert command.main(asked) == 0
    assert "no dense teacher: the configuration's part [teacher] is switched off" in capsys.readouterr().out
