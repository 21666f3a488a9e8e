"""The form parser: any chunking gives the same parts; broken, truncated and oversized forms are refused by kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MalformedBody, TooLarge
from service.rest.multipart import MAX_PARTS, Part, read_form

TYPE = b"multipart/form-data; boundary=frontier"


def form(*parts: tuple[str, bytes], boundary: bytes = b"frontier") -> bytes:
    """A form; a name with a dot is sent as a file."""
    body = b""
    for name, content in parts:
        body += b"--" + boundary + b'\r\nContent-Disposition: form-data; name="' + name.encode() + b'"'
        body += b'; filename="../../etc/x.gif"\r\nContent-Type: text/html\r\n\r\n' + content + b"\r\n"
    return body + b"--" + boundary + b"--\r\n"


async def chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def parse(body: bytes, size: int = 65536, content_type: bytes = TYPE) -> list[Part] | None:
    return await read_form(content_type, chunks(body, size))


@given(
    contents=st.lists(st.binary(max_size=200) | st.just(b"\r\n--frontie\r\n--frontier"[:-1]), max_size=5),
    size=st.integers(1, 300),
)
async def test_any_chunking_gives_the_parts_that_were_sent(contents: list[bytes], size: int) -> None:
    sent = [
        (f"field{place}", content)
        for place, content in enumerate(contents)
        if b"\r\n--frontier" not in content
    ]

    found = await parse(form(*sent), size)

    assert found is not None
    assert [(part.name, part.content) for part in found] == sent


async def test_a_picture_of_several_chunks_is_whole() -> None:
    picture = bytes(range(256)) * 4000

    assert await parse(form(("image", picture)), 4096) == [Part("image", picture)]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"not a form at all", TYPE),
        (form(("image", b"x" * 500))[:-20], TYPE),  # the last boundary never comes
        (form(("image", b"x"))[:30], TYPE),  # ends inside a header
        (form(("image", b"x")), b"multipart/form-data"),
        (form(("image", b"x")), b"multipart/form-data; boundary="),
        (form(("image", b"x")), b"multipart/form-data; boundary=" + b"b" * 71),
        (b"--frontier\r\nContent-Type: image/png\r\n\r\nx\r\n--frontier--\r\n", TYPE),  # no name
        (b'--frontier\r\nContent-Disposition: attachment; name="image"\r\n\r\nx\r\n--frontier--\r\n', TYPE),
        (b"--frontier\r\n" + b"X-Long: " + b"a" * 5000 + b"\r\n\r\nx\r\n--frontier--\r\n", TYPE),
        (b"--frontier\r\n" + b"X-Many: 1\r\n" * 9 + b"\r\nx\r\n--frontier--\r\n", TYPE),
    ],
    ids=["text", "truncated", "in-header", "no-boundary", "empty-boundary", "long-boundary", "no-name", "attachment",
         "long-header", "many-headers"],
)  # fmt: skip
async def test_a_broken_form_is_malformed(body: bytes, content_type: bytes) -> None:
    with pytest.raises(MalformedBody):
        await parse(body, content_type=content_type)


async def test_too_many_parts_are_refused_before_the_next_is_read() -> None:
    with pytest.raises(TooLarge) as refused:
        await parse(form(*[("images", b"x")] * (MAX_PARTS + 1)))

    assert refused.value.details["limit"] == MAX_PARTS
