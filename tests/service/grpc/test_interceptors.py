"""The gate: who may call what, what a call may cost, when it must be answered, and how a failure leaves."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode

from service import errors
from service.errors import FacetError
from service.grpc.generated.facet.v1 import face_service_pb2 as pb
from service.grpc.interceptors import SCOPES
from tests.service.grpc.conftest import World, encode, refusal_of
from tests.service.grpc.test_errors import EXPECTED, kinds, make
from tests.synthetic_bundle import blank, draw_person, draw_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUESTS: dict[str, Any] = {
    "Detect": pb.DetectRequest,
    "Embed": pb.EmbedRequest,
    "Verify": pb.VerifyRequest,
    "Enroll": pb.EnrollRequest,
    "Identify": pb.IdentifyRequest,
}


# ---- who may call


@pytest.mark.parametrize("verb", REQUESTS)
@pytest.mark.parametrize(
    "key", [(), (("x-api-key", "fk_wrong"),), (("authorization", "Basic x"),)], ids=["none", "wrong", "basic"]
)
async def test_without_a_valid_key_nothing_is_answered(world: World, verb: str, key: Any) -> None:
    refused = await refusal_of(getattr(world.stub, verb)(REQUESTS[verb](), metadata=key))

    assert (refused.status, refused.code) == (StatusCode.UNAUTHENTICATED, "unauthenticated")


async def test_the_key_may_come_as_a_bearer(world: World, picture: bytes) -> None:
    bearer = (("authorization", f"Bearer {world.key[0][1]}"),)

    assert len((await world.stub.Detect(pb.DetectRequest(image=picture), metadata=bearer)).faces) == 1


@pytest.mark.parametrize("verb", REQUESTS)
async def test_every_verb_needs_its_own_scope(world: World, verb: str) -> None:
    others = {"detect", "embed", "verify", "enroll", "identify", "audit"} - {verb.lower()}
    _, lacking = await world.facet.api_keys.create("lacking", others)
    _, having = await world.facet.api_keys.create("having", {verb.lower()})

    refused = await refusal_of(
        getattr(world.stub, verb)(REQUESTS[verb](), metadata=(("x-api-key", lacking),))
    )
    let_in = await refusal_of(getattr(world.stub, verb)(REQUESTS[verb](), metadata=(("x-api-key", having),)))

    assert (refused.status, refused.code) == (StatusCode.PERMISSION_DENIED, "forbidden")
    assert refused.details == {"scope": verb.lower()}
    assert let_in.code == "missing_image"


async def test_candidates_need_the_scope_admin(world: World, picture: bytes) -> None:
    _, key = await world.facet.api_keys.create("door", {"identify"})
    asked = pb.IdentifyRequest(image=picture, candidates=True)

    refused = await refusal_of(world.stub.Identify(asked, metadata=(("x-api-key", key),)))

    assert (refused.code, refused.details) == ("forbidden", {"scope": "admin"})


async def never() -> AsyncIterator[bytes]:
    """The message of a caller who never sends it."""
    await asyncio.Event().wait()
    yield b""


def silent(world: World, key: Any) -> Any:
    """A call whose headers are sent and whose message is not: on the wire, a unary call that is still arriving."""
    call = world.channel.stream_unary("/facet.v1.FaceService/Detect", request_serializer=bytes)
    return call(never(), metadata=key, timeout=20)


async def test_a_stranger_is_refused_before_their_message_is_read(world: World) -> None:
    refused = await asyncio.wait_for(refusal_of(silent(world, ())), 10)

    assert (refused.status, refused.code) == (StatusCode.UNAUTHENTICATED, "unauthenticated")


async def test_a_message_that_does_not_arrive_is_not_waited_for_without_end(
    world: World, monkeypatch: Any
) -> None:
    short = world.facet.settings.model_copy(update={"max_timeout_ms": 300})
    monkeypatch.setattr(world.gate, "_settings", short)

    refused = await asyncio.wait_for(refusal_of(silent(world, world.key)), 10)

    assert (refused.status, refused.code) == (StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")
    assert world.gate._calls == 0


async def test_a_full_service_refuses_before_the_message_is_read(world: World, monkeypatch: Any) -> None:
    admission = world.facet.recognizer.admission
    monkeypatch.setattr(admission, "in_flight", admission.limit)

    refused = await asyncio.wait_for(refusal_of(silent(world, world.key)), 10)

    assert (refused.status, refused.code) == (StatusCode.RESOURCE_EXHAUSTED, "overloaded")


async def test_a_revoked_key_is_refused_at_once(world: World, picture: bytes) -> None:
    made, key = await world.facet.api_keys.create("leaver", {"detect"})
    metadata = (("x-api-key", key),)
    await world.stub.Detect(pb.DetectRequest(image=picture), metadata=metadata)

    await world.facet.api_keys.revoke(made.id)

    assert (
        await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture), metadata=metadata))
    ).code == "unauthenticated"


# ---- what a picture may be


def _truncated() -> bytes:
    return encode(draw_person(1))[:900]


def _huge_header() -> bytes:
    """A PNG that says it has 20,000 × 20,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
        + b"\0\0\0\0IDAT"
        + bytes(64)
    )


