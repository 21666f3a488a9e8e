"""A streaming parser of `multipart/form-data` that keeps every part in memory, within bounds.

Rule: nothing is written to disk (a picture in a temporary file is a picture that can leak), and file names and declared
types of parts are not read: only the field's name counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import MalformedBody, TooLarge

MAX_PARTS: Final = 128
MAX_HEADER_BYTES: Final = 4096
MAX_HEADERS: Final = 8  # of one part
MAX_NAME_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class Part:
    """A field of the form: its name and what it holds."""

    name: str
    content: bytes


async def read_form(content_type: bytes, chunks: AsyncIterator[bytes]) -> list[Part] | None:
    """The parts of a form in the order they came, None for an empty body; `chunks` is the body as it arrives.

    Raises `MalformedBody` (no boundary, broken or truncated syntax, a part without a name) and `TooLarge` (more than
    `MAX_PARTS`). Raises what `chunks` raises.
    """
    form: _Form | None = None
    async for chunk in chunks:
        form = form or _Form(_boundary(content_type))
        form.feed(chunk)
    return form.finish() if form else None


def _boundary(content_type: bytes) -> bytes:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise MalformedBody("the form has no valid boundary")
    return boundary


class _Form:
    """The callbacks of one form; `_name` is that of the part being read, None before its header was seen."""

    def __init__(self, boundary: bytes) -> None:
        self._parts: list[Part] = []
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._name: str | None = None
        self._content = bytearray()
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value_data,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_end": self._end,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError:
            raise MalformedBody("the form's syntax is broken") from None

    def finish(self) -> list[Part]:
        if not self._ended:
            raise MalformedBody("the form is truncated")
        return self._parts

    def _part_begin(self) -> None:
        if len(self._parts) >= MAX_PARTS:
            raise TooLarge(f"the form has more than {MAX_PARTS} parts", limit=MAX_PARTS)
        self._name = None
        self._content = bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += memoryview(data)[start:end]

    def _part_end(self) -> None:
        assert self._name is not None  # or the headers' end would have raised
        self._parts.append(Part(self._name, bytes(self._content)))
        self._content = bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_value_data(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            kind, options = parse_options_header(bytes(self._header_value))
            name = options.get(b"name")
            if kind == b"form-data" and name is not None and len(name) <= MAX_NAME_BYTES:
                self._name = name.decode("utf-8", "replace")
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        if self._name is None:
            raise MalformedBody("a part of the form has no name")

    def _end(self) -> None:
        self._ended = True
