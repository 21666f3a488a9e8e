"""The Makefile documents itself, and its verbs are the ones that the documents name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

VERBS = ["setup", "run", "test", "test-long", "check", "bench", "soak", "proto", "train-and-publish", "clean"]


def make(*arguments: str, cwd: Path) -> str:
    # --no-print-directory: the tests themselves run under make, whose children tell where they are
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_help_lists_every_target_with_what_it_does(repository: Path) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(), re.M)
    assert phony is not None
    listed = dict(line.split(None, 1) for line in make(cwd=repository).splitlines())
    assert set(listed) == set(phony.group(1).split())
    assert set(VERBS) <= set(listed)


def test_every_verb_has_a_recipe_that_make_can_read(repository: Path) -> None:
    for verb in VERBS:
        assert make("--dry-run", verb, cwd=repository).strip() or verb == "setup"


def test_run_passes_the_environment_through_and_replaces_the_shell(repository: Path) -> None:
    # exec: a signal to `make run`'s process group reaches the service, and its exit status is make's
    assert "exec .venv/bin/facet serve" in make("--dry-run", "run", cwd=repository)


def test_every_benchmark_that_writes_a_result_has_a_verb_that_runs_it(repository: Path) -> None:
    recipes = make("--dry-run", "bench", "soak", cwd=repository)
    files = (repository / "benchmarks").glob("*.py")
    written = {file.stem for file in files if "write_result(" in file.read_text()} - {"measure"}
    assert set(re.findall(r"-m benchmarks\.(\w+)", recipes)) == written


def test_continuous_integration_runs_the_verbs(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    steps = re.findall(r"^step make (\S+)$", script.read_text(), re.M)
    assert steps == ["setup", "check", "test", "test-long"]
