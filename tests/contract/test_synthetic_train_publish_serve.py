"""The two halves fit: drawn data is trained on and published by one command, and the service recognises with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
import pytest_asyncio

from bundle.folder import open_bundle
from service.bootstrap import build
from service.config import load_settings
from service.rest.app import create_app
from training.config import REPOSITORY
from training.data.scenes import draw_scene

of_one_loop = pytest.mark.asyncio(loop_scope="module")

KEY = "an admin key of the tests, long enough to be one"
PEOPLE = range(700_000, 700_008)  # drawn like the training's, but nobody that it has seen
STRANGERS = range(710_000, 710_020)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The bundle's folder and what the command printed; about two minutes on two cores."""
    folder = tmp_path_factory.mktemp("walk")
    command = [sys.executable, "-m", "training", "train-and-publish", "--synthetic", "small"]
    done = subprocess.run(
        [*command, "--runs", str(folder / "runs"), "--to", str(folder / "models" / "synthetic")],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    outcome = folder / "runs" / "synthetic-small" / "publish" / "outcome.json"
    assert done.returncode == 0, done.stderr[-2000:] + (outcome.read_text() if outcome.is_file() else "")
    return folder / "models" / "synthetic", done.stdout


def picture(person: int, number: int) -> bytes:
    scene = draw_scene(number, 320, 240, people=[person])
    assert scene.people == (person,)
    return cv2.imencode(".png", scene.pixels[..., ::-1])[1].tobytes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(
    published: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("data"), bundle=published[0], admin_key=KEY, inference_lanes=1
    )
    facet = await build(settings)
    transport = httpx.ASGITransport(app=create_app(facet))
    try:
        async with httpx.AsyncClient(
            transport=transport, base_url="http://facet", headers={"x-api-key": KEY}
        ) as client:
            yield client
    finally:
        await facet.close()


async def asked(
    client: httpx.AsyncClient, verb: str, files: list[tuple[str, bytes]], **fields: str
) -> dict[str, Any]:
    answer = await client.post(f"/v1/{verb}", files=files, data=fields, headers={"X-Timeout-Ms": "60000"})
    assert answer.is_success, answer.text
    return dict(answer.json())


def test_the_first_line_says_that_nothing_real_was_trained_on(published: tuple[Path, str]) -> None:
    assert published[1].splitlines()[0].startswith("no data sets used: everything is drawn")


def test_what_was_published_is_a_whole_bundle_with_its_gates_passed(published: tuple[Path, str]) -> None:
    manifest = open_bundle(published[0]).manifest
    assert manifest.name == "synthetic"
    assert all(floor["holds"] for floor in manifest.metrics["floors"].values())
    assert "Made from drawn pictures" in (published[0] / "REPORT.md").read_text()


@of_one_loop
async def test_the_service_finds_the_face_where_it_was_drawn(client: httpx.AsyncClient) -> None:
    found = 0
    for number, person in enumerate(PEOPLE):
        scene = draw_scene(800 + number, 320, 240, people=[person])
        answer = await asked(client, "detect", [("image", picture(person, 800 + number))])
        for face in answer["faces"]:
            box = face["box"]
            x0, y0, x1, y1 = scene.boxes[0]
            wide = min(x1, box["x"] + box["width"]) - max(x0, box["x"])
            tall = min(y1, box["y"] + box["height"]) - max(y0, box["y"])
            common = max(wide, 0) * max(tall, 0)
            found += common / ((x1 - x0) * (y1 - y0) + box["width"] * box["height"] - common) > 0.5
    assert found >= len(PEOPLE) - 1


@of_one_loop
async def test_enrolled_people_are_recognised_in_new_pictures_and_strangers_rarely(
    client: httpx.AsyncClient,
) -> None:
    enrolled: dict[str, int] = {}
    for person in PEOPLE:
        images = [("images", picture(person, 900 + person % 100 * 10 + i)) for i in range(3)]
        answer = await asked(client, "enroll", images, name=f"P{person}", force="true")
        enrolled[answer["person"]["id"]] = person
    right = wrong = 0
    for person in PEOPLE:
        for number in (20, 21, 22):
            answer = await asked(
                client, "identify", [("image", picture(person, person + number))], fpir="0.05"
            )
            if answer["decision"] == "match":
                right += enrolled[answer["person"]["id"]] == person
                wrong += enrolled[answer["person"]["id"]] != person
    strangers = [
        await asked(client, "identify", [("image", picture(who, who))], fpir="0.05") for who in STRANGERS
    ]
    taken = sum(answer["decision"] == "match" for answer in strangers)
    told = json.dumps({"right": right, "wrong": wrong, "strangers": taken})
    # Eighty steps make a poor embedder, but one that knows people: by chance none of 24 would be right.
    assert right >= 8, told
    assert wrong <= 2, told
    assert taken <= 4, told  # of 20; one was promised, on the average of many
