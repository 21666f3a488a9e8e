"""What a caller should not send: each has a status and a code, and after all of it the service still answers."""

from __future__ import annotations

import base64
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from tests.odd_pictures import (
    deep_grey_and_alpha,
    grey_and_alpha,
    jpeg_of_two_channels,
    one_pixel,
    strip,
)
from tests.service.rest.conftest import ADMIN_KEY, call
from tests.synthetic_bundle import blank, draw_person, draw_scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

Refused = Callable[[httpx.Response, int, str], dict[str, Any]]
FACE = draw_person(1)


def jpeg(picture: Any = FACE) -> bytes:
    return bytes(cv2.imencode(".jpg", picture[..., ::-1])[1])


def png(picture: Any) -> bytes:
    return bytes(cv2.imencode(".png", picture)[1])


def huge_header() -> bytes:
    """A PNG whose header promises 20,000 × 20,000 pixels."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + head
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(head)) + chunk + struct.pack(">I", zlib.crc32(chunk))


def huge_jpeg_header() -> bytes:
    frame = struct.pack(">HBHHB", 17, 8, 20_000, 20_000, 3) + b"\x01\x22\x00\x02\x11\x01\x03\x11\x01"
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9"


GIF = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00" \
      b",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"  # fmt: skip
BAD_PICTURES: dict[str, tuple[bytes, int, str]] = {
    "text": (b"this is not a picture, it is a sentence about one", 415, "unsupported_media"),
    "html": (b"<html><body>hello</body></html>", 415, "unsupported_media"),
    "gif": (GIF, 415, "unsupported_media"),
    "tiff": (b"II*\x00\x08\x00\x00\x00" + b"\x00" * 64, 415, "unsupported_media"),
    "truncated jpeg": (jpeg()[: len(jpeg()) // 2], 422, "invalid_image"),
    "truncated png": (png(FACE)[: len(png(FACE)) // 2], 422, "invalid_image"),
    "jpeg of three bytes": (b"\xff\xd8\xff", 422, "invalid_image"),
    "jpeg of two channels": (jpeg_of_two_channels(), 422, "invalid_image"),
    "1 x 1": (one_pixel(), 422, "invalid_image"),
    "1 x 1, JPEG": (one_pixel("JPEG"), 422, "invalid_image"),
    "1 x 1, WebP": (one_pixel("WEBP"), 422, "invalid_image"),
    "1 x 1 of two channels": (one_pixel(mode="LA"), 422, "invalid_image"),
    "12,000 x 90": (strip(), 422, "invalid_image"),
    "12,000 x 90, JPEG": (strip(form="JPEG"), 422, "invalid_image"),
    "90 x 12,000": (strip(form="JPEG", standing=True), 422, "invalid_image"),
    "20,000 x 20,000 png header": (huge_header(), 413, "too_large"),
    "20,000 x 20,000 jpeg header": (huge_jpeg_header(), 413, "too_large"),
}
WHAT_IS_WRONG = {
    "text": "not JPEG, PNG or WebP",
    "truncated jpeg": "truncated",
    "truncated png": "truncated",
    "jpeg of three bytes": "ends inside its header",
    "jpeg of two channels": "2 channels: save it in grey, colour or CMYK",
    "1 x 1": "1 × 1 pixels: no face fits into that, send a larger picture",
    "12,000 x 90": "only 4 are left of the other, too few for a face; cut the picture into pieces",
    "90 x 12,000": "90 × 12000 pixels",
    "20,000 x 20,000 png header": "more than 50000000 pixels",
}
VERBS = ("detect", "embed", "identify")
PAIR = {"image_a": jpeg(), "image_b": jpeg()}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("case", BAD_PICTURES)
async def test_a_bad_picture_is_refused_by_kind(
    client: httpx.AsyncClient, refused: Refused, verb: str, case: str
) -> None:
    content, status, code = BAD_PICTURES[case]
    encoded = base64.b64encode(content).decode()

    refused(
        await client.post(f"/v1/{verb}", content=content, headers={"content-type": "image/jpeg"}),
        status,
        code,
    )
    refused(await client.post(f"/v1/{verb}", files={"image": ("a.jpg", content, "image/jpeg")}), status, code)
    refused(await client.post(f"/v1/{verb}", json={"image": encoded}), status, code)


@pytest.mark.parametrize("case", WHAT_IS_WRONG)
async def test_a_refusal_says_what_is_wrong_with_the_picture(client: httpx.AsyncClient, case: str) -> None:
    content, status, _ = BAD_PICTURES[case]

    for verb in VERBS:
        answer = await client.post(f"/v1/{verb}", content=content)
        assert answer.status_code == status
        assert WHAT_IS_WRONG[case] in answer.json()["error"]["message"]


@pytest.mark.parametrize("case", BAD_PICTURES)
async def test_verify_refuses_either_bad_picture_by_kind(
    client: httpx.AsyncClient, refused: Refused, case: str
) -> None:
    content, status, code = BAD_PICTURES[case]

    refused(await client.post("/v1/verify", files={"image_a": jpeg(), "image_b": content}), status, code)
    refused(await client.post("/v1/verify", files={"image_a": content, "image_b": jpeg()}), status, code)


@pytest.mark.parametrize("case", BAD_PICTURES)
async def test_enrolment_rejects_a_bad_picture_and_says_which(
    client: httpx.AsyncClient, refused: Refused, case: str
) -> None:
    content, status, code = BAD_PICTURES[case]

    answer = await client.post("/v1/enroll", files=[("images", content)])

    if code == "too_large":  # a limit is the call's; what is inside is each picture's own
        refused(answer, status, code)
    else:
        details = refused(answer, 422, "nothing_accepted")
        assert details["rejected"] == [{"index": 0, "reason": "invalid_image"}]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "sent",
    [
        {"content": b""},
        {"content": b"", "headers": {"content-type": "application/json"}},
        {"content": b"", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"", "headers": {"content-type": "image/jpeg"}},
        {"files": {"image": b""}},
        {"json": {"image": ""}},
        {"json": {}},
        {"files": {"gallery": b"default"}},
    ],
    ids=["nothing", "empty-json", "empty-form", "empty-raw", "0-byte-file", "0-byte-base64", "no-field", "no-part"],
)  # fmt: skip
async def test_no_picture_is_missing_image(
    client: httpx.AsyncClient, refused: Refused, verb: str, sent: dict[str, Any]
) -> None:
    if "gallery" in sent.get("files", {}) and verb != "identify":
        sent = {"files": {"faces": b"all"}}

    refused(await client.post(f"/v1/{verb}", **sent), 400, "missing_image")


async def test_no_picture_to_enrol_or_to_verify_is_missing_image(
    client: httpx.AsyncClient, refused: Refused
) -> None:
    refused(await client.post("/v1/enroll", files={"images": b""}), 400, "missing_image")
    refused(
        await client.post("/v1/enroll", data={"name": "x"}, files={"force": b"true"}), 400, "missing_image"
    )
    refused(await client.post("/v1/enroll", json={"images": []}), 400, "missing_image")
    refused(await client.post("/v1/verify", files={"image_a": jpeg()}), 400, "missing_image")
    refused(await client.post("/v1/verify", files={"image_a": jpeg(), "image_b": b""}), 400, "missing_image")
    refused(await client.post("/v1/verify", json={}), 400, "missing_image")


@pytest.mark.parametrize("path", ["/v1/identify", "/enroll", "/v1/galleries"])
@pytest.mark.parametrize("declared", ["image/jpeg", "application/json", "multipart/form-data; boundary=x"])
async def test_a_body_of_100_mb_is_refused_from_its_declared_length(
    world: Any, path: str, declared: str
) -> None:
    headers = {"x-api-key": ADMIN_KEY, "content-length": "100000000", "content-type": declared}

    status, answer, taken = await call(world.app, "POST", path, headers)

    assert (status, taken) == (413, 0)
    assert b'"too_large"' in answer


@pytest.mark.parametrize("path", ["/v1/identify", "/enroll", "/v1/galleries"])
@pytest.mark.parametrize("declared", ["image/jpeg", "application/json", "multipart/form-data; boundary=x"])
async def test_an_endless_body_is_refused_at_20_mb(world: Any, path: str, declared: str) -> None:
    field = "images" if path == "/enroll" else "image"
    start = (
        f'--x\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n'.encode()
        if "form" in declared
        else b""
    )
    headers = {"x-api-key": ADMIN_KEY, "content-type": declared}

    status, answer, taken = await call(world.app, "POST", path, headers, start)

    assert status == 413
    assert b'"too_large"' in answer
    assert 20_000_000 < taken < 20_200_000


async def test_the_memory_of_refused_bodies_is_given_back(world: Any) -> None:
    tracemalloc.start()
    try:
        for _ in range(3):
            await call(
                world.app, "POST", "/v1/identify", {"x-api-key": ADMIN_KEY, "content-type": "image/jpeg"}
            )
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 5_000_000
    assert peak < 50_000_000


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"no form", "multipart/form-data; boundary=x"),
        (b"no form", "multipart/form-data"),
        (
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc',
            "multipart/form-data; boundary=x",
        ),
    ],
)
async def test_broken_syntax_is_malformed_body(
    client: httpx.AsyncClient, refused: Refused, content: bytes, declared: str
) -> None:
    refused(
        await client.post("/v1/identify", content=content, headers={"content-type": declared}),
        400,
        "malformed_body",
    )


async def test_broken_json_to_a_noun_is_malformed_body(client: httpx.AsyncClient, refused: Refused) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"{", b"\xff\xfe", b'{"id": '):
        refused(await client.post("/v1/galleries", content=content, headers=headers), 400, "malformed_body")


def exif(picture: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF orientation."""
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01" + struct.pack(
        ">HHI", orientation, 0, 0
    )
    segment = b"Exif\x00\x00" + tiff
    return picture[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + picture[2:]


# How an upright picture must be stored so that the orientation makes it upright again.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_every_exif_orientation_gives_the_upright_answer(
    client: httpx.AsyncClient, orientation: int
) -> None:
    upright = np.ascontiguousarray(draw_scene([4, 5], columns=2))
    expected = (await client.post("/v1/embed", content=jpeg(upright))).json()
    stored = exif(jpeg(np.ascontiguousarray(STORED[orientation](upright))), orientation)

    found = (await client.post("/v1/embed", content=stored)).json()

    assert found["image"] == expected["image"] == {"width": upright.shape[1], "height": upright.shape[0]}
    assert len(found["faces"]) == len(expected["faces"]) == 2
    for face in found["faces"]:
        cosines = [np.dot(face["embedding"], other["embedding"]) for other in expected["faces"]]
        same = expected["faces"][int(np.argmax(cosines))]
        assert max(cosines) > 0.98
        assert face["box"] == pytest.approx(same["box"], abs=1.5)


