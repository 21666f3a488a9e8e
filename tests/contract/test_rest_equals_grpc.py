"""Same input, same answer: what REST and gRPC say of the same pictures and the same mistakes is equal, field by field.

The two doors share one core here, as in production; only request ids, ids of new things and times may differ.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from service.bootstrap import build
from service.config import load_settings
from service.grpc.errors import STATUSES as GRPC_STATUSES
from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from service.grpc.generated.facet.v1 import face_service_pb2_grpc as stubs
from service.grpc.server import create_server
from service.rest.app import create_app
from service.rest.errors import STATUSES as REST_STATUSES
from tests.odd_pictures import grey_and_alpha, jpeg_of_two_channels, one_pixel, strip
from tests.synthetic_bundle import blank, draw_person, draw_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "an admin key of the tests, long enough to be one"
VERBS = ("detect", "embed", "verify", "enroll", "identify")


@dataclass(frozen=True)
class Doors:
    """Both doors of one service. A question is the JSON of the REST door, with pictures as bytes."""

    client: httpx.AsyncClient
    stub: Any

    async def rest(self, verb: str, question: dict[str, Any]) -> dict[str, Any]:
        """REST's answer, or `{"refused": code, "details": …}`."""
        pictures = [(n, v) for n, v in question.items() if isinstance(v, bytes)]
        pictures += [(n, each) for n, v in question.items() if isinstance(v, list) for each in v]
        fields = {n: _form(v) for n, v in question.items() if not isinstance(v, bytes | list)}
        sent: dict[str, Any] = {"files": pictures, "data": fields} if pictures else {"json": question}
        answer = await self.client.post(f"/v1/{verb}", **sent)
        told: dict[str, Any] = answer.json()
        return (
            told
            if answer.is_success
            else {"refused": told["error"]["code"], "details": told["error"]["details"]}
        )

    async def grpc(self, verb: str, question: dict[str, Any]) -> dict[str, Any]:
        """gRPC's answer in the same form."""
        name = verb.capitalize()
        request = getattr(pb, f"{name}Request")(**question)
        try:
            answer = await getattr(self.stub, name)(request, metadata=(("x-api-key", KEY),))
        except grpc.aio.AioRpcError as error:
            trailers = {key: str(value) for key, value in error.trailing_metadata() or ()}
            return {
                "refused": trailers["facet-error-code"],
                "details": json.loads(trailers["facet-error-details"]),
            }
        return MessageToDict(
            answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )


def _form(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(tmp_path_factory: pytest.TempPathFactory, synthetic_bundle: Path) -> AsyncIterator[Doors]:
    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("data"),
        bundle=synthetic_bundle,
        admin_key=KEY,
        grpc_port=0,
        inference_lanes=1,
    )
    facet = await build(settings)
    server = create_server(facet)
    await server.start()
    transport = httpx.ASGITransport(app=create_app(facet))
    try:
        async with (
            httpx.AsyncClient(
                transport=transport, base_url="http://facet", headers={"x-api-key": KEY}
            ) as client,
            grpc.aio.insecure_channel(
                f"127.0.0.1:{server.port}", options=[("grpc.max_receive_message_length", -1)]
            ) as channel,
        ):
            both = Doors(client, stubs.FaceServiceStub(channel))
            people = {"ada": (1, {"floor": 3, "tags": ["a", None, 1.5]}), "ben": (2, {}), "cy": (3, {})}
            for name, (identity, metadata) in people.items():
                images = [jpeg(draw_person(identity, variation)) for variation in (1, 2)]
                asked = {"images": images, "name": name, "external_id": name, "metadata": metadata}
                assert "refused" not in await both.rest("enroll", asked)
            yield both
    finally:
        await server.stop(0)
        await facet.close()


