"""A real service in a process of its own, on free ports of the loopback, as an operator would start it.

Rule: no import of the service's parts here: what is measured or tested is what `facet serve` does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

REPOSITORY = Path(__file__).resolve().parent.parent
KEY = "benchmark-key-benchmark-key-benchmark-key"
START = (sys.executable, "-c", "import sys; from service.cli import main; sys.exit(main())", "serve")


class DidNotStart(Exception):
    """The service ended or was not ready in time; the message holds what it printed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """`with Served(folder, bundle) as service:` starts one with its data and logs in `folder`, and stops it.

    Without `key` the service makes its own admin key, in `folder`/data/admin.key.
    """

    def __init__(self, folder: Path, bundle: Path, *, key: str | None = KEY, **settings: str) -> None:
        self.folder = folder
        self.key = key
        self.port, self.grpc_port = free_port(), free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FACET_")}
        self._environment = kept | {
            "PYTHONPATH": str(REPOSITORY),
            "FACET_BUNDLE": str(bundle.resolve()),
            "FACET_HTTP_PORT": str(self.port),
            "FACET_GRPC_PORT": str(self.grpc_port),
            **({"FACET_ADMIN_KEY": key} if key else {}),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def printed(self) -> str:
        """Everything the service wrote to its standard output and error so far."""
        return (self.folder / "service.log").read_text(errors="replace")

    def __enter__(self) -> Served:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "service.log").open("wb") as log:
            self._process = subprocess.Popen(
                START, cwd=self.folder, env=self._environment, stdout=log, stderr=log
            )
        try:
            self._wait_until_ready(60)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, then the exit status; a service that does not drain in time is killed."""
        assert self._process is not None, "not started"
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _wait_until_ready(self, timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise DidNotStart(f"ended with {self._process.returncode}:\n{self.printed}")
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise DidNotStart(f"not ready after {timeout_s:g} s:\n{self.printed}")