def cmyk() -> bytes:
    """A CMYK JPEG of the face, as an image editor writes it."""
    from io import BytesIO

    from PIL import Image

    out = BytesIO()
    Image.fromarray(FACE).convert("CMYK").save(out, "JPEG", quality=95)
    return out.getvalue()


def palette() -> bytes:
    from io import BytesIO

    from PIL import Image

    out = BytesIO()
    Image.fromarray(FACE).quantize(128).save(out, "PNG")
    return out.getvalue()


def alpha() -> bytes:
    return png(np.dstack([FACE[..., ::-1], np.full(FACE.shape[:2], 255, np.uint8)]))


FORMS: dict[str, Callable[[], bytes]] = {
    "cmyk": cmyk,
    "16 bit": lambda: png(FACE[..., ::-1].astype(np.uint16) * 257),
    "alpha": alpha,
    "palette": palette,
    "webp": lambda: bytes(cv2.imencode(".webp", FACE[..., ::-1])[1]),
    "progressive": lambda: bytes(cv2.imencode(".jpg", FACE[..., ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]),
    "grey": lambda: png(cv2.cvtColor(FACE, cv2.COLOR_RGB2GRAY)),
    "grey and alpha": grey_and_alpha,
    "16 bit grey and alpha": deep_grey_and_alpha,
    "16 bit grey": lambda: png(cv2.cvtColor(FACE, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_pixels_is_accepted(client: httpx.AsyncClient, form: str) -> None:
    content = FORMS[form]()
    expected = (await client.post("/v1/embed", content=png(FACE[..., ::-1]))).json()["faces"][0]

    answer = await client.post("/v1/embed", content=content)

    assert answer.status_code == 200, answer.text
    (face,) = answer.json()["faces"]
    assert face["box"] == pytest.approx(expected["box"], abs=3)
    if "grey" not in form:
        assert np.dot(face["embedding"], expected["embedding"]) > 0.95


async def test_no_face_is_an_answer_or_a_refusal_by_verb(client: httpx.AsyncClient, refused: Refused) -> None:
    nobody = png(blank())

    for verb in ("detect", "embed"):
        answer = await client.post(f"/v1/{verb}", content=nobody)
        assert (answer.status_code, answer.json()["faces"]) == (200, [])
    identified = (await client.post("/v1/identify", content=nobody)).json()
    assert (identified["decision"], identified["person"], identified["faces"]) == ("no_face", None, [])
    refused(await client.post("/v1/verify", files={"image_a": nobody, "image_b": jpeg()}), 422, "no_face")
    details = refused(await client.post("/v1/enroll", files={"images": nobody}), 422, "nothing_accepted")
    assert details["rejected"] == [{"index": 0, "reason": "no_face"}]


async def test_an_invisible_picture_is_answered_as_one_without_a_face(
    client: httpx.AsyncClient, refused: Refused
) -> None:
    picture = grey_and_alpha(visible=0)
    height, width = draw_person(1).shape[:2]

    for verb in ("detect", "embed"):
        answer = (await client.post(f"/v1/{verb}", content=picture)).json()
        assert (answer["faces"], answer["image"]) == ([], {"width": width, "height": height})
    assert (await client.post("/v1/identify", content=picture)).json()["decision"] == "no_face"
    refused(await client.post("/v1/verify", files={"image_a": picture, "image_b": jpeg()}), 422, "no_face")
    details = refused(await client.post("/v1/enroll", files={"images": picture}), 422, "nothing_accepted")
    assert details["rejected"] == [{"index": 0, "reason": "no_face"}]


async def test_a_piece_of_a_panorama_shows_who_could_not_be_seen_in_the_whole(
    client: httpx.AsyncClient,
) -> None:
    (face,) = (await client.post("/v1/detect", content=strip(width=240))).json()["faces"]

    assert face["box"]["x"] > 90
    assert face["box"]["height"] < 90


async def test_many_faces_are_all_listed_and_not_enrolled(
    client: httpx.AsyncClient, refused: Refused
) -> None:
    crowd = png(draw_scene(range(20, 32))[..., ::-1])

    assert len((await client.post("/v1/detect", content=crowd)).json()["faces"]) == 12
    assert (
        len((await client.post("/v1/detect", content=crowd, params={"faces": "largest"})).json()["faces"])
        == 1
    )
    identified = (await client.post("/v1/identify", content=crowd, params={"faces": "all"})).json()
    assert len(identified["faces"]) == 12
    details = refused(await client.post("/v1/enroll", files={"images": crowd}), 422, "nothing_accepted")
    assert details["rejected"] == [{"index": 0, "reason": "multiple_faces"}]


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("POST", "/v1/identify", {"gallery": "nowhere"}, "gallery_not_found"),
        ("POST", "/v1/enroll", {"gallery": "nowhere"}, "gallery_not_found"),
        ("POST", "/v1/enroll", {"person_id": "nobody"}, "person_not_found"),
        ("POST", "/v1/verify", {"person_id": "nobody"}, "person_not_found"),
        ("POST", "/v1/verify", {"person_id": "nobody", "gallery": "nowhere"}, "gallery_not_found"),
        ("POST", "/v1/galleries/default/persons/nobody/faces", {}, "person_not_found"),
        ("POST", "/v1/galleries/nowhere/persons/nobody/faces", {}, "gallery_not_found"),
    ],
)
async def test_an_unknown_id_with_a_picture_is_not_found(
    client: httpx.AsyncClient, refused: Refused, method: str, path: str, body: dict[str, str], code: str
) -> None:
    field = "images" if "enroll" in path or "faces" in path else "image"

    refused(await client.request(method, path, data=body, files={field: jpeg()}), 404, code)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/galleries/nowhere", "gallery_not_found"),
        ("PATCH", "/v1/galleries/nowhere", "gallery_not_found"),
        ("DELETE", "/v1/galleries/nowhere", "gallery_not_found"),
        ("GET", "/v1/galleries/nowhere/persons", "gallery_not_found"),
        ("POST", "/v1/galleries/nowhere/persons", "gallery_not_found"),
        ("GET", "/v1/galleries/default/persons/nobody", "person_not_found"),
        ("PATCH", "/v1/galleries/default/persons/nobody", "person_not_found"),
        ("DELETE", "/v1/galleries/default/persons/nobody", "person_not_found"),
        ("GET", "/v1/galleries/default/persons/nobody/faces", "person_not_found"),
        ("DELETE", "/v1/galleries/default/persons/nobody/faces/none", "person_not_found"),
        ("DELETE", "/v1/api-keys/none", "api_key_not_found"),
        ("GET", "/v1/galleries/default/persons/%00", "person_not_found"),
        ("GET", "/v1/galleries/" + "x" * 3000, "gallery_not_found"),
        ("GET", "/nothing", "not_found"),
        ("POST", "/v1", "not_found"),
        ("POST", "/v2/identify", "not_found"),
        ("POST", "/identify/", "not_found"),
    ],
)
async def test_an_unknown_id_or_path_is_not_found(
    client: httpx.AsyncClient, refused: Refused, method: str, path: str, code: str
) -> None:
    refused(await client.request(method, path, json={} if method in ("POST", "PATCH") else None), 404, code)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/identify"), ("DELETE", "/enroll"), ("PUT", "/v1/galleries/default"), ("POST", "/healthz")],
)
async def test_another_method_is_not_allowed(
    client: httpx.AsyncClient, refused: Refused, method: str, path: str
) -> None:
    answer = await client.request(method, path)

    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    ("path", "sent", "parameter"),
    [
        ("/v1/identify", {"content": jpeg(), "params": {"fpir": "0.01", "threshold": "0.5"}}, None),
        ("/v1/verify", {"files": PAIR, "data": {"fmr": "1e-4", "threshold": "0.5"}}, None),
        ("/v1/identify", {"content": jpeg(), "params": {"colour": "blue"}}, "colour"),
        ("/v1/detect", {"content": jpeg(), "params": {"gallery": "default"}}, "gallery"),
        ("/v1/detect", {"json": {"image": 5}}, "image"),
        ("/v1/detect", {"json": {"image": "AAAA", "min_score": "high"}}, "min_score"),
        ("/v1/galleries", {"json": {"id": 5}}, "id"),
        ("/v1/galleries", {"json": {"id": "Not A Slug"}}, "id"),
        ("/v1/galleries", {"json": {"id": "ok", "colour": "blue"}}, "colour"),
        ("/v1/galleries", {"json": {"id": "ok", "metadata": "text"}}, "metadata"),
        ("/v1/galleries", {"json": ["ok"]}, ""),
        ("/v1/galleries", {"content": b"id=ok", "headers": {"content-type": "text/plain"}}, ""),
        ("/v1/galleries/default/persons", {"json": {"name": 5}}, "name"),
        ("/v1/galleries/default/persons", {"json": {}, "params": {"colour": "blue"}}, "colour"),
        ("/v1/api-keys", {"json": {"name": "x", "scopes": ["everything"]}}, None),
        ("/v1/api-keys", {"json": {"name": "x", "scopes": []}}, "scopes"),
        ("/v1/api-keys", {"json": {"name": "x", "scopes": "identify"}}, "scopes"),
        ("/v1/detect", {"content": jpeg(), "headers": {"x-timeout-ms": "soon"}}, "X-Timeout-Ms"),
        ("/v1/detect", {"content": jpeg(), "headers": {"x-timeout-ms": "0"}}, "X-Timeout-Ms"),
        ("/v1/enroll", {"files": {"images": jpeg()}, "headers": {"idempotency-key": "x" * 201}}, "Idempotency-Key"),
    ],
)  # fmt: skip
async def test_a_wrong_parameter_is_refused_and_named(
    client: httpx.AsyncClient, refused: Refused, path: str, sent: dict[str, Any], parameter: str | None
) -> None:
    details = refused(await client.post(path, **sent), 422, "invalid_parameter")

    assert parameter is None or details["parameter"] == parameter


