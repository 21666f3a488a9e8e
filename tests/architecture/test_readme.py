"""The README tells the truth: its tree and its commands exist, and its curl lines recognise somebody."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import pytest

from benchmarks.served import Served
from tests.drawn_faces import draw_person

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
ADA, DOOR = 7, (7, 3)


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def tracked_folders(repository: Path) -> set[str]:
    """The top-level folders that belong to the project: what git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return {line.split("/", 1)[0] for line in listed.stdout.splitlines() if "/" in line}


def test_the_tree_lists_every_top_level_folder(repository: Path) -> None:
    listed = set(re.findall(r"^    (\S+)/ ", section("The house"), re.M))
    assert listed == tracked_folders(repository)


def test_every_target_that_the_documents_name_exists(repository: Path) -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(), re.M)
    assert targets is not None
    pages = [repository / "README.md", *(repository / "docs").rglob("*.md")]
    named = {
        verb
        for page in pages
        for verb in re.findall(r"`make ([a-z-]+)`|^ +make ([a-z-]+)", page.read_text(), re.M)
    }
    assert {a or b for a, b in named} <= set(targets.group(1).split())


def test_every_file_that_the_documents_name_exists(repository: Path) -> None:
    for page in [repository / "README.md", *(repository / "docs").glob("*.md")]:
        for name in re.findall(
            r"`((?:docs|bundle|service|training|benchmarks|proto)/[\w/.-]+)`", page.read_text()
        ):
            assert (repository / name).exists(), f"{page.name} names {name}"


def test_the_status_table_speaks_of_what_is_missing() -> None:
    rows = [
        line.strip("|").split("|") for line in section("What works").splitlines() if line.startswith("|")
    ][2:]
    for _, status in rows:
        assert status.strip(" *").startswith(("works", "partly", "not yet", "not assessed"))
    text = section("What works")
    assert "printed photograph" in text
    assert "demographic" in text


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, synthetic_bundle: Path) -> dict[str, Any]:
    """The README's shell block, run line by line against a service: command → what it printed, parsed."""
    if shutil.which("curl") is None:
        pytest.skip("the README speaks curl, and there is none here")
    folder = tmp_path_factory.mktemp("readme")
    for name, person in {"ada-1": (ADA, 1), "ada-2": (ADA, 2), "door": DOOR}.items():
        assert cv2.imwrite(str(folder / f"{name}.jpg"), draw_person(*person)[..., ::-1])
    block = re.search(r"```bash\n(.*?)```", section("A first recognition"), re.S)
    assert block is not None
    with Served(folder, synthetic_bundle, key=None) as service:
        export, *commands = block.group(1).replace("http://127.0.0.1:8080", service.url).strip().split("\n\n")
        answers = {}
        for command in commands:
            shell = subprocess.run(
                ["bash", "-ec", f"{export}\n{command}"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={"PATH": os.environ["PATH"]},
            )
            assert shell.returncode == 0, shell.stderr
            answers[command.split("/")[-1].split()[0]] = json.loads(shell.stdout)
        return answers


def test_the_curl_lines_enrol_and_recognise(followed: dict[str, Any]) -> None:
    assert set(followed) == {"readyz", "enroll", "identify", "verify", "models"}
    assert followed["enroll"]["person"]["name"] == "Ada"
    assert [face["index"] for face in followed["enroll"]["faces"]] == [0, 1]
    assert followed["identify"]["decision"] == "match"
    assert followed["identify"]["person"]["id"] == followed["enroll"]["person"]["id"]
    assert followed["identify"]["similarity"] >= followed["identify"]["threshold"]
    assert followed["verify"]["decision"] == "match"


def test_the_models_say_their_licence(followed: dict[str, Any]) -> None:
    assert "licence" in json.dumps(followed["models"])
