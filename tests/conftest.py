"""What every test may ask for: markers that skip aloud, the data sets, a synthetic bundle.

A test marked needs_data skips only where no data sets lie; where FACET_REQUIRE_DATA=1 (continuous integration
beside the data) any skip of such a test fails the whole run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def find_datasets() -> Path | None:
    named = os.environ.get("FACET_DATASETS")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def gpu_present() -> bool:
    return shutil.which("nvidia-smi") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_data = pytest.mark.skip(reason="needs the data sets: set FACET_DATASETS or put them at ../shared/data")
    no_gpu = pytest.mark.skip(reason="needs a CUDA device")
    data, gpu = find_datasets() is not None, gpu_present()
    for item in items:
        if item.get_closest_marker("needs_data") and not data:
            item.add_marker(no_data)
        if item.get_closest_marker("needs_gpu") and not gpu:
            item.add_marker(no_gpu)


class DataTests:
    """Counts what became of the needs_data tests, says it, and holds continuous integration to it."""

    def __init__(self, *, required: bool) -> None:
        self.required = required
        self.ran = 0
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if "needs_data" not in report.keywords:
            return
        if report.skipped:
            self.skipped.append(report.nodeid)
        elif report.when == "call":
            self.ran += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.required and self.skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.ran and not self.skipped:
            return
        verdict = (
            "" if not (self.required and self.skipped) else ": a FAILURE, because FACET_REQUIRE_DATA is set"
        )
        terminalreporter.write_line(f"needs_data: {self.ran} ran, {len(self.skipped)} skipped{verdict}")
        if verdict:
            for nodeid in self.skipped:
                terminalreporter.write_line(f"  skipped {nodeid}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(
        DataTests(required=os.environ.get("FACET_REQUIRE_DATA") == "1"), "data-tests"
    )


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FACET_* variable of the shell must not change what a test means (the data sets' place is kept)."""
    for name in [
        n for n in os.environ if n.startswith("FACET_") and n not in ("FACET_DATASETS", "FACET_REQUIRE_DATA")
    ]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of data sets; ask for it only in tests marked needs_data."""
    folder = find_datasets()
    if folder is None:
        pytest.fail("a test asks for the data sets without the mark needs_data")
    return folder


@pytest.fixture(scope="session")
def synthetic_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real bundle that recognises drawn people (tests/synthetic_bundle.py). Shared: do not write into it."""
    from tests.synthetic_bundle import write_synthetic_bundle

    path = tmp_path_factory.mktemp("bundle") / "synthetic"
    write_synthetic_bundle(path)
    return path
