"""The floors of docs/architecture.md hold, and the contracts would notice if they did not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGES = ("bundle", "service", "training")


def lint_imports(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_every_import_contract_is_kept(repository: Path) -> None:
    report = lint_imports("--no-cache", cwd=repository)
    assert report.returncode == 0, report.stdout + report.stderr


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("service/storage/__init__.py", "import service.recognition", "the service's floors"),
        ("service/gallery/__init__.py", "import service.storage", "the service's floors"),
        ("bundle/__init__.py", "import fastapi", "the contract stays light"),
        ("service/errors/__init__.py", "import torch", "no torch outside training"),
        ("training/data/__init__.py", "import service.errors", "service and training meet only in bundle"),
        ("service/strangers/__init__.py", "", "the service's floors"),
    ],
)
def test_a_forbidden_import_breaks_its_contract(
    tmp_path: Path, repository: Path, file: str, line: str, broken: str
) -> None:
    for package in (
        *PACKAGES,
        "service/storage",
        "service/gallery",
        "service/recognition",
        "service/errors",
        "training/data",
    ):
        (tmp_path / package).mkdir(exist_ok=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(line + "\n")
    (tmp_path / "pyproject.toml").write_text((repository / "pyproject.toml").read_text())
    report = lint_imports("--no-cache", cwd=tmp_path)
    assert report.returncode == 1
    assert f"{broken} BROKEN" in report.stdout, report.stdout


def test_the_extras_keep_the_two_runtimes_apart(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    runtimes = ("onnxruntime", "faiss", "openvino", "tensorrt")
    two_wheels = ("onnxruntime", "faiss", "tensorrt")  # a second wheel of these would overwrite the first
    for extra in ("training", "dev"):
        brought = [r for r in project["optional-dependencies"][extra] if r.startswith(two_wheels)]
        assert not brought, f"{extra} would bring a runtime beside cpu or gpu"
    assert not [r for r in project["dependencies"] if r.startswith((*runtimes, "torch"))]
