"""A test that needs the data sets is never skipped in silence: it says so, and where the data is required it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TEST = """
import pytest

@pytest.mark.needs_data
def test_reads_the_data(datasets):
    assert datasets.is_dir()

def test_reads_nothing():
    pass
"""


def run_pytest(folder: Path, repository: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((repository / "tests" / "conftest.py").read_text())
    (folder / "test_it.py").write_text(TEST)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-c", repository / "pyproject.toml", "--rootdir", folder, folder],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("FACET_")}
        | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_the_data_the_test_is_skipped_aloud(tmp_path: Path, repository: Path) -> None:
    report = run_pytest(tmp_path, repository, FACET_DATASETS=str(tmp_path / "nowhere"))
    assert report.returncode == 0, report.stdout
    assert "needs_data: 0 ran, 1 skipped" in report.stdout


def test_where_the_data_is_required_a_skip_fails_the_run(tmp_path: Path, repository: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    report = run_pytest(tmp_path, repository, FACET_DATASETS=nowhere, FACET_REQUIRE_DATA="1")
    assert report.returncode == pytest.ExitCode.TESTS_FAILED, report.stdout
    assert "needs_data: 0 ran, 1 skipped: a FAILURE" in report.stdout


def test_with_the_data_the_test_runs(tmp_path: Path, repository: Path) -> None:
    report = run_pytest(tmp_path, repository, FACET_DATASETS=str(tmp_path), FACET_REQUIRE_DATA="1")
    assert report.returncode == 0, report.stdout
    assert "needs_data: 1 ran, 0 skipped" in report.stdout
