"""Pictures that no camera takes and that somebody sends all the same, as bytes of files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.drawn_faces import BACKGROUND, draw_person


def one_pixel(form: str = "PNG", mode: str = "RGB") -> bytes:
    return _saved(Image.new("RGB", (1, 1), BACKGROUND).convert(mode), form)


def strip(width: int = 12_000, height: int = 90, form: str = "PNG", *, standing: bool = False) -> bytes:
    """A panorama as wide as twenty-five canvases' height, with a person who fills it from top to bottom; standing: on
    its end."""
    pixels = np.full((height, width, 3), BACKGROUND, np.uint8)
    person = draw_person(1, size=height // 3)[:height, :height]
    pixels[: person.shape[0], width // 2 : width // 2 + person.shape[1]] = person
    return _saved(Image.fromarray(pixels.transpose(1, 0, 2) if standing else pixels), form)


def grey_and_alpha(identity: int = 1, visible: int = 255) -> bytes:
    """A PNG of two channels: a drawn person without colour, and how visible they are."""
    grey = Image.fromarray(draw_person(identity)).convert("L")
    return _saved(Image.merge("LA", [grey, Image.new("L", grey.size, visible)]))


def deep_grey_and_alpha(identity: int = 1) -> bytes:
    """The same of 16 bits each, which no library here writes."""
    grey = np.asarray(Image.fromarray(draw_person(identity)).convert("L"), ">u2") * 257
    rows = np.stack([grey, np.full_like(grey, 65_535)], 2).astype(">u2")
    head = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 16, 4, 0, 0, 0)
    chunks = (
        (b"IHDR", head),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    )
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        whole += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return whole


def jpeg_of_two_channels() -> bytes:
    """What remains of a colour JPEG when its frame and its scan name two of its three components."""
    buffer = io.BytesIO()
    Image.fromarray(draw_person(1)).save(buffer, "JPEG", subsampling=0)
    data = bytearray(buffer.getvalue())
    for marker, entry, count in ((b"\xff\xc0", 3, 9), (b"\xff\xda", 2, 4)):
        at = data.index(marker)
        (length,) = struct.unpack_from(">H", data, at + 2)
        data[at + 2 : at + 4], data[at + count] = struct.pack(">H", length - entry), 2
        last = at + count + 1 + 2 * entry
        del data[last : last + entry]
    return bytes(data)


def _saved(picture: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()