def comparable(answer: Any) -> Any:
    """Without what differs from call to call; null, absent and empty are one, points are pairs, numbers are rounded."""
    if isinstance(answer, dict):
        if set(answer) == {"x", "y"}:
            return [comparable(answer["x"]), comparable(answer["y"])]
        kept = {name: value for name, value in answer.items() if name not in ("request_id", "timings_ms")}
        compared = {name: comparable(value) for name, value in kept.items()}
        return {name: value for name, value in compared.items() if value not in (None, [], {})}
    if isinstance(answer, list | tuple):
        return [comparable(value) for value in answer]
    if isinstance(answer, float | int) and not isinstance(answer, bool):
        return round(float(answer), 6)  # an embedding is float32 on the one wire and decimal on the other
    if isinstance(answer, str) and answer.lstrip("-").isdigit():
        return float(answer)  # int64 is a string in protobuf's JSON
    return answer


PROBE = jpeg(draw_person(1, 6))
STRANGER = jpeg(draw_person(50))
CROWD = jpeg(draw_scene([1, 2, 60]))
NOBODY = jpeg(blank())

ANSWERED: dict[str, tuple[str, dict[str, Any]]] = {
    "detect all": ("detect", {"image": CROWD}),
    "detect the largest": ("detect", {"image": CROWD, "faces": "largest"}),
    "detect at a low score": ("detect", {"image": CROWD, "min_score": 0.02}),
    "detect nobody": ("detect", {"image": NOBODY}),
    "detect in grey and alpha": ("detect", {"image": grey_and_alpha()}),
    "embed": ("embed", {"image": CROWD}),
    "verify two pictures": ("verify", {"image_a": PROBE, "image_b": jpeg(draw_person(1, 7))}),
    "verify two people": ("verify", {"image_a": PROBE, "image_b": STRANGER, "fmr": 0.001}),
    "verify at a threshold": ("verify", {"image_a": PROBE, "image_b": STRANGER, "threshold": 0.2}),
    "identify": ("identify", {"image": PROBE}),
    "identify a stranger": ("identify", {"image": STRANGER}),
    "identify nobody": ("identify", {"image": NOBODY}),
    "identify everybody": ("identify", {"image": CROWD, "faces": "all", "limit": 3}),
    "identify with candidates": ("identify", {"image": STRANGER, "candidates": True, "limit": 2}),
    "identify at a rate": ("identify", {"image": PROBE, "fpir": 0.05}),
    "identify at a threshold": ("identify", {"image": PROBE, "threshold": 0.3}),
}

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "detect nothing": ("detect", {}),
    "detect an empty picture": ("detect", {"image": b""}),
    "detect a text": ("detect", {"image": b"a text, and not a short one"}),
    "detect half a picture": ("detect", {"image": PROBE[:800]}),
    "detect in a JPEG of two channels": ("detect", {"image": jpeg_of_two_channels()}),
    "detect in one pixel": ("detect", {"image": one_pixel()}),
    "detect in a strip of 12,000 × 90": ("detect", {"image": strip()}),
    "identify one pixel": ("identify", {"image": one_pixel()}),
    "verify one pixel": ("verify", {"image_a": PROBE, "image_b": one_pixel()}),
    "enroll a strip of 12,000 × 90": ("enroll", {"images": [strip()], "name": "x"}),
    "detect at a score above 1": ("detect", {"image": PROBE, "min_score": 1.5}),
    "detect some faces": ("detect", {"image": PROBE, "faces": "some"}),
    "identify at rate 0": ("identify", {"image": PROBE, "fpir": 0}),
    "identify at rate 1": ("identify", {"image": PROBE, "fpir": 1}),
    "identify at rate nan": ("identify", {"image": PROBE, "fpir": float("nan")}),
    "identify at both": ("identify", {"image": PROBE, "fpir": 0.01, "threshold": 0.5}),
    "identify at a tiny rate": ("identify", {"image": PROBE, "fpir": 1e-30}),
    "identify beyond the cosine": ("identify", {"image": PROBE, "threshold": -1.01}),
    "identify 0 persons": ("identify", {"image": PROBE, "limit": 0}),
    "identify 101 persons": ("identify", {"image": PROBE, "limit": 101}),
    "identify in an unknown gallery": ("identify", {"image": PROBE, "gallery": "nowhere"}),
    "identify in a gallery without a name": ("identify", {"image": PROBE, "gallery": ""}),
    "verify one picture": ("verify", {"image_a": PROBE}),
    "verify three pictures": ("verify", {"image_a": PROBE, "image_b": PROBE, "image": PROBE}),
    "verify with an unknown person": ("verify", {"image": PROBE, "person_id": "nobody"}),
    "verify without a face": ("verify", {"image_a": PROBE, "image_b": NOBODY}),
    "verify at rate 1": ("verify", {"image_a": PROBE, "image_b": PROBE, "fmr": 1}),
    "enroll nothing": ("enroll", {"name": "x"}),
    "enroll nobody": ("enroll", {"images": [NOBODY, b"text, not a picture"], "name": "x"}),
    "enroll the same pixels": ("enroll", {"images": [jpeg(draw_person(1, 1))], "external_id": "ada"}),
    "enroll somebody else's face": ("enroll", {"images": [PROBE], "external_id": "ben"}),
    "enroll under another name": ("enroll", {"images": [PROBE], "external_id": "ada", "name": "eve"}),
    "enroll an unknown person": ("enroll", {"images": [PROBE], "person_id": "nobody"}),
    "enroll a name of 201 letters": ("enroll", {"images": [PROBE], "name": "x" * 201}),
    "enroll an empty name": ("enroll", {"images": [PROBE], "name": ""}),
}


