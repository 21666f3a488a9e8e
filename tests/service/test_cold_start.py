"""From an empty folder to a recognised person and over a restart, with the command alone, as its first user does it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import grpc
import pytest

from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from service.grpc.generated.facet.v1 import face_service_pb2_grpc as stubs
from tests.synthetic_bundle import blank, draw_person

FACET = (sys.executable, "-m", "service.cli")
PEOPLE = {"ada": 1, "ben": 2, "cy": 3}


class Machine:
    """An empty folder, an environment without settings (but for free ports), and the command `facet` in it."""

    def __init__(self, folder: Path, repository: Path, bundle: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FACET_")}
        self.environment = {
            **kept,
            "PYTHONPATH": str(repository),
            "FACET_HTTP_PORT": "0",
            "FACET_GRPC_PORT": "0",
        }
        (folder / "models").mkdir()
        (folder / "models" / "default").symlink_to(bundle)  # where a clone has its bundle

    def facet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*FACET, *arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def serve(self) -> Service:
        log = (self.folder / "log").open("wb")
        with (self.folder / "out").open("wb") as out, log:
            process = subprocess.Popen(
                (*FACET, "serve"), cwd=self.folder, env=self.environment, stdout=out, stderr=log
            )
        return Service(process, self.folder)


class Service:
    """A running `facet serve`."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        until = time.monotonic() + 90
        while "next" not in (told := (folder / "out").read_text()):
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                pytest.fail(f"it did not start: {told}{(folder / 'log').read_text()}")
            time.sleep(0.05)
        self.told = told
        found = re.search(r"REST (\S+)  gRPC (\S+)", told)
        assert found is not None
        self.url, self.target = found[1], found[2]

    def ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as answer:
            return bool(json.load(answer)["status"] == "ready")

    def identify(self, image: bytes, key: str) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/identify", image, {"X-API-Key": key, "Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
            return told

    def identify_by_grpc(self, image: bytes, key: str) -> Any:
        with grpc.insecure_channel(self.target) as channel:
            stub: Any = stubs.FaceServiceStub(channel)  # type: ignore[no-untyped-call]
            return stub.Identify(
                pb.IdentifyRequest(image=image), metadata=(("authorization", f"Bearer {key}"),), timeout=30
            )

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def jpeg(identity: int, variation: int) -> bytes:
    return cv2.imencode(".jpg", draw_person(identity, variation)[..., ::-1])[1].tobytes()


@pytest.fixture
def machine(tmp_path: Path, repository: Path, synthetic_bundle: Path) -> Machine:
    for name, identity in PEOPLE.items():
        (tmp_path / "people" / name).mkdir(parents=True)
        for variation in (1, 2):
            (tmp_path / "people" / name / f"{variation}.jpg").write_bytes(jpeg(identity, variation))
    cv2.imwrite(str(tmp_path / "people" / "cy" / "wall.png"), blank())
    return Machine(tmp_path, repository, synthetic_bundle)


def test_an_empty_machine_serves_enrols_recognises_and_remembers(machine: Machine) -> None:
    service = machine.serve()
    try:
        assert service.ready()
        key = (machine.folder / "data" / "admin.key").read_text().strip()
        assert "people   0 in 1 gallery" in service.told
        assert "data/admin.key" in service.told
        assert key not in service.told + (machine.folder / "log").read_text()
        assert "facet enroll DIR" in service.told

        enrolled = machine.facet("enroll", "people", "--url", service.url)
        assert enrolled.returncode == 0, enrolled.stdout + enrolled.stderr
        assert "3 of 3 people are in gallery default; 6 faces added, 1 rejected" in enrolled.stdout
        assert re.search(r"cy.*wall\.png.*no_face", enrolled.stdout)
        _recognises(service, key)
    finally:
        assert service.stop() == 0

    again = machine.serve()
    try:
        assert "people   3 in 1 gallery" in again.told
        assert "facet identify IMAGE" in again.told
        _recognises(again, key)
    finally:
        assert again.stop(signal.SIGINT) == 0
    log = (machine.folder / "log").read_text()
    assert "Traceback" not in log
    assert key not in log


def _recognises(service: Service, key: str) -> None:
    for name, identity in PEOPLE.items():
        probe = jpeg(identity, 5)
        rest, by_grpc = service.identify(probe, key), service.identify_by_grpc(probe, key)
        assert (rest["decision"], rest["person"]["name"]) == ("match", name)
        assert (by_grpc.decision, by_grpc.person.name) == ("match", name)
    assert service.identify(jpeg(50, 1), key)["decision"] == "no_match"


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("FACET_BACKEND", "cuda", "FACET_BACKEND"),
        ("FACET_BUNDLE", "nowhere", "FACET_BUNDLE"),
        ("FACET_HTTP_PORT", "http", "FACET_HTTP_PORT"),
        ("FACET_AUTH", "off", "FACET_AUTH"),
    ],
)
def test_a_start_that_fails_says_why_in_one_line(
    machine: Machine, setting: str, value: str, told: str
) -> None:
    machine.environment[setting] = value
    if setting == "FACET_AUTH":
        machine.environment["FACET_HTTP_HOST"] = "0.0.0.0"
    if value == "cuda" and _gpu():
        pytest.skip("there is a GPU here: this case is about its absence")

    failed = machine.facet("serve")

    assert failed.returncode == 2
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("facet: ")
    assert told in last
    assert "Traceback" not in failed.stderr + failed.stdout
    assert failed.stdout == ""


def _gpu() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