@pytest.mark.parametrize(
    ("image", "status", "code"),
    [
        (b"", StatusCode.INVALID_ARGUMENT, "missing_image"),
        (b"this is text", StatusCode.INVALID_ARGUMENT, "unsupported_media"),
        (b"GIF89a" + bytes(64), StatusCode.INVALID_ARGUMENT, "unsupported_media"),
        (_truncated(), StatusCode.INVALID_ARGUMENT, "invalid_image"),
        (_huge_header(), StatusCode.INVALID_ARGUMENT, "too_large"),
        (bytes(20_000_001), StatusCode.INVALID_ARGUMENT, "too_large"),
    ],
    ids=["empty", "text", "gif", "truncated", "20000x20000", "20 MB"],
)
async def test_a_bad_picture_is_named(world: World, image: bytes, status: StatusCode, code: str) -> None:
    refused = await refusal_of(world.stub.Detect(pb.DetectRequest(image=image), metadata=world.key))

    assert (refused.status, refused.code) == (status, code)


async def test_a_message_far_over_the_limit_ends_in_the_transport(world: World) -> None:
    huge = pb.DetectRequest(image=bytes(40_000_000))

    refused = await refusal_of(world.stub.Detect(huge, metadata=world.key))

    assert refused.status is StatusCode.RESOURCE_EXHAUSTED
    assert (await world.stub.Detect(pb.DetectRequest(image=encode(blank())), metadata=world.key)).request_id


@pytest.mark.parametrize(
    ("verb", "fields", "code"),
    [
        ("Detect", {"min_score": 1.5}, "invalid_parameter"),
        ("Detect", {"min_score": float("nan")}, "invalid_parameter"),
        ("Embed", {"faces": "some"}, "invalid_parameter"),
        ("Identify", {"fpir": 0.0}, "invalid_parameter"),
        ("Identify", {"threshold": 1.5}, "invalid_parameter"),
        ("Identify", {"fpir": 0.01, "threshold": 0.5}, "invalid_parameter"),
        ("Identify", {"limit": 0}, "invalid_parameter"),
        ("Identify", {"limit": 101}, "invalid_parameter"),
        ("Identify", {"gallery": "nowhere"}, "gallery_not_found"),
        ("Identify", {"gallery": ""}, "invalid_parameter"),
        ("Verify", {"person_id": "nobody"}, "person_not_found"),
        ("Verify", {"fmr": 1.0, "person_id": "nobody"}, "invalid_parameter"),
    ],
)
async def test_a_wrong_parameter_is_named(
    world: World, picture: bytes, verb: str, fields: Any, code: str
) -> None:
    refused = await refusal_of(
        getattr(world.stub, verb)(REQUESTS[verb](image=picture, **fields), metadata=world.key)
    )

    assert refused.code == code


async def test_verify_without_a_face_and_enroll_of_nothing(world: World, picture: bytes) -> None:
    no_face = await refusal_of(
        world.stub.Verify(pb.VerifyRequest(image_a=picture, image_b=encode(blank())), metadata=world.key)
    )
    nothing = await refusal_of(
        world.stub.Enroll(pb.EnrollRequest(images=[encode(blank())]), metadata=world.key)
    )
    missing = await refusal_of(world.stub.Enroll(pb.EnrollRequest(), metadata=world.key))

    assert (no_face.status, no_face.code) == (StatusCode.INVALID_ARGUMENT, "no_face")
    assert (nothing.code, nothing.details) == (
        "nothing_accepted",
        {"rejected": [{"index": 0, "reason": "no_face"}]},
    )
    assert missing.code == "missing_image"