@pytest.mark.parametrize(
    ("path", "query", "parameter"),
    [
        ("/v1/galleries", {"limit": "0"}, "limit"),
        ("/v1/galleries", {"limit": "many"}, "limit"),
        ("/v1/galleries", {"colour": "blue"}, "colour"),
        ("/v1/galleries/default", {"colour": "blue"}, "colour"),
        ("/v1/galleries", {"cursor": "made up"}, "cursor"),
        ("/v1/galleries/default/persons", {"cursor": "eyJ4IjoxfQ"}, "cursor"),
    ],
)
async def test_a_wrong_page_is_refused_and_named(
    client: httpx.AsyncClient, refused: Refused, path: str, query: dict[str, str], parameter: str
) -> None:
    assert refused(await client.get(path, params=query), 422, "invalid_parameter")["parameter"] == parameter


async def test_a_rate_beyond_what_was_measured_is_refused(
    client: httpx.AsyncClient, refused: Refused, world: Any
) -> None:
    gallery = await world.gallery("rates")
    await world.enrol(gallery, 90)

    refused(
        await client.post("/v1/identify", content=jpeg(), params={"gallery": gallery, "fpir": 1e-15}),
        422,
        "fpir_unsupported",
    )
    answer = await client.post(
        "/v1/verify", files={"image_a": jpeg(), "image_b": jpeg()}, data={"fmr": "1e-15"}
    )
    refused(answer, 422, "fpir_unsupported")


async def test_afterwards_the_service_still_answers_and_the_gallery_equals_the_database(
    client: httpx.AsyncClient, world: Any
) -> None:
    gallery = await world.gallery("afterwards")
    person = (await world.enrol(gallery, 91, name="Last"))["person"]

    found = (
        await client.post("/v1/identify", content=jpeg(draw_person(91, 3)), params={"gallery": gallery})
    ).json()

    assert (found["decision"], found["person"]["id"]) == ("match", person["id"])
    assert (await client.get("/readyz")).status_code == 200
    for told in (await client.get("/v1/galleries")).json()["galleries"]:
        snapshot = world.facet.sync.snapshot(told["id"])
        assert (snapshot.size, snapshot.templates, snapshot.revision) == (
            told["size"],
            told["templates"],
            told["revision"],
        )
