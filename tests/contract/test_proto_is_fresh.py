"""The committed gRPC stubs are what `make proto` makes of proto/facet/v1, and the contract keeps its promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor

from service.grpc.generated.facet.v1 import face_service_pb2 as pb

GENERATED = Path("service/grpc/generated")
KINDS = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


@pytest.fixture(scope="module")
def regenerated(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    protos = sorted(str(path.relative_to(repository)) for path in repository.glob("proto/facet/v1/*.proto"))
    assert protos
    outputs = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "grpc_tools.protoc",
        f"-I{GENERATED}=proto",
        *outputs,
        *protos,
    ]
    subprocess.run(command, cwd=repository, check=True, timeout=60)
    return out


def test_every_committed_stub_is_what_the_proto_generates(repository: Path, regenerated: Path) -> None:
    def stubs(root: Path) -> dict[str, str]:
        found = (path for path in (root / GENERATED).rglob("*") if path.name.endswith(KINDS))
        return {str(path.relative_to(root)): path.read_text() for path in found}

    assert stubs(repository) == stubs(regenerated), "run `make proto` and commit what it writes"
    assert len(stubs(repository)) == len(KINDS)


def test_the_stubs_run_on_both_protobuf_6_and_7(repository: Path) -> None:
    text = (repository / GENERATED / "facet/v1/face_service_pb2.py").read_text()
    assert "# Protobuf Python Version: 6.31.1" in text, "generate with grpcio-tools 1.80.x"


def test_every_number_that_can_be_absent_is_optional() -> None:
    for request in (
        pb.DetectRequest,
        pb.EmbedRequest,
        pb.VerifyRequest,
        pb.IdentifyRequest,
        pb.EnrollRequest,
    ):
        for field in request.DESCRIPTOR.fields:
            if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_INT32):
                assert field.has_presence, f"{request.DESCRIPTOR.name}.{field.name}"
    for name in ("fpir", "fmr", "threshold", "similarity"):
        assert pb.IdentifyResponse.DESCRIPTOR.fields_by_name[name].has_presence, name
