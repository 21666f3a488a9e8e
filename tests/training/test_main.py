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