@pytest.mark.parametrize("case", ANSWERED)
async def test_the_same_question_has_the_same_answer(doors: Doors, case: str) -> None:
    verb, question = ANSWERED[case]

    rest, grpc_answer = await doors.rest(verb, question), await doors.grpc(verb, question)

    assert "refused" not in rest, rest
    assert comparable(grpc_answer) == comparable(rest)
    assert set(grpc_answer["timings_ms"]) == set(rest["timings_ms"])


@pytest.mark.parametrize("case", REFUSED)
async def test_the_same_mistake_has_the_same_code(doors: Doors, case: str) -> None:
    verb, question = REFUSED[case]

    rest, grpc_answer = await doors.rest(verb, question), await doors.grpc(verb, question)

    assert "refused" in rest, rest
    assert grpc_answer.get("refused") == rest["refused"]
    if rest["refused"] in ("nothing_accepted", "fpir_unsupported", "forbidden"):
        assert grpc_answer["details"] == rest["details"]
    if rest["refused"] == "invalid_parameter" and "parameter" in rest["details"]:
        assert grpc_answer["details"]["parameter"] == rest["details"]["parameter"]


async def test_an_enrolment_through_either_door_is_found_through_the_other(doors: Doors) -> None:
    for door, other, identity in ((doors.rest, doors.grpc, 10), (doors.grpc, doors.rest, 11)):
        question = {
            "images": [jpeg(draw_person(identity, 1))],
            "name": f"new {identity}",
            "metadata": {"n": identity},
        }
        enrolled = comparable(await door("enroll", question))
        found = comparable(await other("identify", {"image": jpeg(draw_person(identity, 4))}))

        assert found["decision"] == "match"
        assert found["person"] == enrolled["person"]
        assert found["person"]["metadata"] == {"n": identity}
        assert found["gallery"] == enrolled["gallery"]


async def test_both_answers_to_an_enrolment_have_the_same_fields(doors: Doors) -> None:
    def fields(answer: Any) -> Any:
        if isinstance(answer, dict):
            return {name: fields(value) for name, value in answer.items() if name != "metadata"}
        return [fields(answer[0])] if isinstance(answer, list) and answer else None

    rest, grpc_answer = [
        await door(
            "enroll", {"images": [jpeg(draw_person(n, 1)), NOBODY], "name": str(n), "external_id": str(n)}
        )
        for door, n in ((doors.rest, 20), (doors.grpc, 21))
    ]

    assert fields(rest) == fields(grpc_answer)


async def test_both_tables_know_the_same_kinds() -> None:
    told_apart = {
        kind for kind in GRPC_STATUSES if kind not in REST_STATUSES
    }  # a subclass may have a status of its own

    assert set(REST_STATUSES) <= set(GRPC_STATUSES)
    assert all(any(base in REST_STATUSES for base in kind.__mro__) for kind in told_apart)
