"""A smaller share's people are among a larger one's, every share trains as long, and what was measured stays."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import DrawnSets
from tests.training.data.plain_faces import encoded
from tests.training.embedder.runs import at_step
from tests.training.embedder.tiny import TINY, tiny
from training import ablate as ablating
from training.ablate import ablate, add_ablate, part_of
from training.config import BadConfig
from training.data.identities import Faces
from training.data.pairs import load_pairs
from training.embedder import train
from training.embedder.backbones import BACKBONES
from training.embedder.validation import embed
from training.evaluation.ablations import FILE, read_ablations
from training.evaluation.verification import ten_folds
from training.export.checkpoints import trained_embedder
from training.loop import checkpoint, tracking


def people(count: int) -> Faces:
    """Four pictures of each, which are one and the same noise."""
    identity = np.repeat(np.arange(count), 4)
    noise = np.random.default_rng(0).integers(0, 256, (count, 15, 15, 3), np.uint8)
    return Faces(
        pictures=noise.repeat(8, 1).repeat(8, 2)[identity],
        identity=identity + 50,
        label=identity,
        family=np.array([f"f{who}" for who in identity]),
        similarity=np.linspace(0.5, 1, 4 * count).astype(np.float32),
        source=np.array([f"s{who % 2}" for who in identity]),
        people=np.array([f"p{who}" for who in range(count)]),
    )


@pytest.fixture(scope="module")
def faces() -> Faces:
    return people(12)


@pytest.fixture(scope="module")
def validation() -> Faces:
    """Enough pairs for FMR 1e-3."""
    return people(40)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", TINY["tiny"])
    monkeypatch.setattr(train, "peak_flops", lambda device, dtype: 1e9)
    monkeypatch.setattr(tracking, "_commit", lambda: None)
    monkeypatch.setattr(tracking, "_tensorboard", lambda run, initial: None)


@pytest.mark.parametrize(("share", "persons"), [(1.0, 12), (0.5, 6), (0.3, 4), (0.25, 3), (0.001, 2)])
def test_a_share_has_all_faces_of_its_people_under_dense_labels(
    share: float, persons: int, faces: Faces
) -> None:
    some = part_of(faces, share)
    assert some.identities == persons
    assert len(some) == 4 * persons
    assert (np.bincount(some.label) == 4).all()
    for row, who in enumerate(some.identity - 50):
        assert some.people[some.label[row]] == f"p{who}"
        assert (some.family[row], some.source[row]) == (f"f{who}", f"s{who % 2}")
        assert np.array_equal(some.pictures[row], faces.pictures[4 * who])
    kept = np.isin(faces.identity, some.identity)
    assert np.array_equal(some.similarity, faces.similarity[kept])


def test_a_smaller_share_s_people_are_among_a_larger_one_s(faces: Faces) -> None:
    shares = [set(part_of(faces, share).identity) for share in (0.25, 0.5, 0.75, 1.0)]
    assert all(less < more for less, more in pairwise(shares))


@pytest.mark.usefixtures("quick")
def test_every_share_takes_as_many_steps_and_a_stopped_one_goes_on(
    tmp_path: Path, faces: Faces, validation: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(epochs=1.0)
    whole = ablate(config, tmp_path / "all", faces, validation, 1.0, None)
    assert (whole.steps, whole.identities, whole.faces, whole.distilled) == (12, 12, 48, False)
    at_step(monkeypatch, 7, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ablate(config, tmp_path / "half", faces, validation, 0.5, None)
    assert checkpoint.load(tmp_path / "half" / "last.pt")["step"] == 6
    half = ablate(config, tmp_path / "half", faces, validation, 0.5, None)
    assert (half.name, half.steps, half.identities, half.faces) == ("half", 12, 6, 24)
    assert 0 <= half.fnmr.low <= half.fnmr.value <= half.fnmr.high <= 1
    larger = tiny(epochs=1.0, batch=8)  # 20 faces are two and a half of its batches
    assert ablate(larger, tmp_path / "uneven", faces, validation, 0.4, None).steps == 6


def asked(folder: Path, *arguments: str) -> Namespace:
    (folder / "plain.toml").write_text(
        'backbone = "tiny"\ndimension = 16\nbatch = 4\nepochs = 0.25\nprecision = "fp32"\ndevice = "cpu"\n'
        "compile = false\nschedule = { warmup = 0 }\ndistillation = { weight = 0 }\n"
    )
    parser = ArgumentParser()
    add_ablate(parser.add_subparsers())
    return parser.parse_args(
        ["ablate", "--config", str(folder / "plain.toml"), "--runs", str(folder / "runs"), *arguments]
    )


@pytest.mark.usefixtures("quick")
def test_a_finished_run_is_measured_anew_on_lfw_without_a_step(
    tmp_path: Path,
    faces: Faces,
    validation: Faces,
    drawn_sets: DrawnSets,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ablating, "splits", lambda path: (faces, validation))
    of, file = asked(tmp_path, "--shares", "0.5"), tmp_path / "runs" / FILE
    monkeypatch.setattr(ablating, "datasets", lambda: None)
    of.act(of)
    (before,) = read_ablations(file)
    assert before.lfw is None
    assert "LFW" not in capsys.readouterr().out
    checkpointed = (tmp_path / "runs" / "ablations" / "plain-0.5" / "last.pt").read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(train, "train_step", never)
    monkeypatch.setattr(ablating, "datasets", lambda: drawn_sets.root)
    of.act(of)
    (after,) = read_ablations(file)
    assert (tmp_path / "runs" / "ablations" / "plain-0.5" / "last.pt").read_bytes() == checkpointed
    pairs = load_pairs(drawn_sets.root / "lfw")
    model = trained_embedder(tmp_path / "runs" / "ablations" / "plain-0.5" / "last.pt").model
    expected = ten_folds(pairs.similarity(embed(model, pairs.crops)), pairs.same, pairs.folds)
    assert (after.lfw, after.lfw_error) == expected
    assert after.model_copy(update={"lfw": None, "lfw_error": None}) == before
    assert f", LFW {after.lfw:.2%} ± " in capsys.readouterr().out


def test_pairs_without_folds_are_not_measured(tmp_path: Path) -> None:
    model = TINY["tiny"](16)
    assert ablating._on_lfw(model, tmp_path) is None
    for name in ("A/A_0001.png", "A/A_0002.png", "B/B_0001.png"):
        (tmp_path / "lfw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lfw" / name).write_bytes(encoded(ord(name[0])))
    for folds in (1, 2):
        lines = [f"{folds}\t1", *["A\t1\t2", "A\t1\tB\t1"] * folds]
        (tmp_path / "lfw" / "pairs.txt").write_text("\n".join(lines))
        assert (ablating._on_lfw(model, tmp_path) is None) == (folds == 1)


@pytest.mark.usefixtures("quick")
def test_a_run_s_own_configuration_repeats_it_under_its_name(
    tmp_path: Path, faces: Faces, validation: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablating, "splits", lambda path: (faces, validation))
    monkeypatch.setattr(ablating, "datasets", lambda: None)
    of = asked(tmp_path, "--shares", "1")
    of.act(of)
    of.config = tmp_path / "runs" / "ablations" / "plain-1" / "config.json"
    of.act(of)
    steps = {row.name: row.steps for row in read_ablations(tmp_path / "runs" / FILE)}
    assert steps == {"plain-1": 3, "plain-1-1": 3}


@pytest.mark.usefixtures("quick")
def test_what_was_measured_before_stays_and_the_same_name_is_measured_anew(
    tmp_path: Path,
    faces: Faces,
    validation: Faces,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ablating, "splits", lambda path: (faces, validation))
    monkeypatch.setattr(ablating, "datasets", lambda: None)
    file = tmp_path / "runs" / FILE
    for shares in (["0.5"], ["1", "0.5"]):
        of = asked(tmp_path, "--shares", *shares)
        of.act(of)
    told = {row.name: (row.identities, row.steps) for row in read_ablations(file)}
    assert told == {"plain-0.5": (6, 3), "plain-1": (12, 3)}
    assert capsys.readouterr().out.count("plain-0.5: FNMR ") == 2


@pytest.mark.parametrize("share", ["0", "-0.5", "1.5", "nan"])
def test_an_impossible_share_is_refused_before_anything_is_read(share: str, tmp_path: Path) -> None:
    of = asked(tmp_path, "--shares", "0.5", share)
    with pytest.raises(BadConfig, match=f"--shares {float(share):g}: a share of the people is above 0"):
        of.act(of)
    assert not (tmp_path / "runs").exists()


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    of = asked(tmp_path)
    of.config = tmp_path / "none.toml"
    with pytest.raises(BadConfig, match=r"none\.toml: no such file"):
        of.act(of)