async def test_a_rate_that_the_calibration_cannot_carry_is_out_of_range(world: World, picture: bytes) -> None:
    gallery = await world.gallery("tiny-rate")
    await world.enrol(gallery, 1)

    refused = await refusal_of(
        world.stub.Identify(
            pb.IdentifyRequest(image=picture, gallery=gallery, fpir=1e-30), metadata=world.key
        )
    )

    assert (refused.status, refused.code) == (StatusCode.OUT_OF_RANGE, "fpir_unsupported")
    assert refused.details["supported"] > 1e-30


async def test_another_name_for_an_external_id_is_a_conflict(world: World) -> None:
    gallery = await world.gallery("names")
    await world.enrol(gallery, 1, name="Ada", external_id="a")

    refused = await refusal_of(world.enrol(gallery, 1, name="Eve", external_id="a"))

    assert (refused.status, refused.code) == (StatusCode.ALREADY_EXISTS, "name_conflict")


async def test_bytes_that_are_no_message_are_malformed(world: World) -> None:
    raw = world.channel.unary_unary("/facet.v1.FaceService/Detect", request_serializer=bytes)

    refused = await refusal_of(raw(b"\xff\xff\xff\xff", metadata=world.key))

    assert (refused.status, refused.code) == (StatusCode.INVALID_ARGUMENT, "malformed_body")


async def test_an_unknown_verb_is_unimplemented(world: World) -> None:
    raw = world.channel.unary_unary("/facet.v1.FaceService/Describe", request_serializer=bytes)

    assert (await refusal_of(raw(b"", metadata=world.key))).status is StatusCode.UNIMPLEMENTED


# ---- how failures from below leave


@pytest.fixture
def failing(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the core's `detect` raise what it is given."""

    def fail_with(error: BaseException) -> None:
        async def detect(self: object, *_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(type(world.facet.recognizer), "detect", detect)

    return fail_with


@pytest.mark.parametrize(
    "kind",
    sorted(set(kinds()) - {FacetError}, key=lambda kind: kind.__name__),
    ids=lambda kind: kind.__name__,
)
async def test_every_kind_leaves_with_its_status_and_code(
    world: World, failing: Any, picture: bytes, kind: type[FacetError]
) -> None:
    failing(make(kind))

    refused = await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key))

    assert (refused.status, refused.code) == (EXPECTED[kind.code], kind.code)
    assert refused.trailers["facet-retryable"] == str(kind.retryable).lower()
    assert ("retry-after-ms" in refused.trailers) == (
        refused.status in (StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE)
    )
    assert len(refused.trailers["x-request-id"]) > 0


async def test_a_defect_says_nothing_about_itself(
    world: World, failing: Any, picture: bytes, caplog: Any
) -> None:
    failing(RuntimeError("the secret is 1234"))

    refused = await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key))

    assert (refused.status, refused.code) == (StatusCode.INTERNAL, "internal")
    assert "1234" not in refused.message + str(refused.trailers)
    assert "Traceback" not in refused.message


# ---- time and room


async def test_a_deadline_that_passes_in_the_core_is_deadline_exceeded(
    world: World, picture: bytes, monkeypatch: Any
) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def detect(self: object, *_: object, **__: object) -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    monkeypatch.setattr(type(world.facet.recognizer), "detect", detect)
    refused = await refusal_of(
        world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key, timeout=0.3)
    )

    assert refused.status is StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_call_without_a_deadline_gets_the_services_own(
    world: World, picture: bytes, monkeypatch: Any
) -> None:
    async def detect(self: object, *_: object, **__: object) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(type(world.facet.recognizer), "detect", detect)
    short = world.facet.settings.model_copy(update={"timeout_ms": 200})
    monkeypatch.setattr(world.gate, "_settings", short)
    refused = await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key))

    assert (refused.status, refused.code) == (StatusCode.DEADLINE_EXCEEDED, "deadline_exceeded")


