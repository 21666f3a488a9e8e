"""Pictures and parameters out of a request, however they were sent: a form, a raw picture, or JSON with base64.

Rule: the request's content type says how to read the body and nothing about a picture: its magic bytes decide that,
below. A picture is never echoed, not in part, in an error.
"""

from __future__ import annotations

import binascii
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import ValidationError
from starlette.requests import Request

from service.errors import Cancelled, InvalidParameter, MalformedBody, MissingImage
from service.rest.errors import parameter_name, wrong_parameters
from service.rest.multipart import MAX_PARTS, read_form
from service.rest.parameters import VerbParameters

Parameters = TypeVar("Parameters", bound=VerbParameters)


@dataclass(frozen=True, slots=True)
class Asked(Generic[Parameters]):
    """What was asked: checked parameters, single pictures by field name, and the list of pictures."""

    parameters: Parameters
    pictures: dict[str, bytes]
    many: list[bytes]

    @property
    def image(self) -> bytes:
        """The picture of the field `image`. Raises `MissingImage`."""
        return self.picture("image")

    def picture(self, field: str) -> bytes:
        """The picture of a field. Raises `MissingImage` when it is absent or has 0 bytes."""
        content = self.pictures.get(field)
        if not content:
            raise MissingImage(f"no picture in {field}", image=field)
        return content


class _Fields:
    """Fields as they are found, sorted into pictures and parameters; `strict`: types are not converted."""

    def __init__(self, kind: type[VerbParameters]) -> None:
        self.kind = kind
        self.pictures: dict[str, bytes] = {}
        self.many: list[bytes] = []
        self.values: dict[str, Any] = {}

    def is_picture(self, name: str) -> bool:
        return name in self.kind.one_picture or name == self.kind.many_pictures

    def add_picture(self, name: str, content: bytes) -> None:
        if name == self.kind.many_pictures:
            self.many.append(content)
        elif name in self.pictures:
            raise InvalidParameter("given more than once", parameter=name)
        else:
            self.pictures[name] = content

    def add_value(self, name: str, value: Any) -> None:
        if name in self.values:
            raise InvalidParameter("given more than once", parameter=parameter_name(name))
        self.values[name] = value

    def add_text(self, name: str, text: str) -> None:
        """A parameter of a form or a query; `metadata` is JSON there."""
        self.add_value(name, _metadata(text) if name == "metadata" else text)


async def read_asked(request: Request, kind: type[Parameters]) -> Asked[Parameters]:
    """The pictures and parameters of a verb, whose fields `kind` declares.

    Raises `MalformedBody`, `InvalidParameter`, `MissingImage` (an empty body), and what the limits raise.
    """
    fields = _Fields(kind)
    content_type = request.headers.get("content-type", "").encode("latin-1")
    sort = content_type.partition(b";")[0].strip().lower()
    for name, text in _query(request):
        if fields.is_picture(name):
            raise InvalidParameter("a picture belongs into the body", parameter=name)
        fields.add_text(name, text)
    strict = sort == b"application/json"
    if sort == b"multipart/form-data":
        await _read_parts(fields, content_type, _chunks(request))
    elif strict:
        _read_json(fields, await _whole(request))
    else:
        _read_raw(fields, await _whole(request))
    return _checked(fields, kind, strict=strict and not request.url.query)


def _checked(fields: _Fields, kind: type[Parameters], *, strict: bool) -> Asked[Parameters]:
    try:
        parameters = kind.model_validate(fields.values, strict=strict)
    except ValidationError as wrong:
        problems = wrong.errors(include_url=False, include_context=False, include_input=False)
        raise wrong_parameters(problems) from None
    return Asked(parameters, fields.pictures, fields.many)


async def _read_parts(fields: _Fields, content_type: bytes, chunks: AsyncIterator[bytes]) -> None:
    parts = await read_form(content_type, chunks)
    if parts is None:
        raise MissingImage("the body is empty")
    for part in parts:
        if fields.is_picture(part.name):
            fields.add_picture(part.name, part.content)
        else:
            fields.add_text(part.name, _utf8(part.content, part.name))


def _read_raw(fields: _Fields, body: bytes) -> None:
    if not body:
        raise MissingImage("the body is empty")
    fields.add_picture(fields.kind.many_pictures or "image", body)


def _read_json(fields: _Fields, body: bytes) -> None:
    if not body:
        raise MissingImage("the body is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise MalformedBody("the body is not valid JSON") from None
    if not isinstance(document, dict):
        raise MalformedBody("the body is not a JSON object")
    for name, value in document.items():
        if not fields.is_picture(name):
            fields.add_value(name, value)
        elif name == fields.kind.many_pictures:
            for each in _listed(name, value):
                fields.add_picture(name, _decoded(name, each))
        elif value is not None:
            fields.add_picture(name, _decoded(name, value))


def _listed(name: str, value: object) -> Iterable[object]:
    if not isinstance(value, list):
        raise InvalidParameter("must be a list of pictures in base64", parameter=name)
    if len(value) > MAX_PARTS:
        raise InvalidParameter(f"holds more than {MAX_PARTS} pictures", parameter=name, limit=MAX_PARTS)
    return value


def _decoded(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidParameter("must be a picture in base64", parameter=name)
    try:
        return binascii.a2b_base64(value.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise InvalidParameter("is not valid base64", parameter=name) from None


def _query(request: Request) -> list[tuple[str, str]]:
    query: bytes = request.scope["query_string"]
    if not query:
        return []
    try:
        return parse_qsl(
            query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARTS
        )
    except ValueError:  # too many fields, or not UTF-8
        raise InvalidParameter("the query cannot be read", parameter="query") from None


def _utf8(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise InvalidParameter("is not UTF-8 text", parameter=parameter_name(name)) from None


def _metadata(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidParameter("must be a JSON object", parameter="metadata") from None


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Cancelled
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body", False):
            return


async def _whole(request: Request) -> bytes:
    return b"".join([chunk async for chunk in _chunks(request)])
