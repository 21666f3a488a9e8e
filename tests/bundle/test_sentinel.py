"""The sentinel: a swapped channel order, other weights or another input fail loudly, wherever they come from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from bundle import sentinel as module
from bundle.manifest import Manifest
from bundle.sentinel import LEAST, Sentinel, WrongAnswer, check, picture, sentinel
from tests.bundle.small_manifest import FILES, digest, fields

Floats = npt.NDArray[Any]


def embedder(seed: int = 0, dimension: int = 16) -> Any:
    """A random projection of a coarse picture: it sees colours and places."""
    weights = np.random.default_rng(seed).normal(size=(14 * 14 * 3, dimension))

    def run(crops: npt.NDArray[np.uint8]) -> Floats:
        coarse = crops.reshape(len(crops), 14, 8, 14, 8, 3).mean((2, 4)) - 127.5
        answer = coarse.reshape(len(crops), -1) @ weights
        return np.asarray(answer / np.linalg.norm(answer, axis=1, keepdims=True))

    return run


def swapped(run: Any) -> Any:
    return lambda crops: run(crops[..., ::-1])


def test_the_picture_is_the_same_bytes_everywhere_and_coloured() -> None:
    drawn = picture()
    assert (drawn.shape, drawn.dtype) == ((112, 112, 3), np.uint8)
    assert np.array_equal(drawn, picture())
    # A change of the drawing makes every published bundle's sentinel useless: it must be meant.
    assert module._digest().startswith("e2b9594194686ef6")
    red, _, blue = drawn.astype(int).mean((0, 1))
    assert abs(red - blue) > 20


def test_the_embedder_itself_passes_and_so_does_one_with_small_errors() -> None:
    run = embedder()
    expected = sentinel(run)
    assert check(expected, run) == pytest.approx(1, abs=1e-6)
    noise = np.random.default_rng(1).normal(size=16)
    assert LEAST <= check(expected, lambda crops: run(crops) + 0.01 * noise) < 1


def test_swapped_channels_are_refused_by_name() -> None:
    run = embedder()
    with pytest.raises(WrongAnswer, match="red and blue are swapped"):
        check(sentinel(run), swapped(run))


def test_other_weights_are_refused() -> None:
    with pytest.raises(WrongAnswer, match="other weights, another preprocessing"):
        check(sentinel(embedder(0)), embedder(1))


def test_an_embedder_that_does_not_see_colour_cannot_have_a_sentinel() -> None:
    run = embedder()

    def grey(crops: npt.NDArray[np.uint8]) -> Floats:
        level = crops.mean(-1, keepdims=True).astype(np.uint8)
        return np.asarray(run(np.repeat(level, 3, -1)))

    with pytest.raises(WrongAnswer, match="blind to colour"):
        sentinel(grey)


def test_an_embedder_that_answers_everything_alike_is_told_from_one_that_is_blind_to_colour() -> None:
    def collapsed(crops: npt.NDArray[np.uint8]) -> Floats:
        return np.tile(np.linspace(-1, 1, 16), (len(crops), 1))

    with pytest.raises(WrongAnswer, match="hardly trained, or it collapsed"):
        sentinel(collapsed)


def test_where_a_swap_moves_little_more_is_asked_of_every_answer() -> None:
    """An embedder that hardly looks at colour: the answer to the swapped picture is nearer than LEAST."""
    run, grey = embedder(), np.random.default_rng(2).normal(size=16)

    def pale(crops: npt.NDArray[np.uint8]) -> Floats:
        return np.asarray(run(crops) * 0.05 + grey)

    expected = sentinel(pale)
    assert expected.cosine_least > LEAST
    with pytest.raises(WrongAnswer, match="red and blue are swapped"):
        check(expected, swapped(pale))


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (embedder(dimension=8), "answers 8 numbers, the bundle says 16"),
        (lambda crops: np.full((1, 16), np.nan), "not finite"),
        (lambda crops: np.ones((2, 16)), r"\(2, 16\) for one picture"),
        (lambda crops: np.zeros((1, 16)), "cosine 0.0000"),
    ],
)
def test_answers_of_another_form_are_refused(run: Any, complaint: str) -> None:
    with pytest.raises(WrongAnswer, match=complaint):
        check(sentinel(embedder()), run)


def test_another_drawing_is_said_and_not_taken_for_a_wrong_answer() -> None:
    run = embedder()
    old = sentinel(run).model_copy(update={"picture": "0" * 64})
    with pytest.raises(WrongAnswer, match="draws another test picture"):
        check(old, run)


def manifest(**changes: Any) -> Manifest:
    files = {name: {"sha256": digest(name), "size": len(content)} for name, content in FILES.items()}
    return Manifest.model_validate_json(json.dumps({**fields(), "files": files, **changes}))


def test_a_manifest_carries_it_and_older_ones_do_without() -> None:
    kept = sentinel(embedder(dimension=128))
    assert manifest(sentinel=kept.model_dump()).sentinel == kept
    assert manifest().sentinel is None


def test_a_manifest_refuses_one_of_another_dimension() -> None:
    with pytest.raises(ValidationError, match="another dimension"):
        manifest(sentinel=sentinel(embedder(dimension=16)).model_dump())


def test_it_is_part_of_the_file_to_the_last_digit() -> None:
    kept = sentinel(embedder())
    assert Sentinel.model_validate_json(kept.model_dump_json()) == kept