async def test_the_callers_deadline_reaches_the_core(world: World, picture: bytes, monkeypatch: Any) -> None:
    seen: dict[str, float] = {}

    async def detect(self: object, *_: object, deadline: float, **__: object) -> None:
        seen["left"] = deadline - asyncio.get_running_loop().time()
        raise errors.NoFace("seen")

    monkeypatch.setattr(type(world.facet.recognizer), "detect", detect)
    await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key, timeout=2))
    assert 0.5 < seen["left"] < 2.5

    await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key, timeout=1e6))
    assert seen["left"] <= world.facet.settings.max_timeout_ms / 1000


async def test_a_caller_who_leaves_cancels_the_work(world: World, picture: bytes, monkeypatch: Any) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def detect(self: object, *_: object, **__: object) -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    monkeypatch.setattr(type(world.facet.recognizer), "detect", detect)
    call = world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key)
    await asyncio.wait_for(started.wait(), 5)
    call.cancel()

    await asyncio.wait_for(cancelled.wait(), 5)
    await asyncio.sleep(0)
    assert world.gate._calls == 0


async def test_one_call_too_many_is_refused_and_room_comes_back(
    world: World, picture: bytes, monkeypatch: Any
) -> None:
    entered, release = asyncio.Semaphore(0), asyncio.Event()

    async def detect(self: object, *_: object, **__: object) -> None:
        entered.release()
        await release.wait()
        raise errors.NoFace("done")

    monkeypatch.setattr(type(world.facet.recognizer), "detect", detect)
    monkeypatch.setattr(world.gate, "_settings", world.facet.settings.model_copy(update={"queue_limit": 2}))
    request = pb.DetectRequest(image=picture)
    running = [
        asyncio.ensure_future(refusal_of(world.stub.Detect(request, metadata=world.key))) for _ in range(2)
    ]
    for _ in running:
        await asyncio.wait_for(entered.acquire(), 5)

    refused = await refusal_of(world.stub.Detect(request, metadata=world.key))
    release.set()

    assert (refused.status, refused.code) == (StatusCode.RESOURCE_EXHAUSTED, "overloaded")
    assert int(refused.trailers["retry-after-ms"]) > 0
    assert [one.code for one in await asyncio.gather(*running)] == ["no_face", "no_face"]
    assert (await refusal_of(world.stub.Detect(request, metadata=world.key))).code == "no_face"


async def test_too_many_bytes_in_flight_are_refused(world: World, picture: bytes, monkeypatch: Any) -> None:
    monkeypatch.setattr(world.gate, "_bytes", world.facet.settings.max_body_bytes * 16)

    refused = await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key))

    assert (refused.status, refused.code) == (StatusCode.RESOURCE_EXHAUSTED, "overloaded")


async def test_answers_under_load_belong_to_their_callers(world: World) -> None:
    """Pictures with 0 to 4 faces, asked for at once; a third of the callers leave: nobody gets another's answer."""
    pictures = [encode(draw_scene(list(range(count)))) if count else encode(blank()) for count in range(5)]

    async def ask(number: int) -> None:
        count = number % 5
        call = world.stub.Detect(pb.DetectRequest(image=pictures[count]), metadata=world.key, timeout=60)
        if number % 3 == 2:
            await asyncio.sleep(0.01)
            call.cancel()
            return
        assert len((await call).faces) == count

    await asyncio.gather(*(ask(number) for number in range(30)))


async def test_the_scopes_cover_every_method_of_the_service() -> None:
    assert set(SCOPES) == {method.name for method in pb.DESCRIPTOR.services_by_name["FaceService"].methods}


async def test_metrics_count_calls_by_verb_and_status(world: World, picture: bytes) -> None:
    await world.stub.Detect(pb.DetectRequest(image=picture), metadata=world.key)
    await refusal_of(world.stub.Detect(pb.DetectRequest(image=picture)))

    told = world.facet.metrics.exposition().decode()
    assert 'facet_requests_total{code="OK",door="grpc",method="Detect"}' in told
    assert 'facet_requests_total{code="UNAUTHENTICATED",door="grpc",method="Detect"}' in told
