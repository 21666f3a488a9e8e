"""What a picture says of itself before any decoder sees it: format, dimensions, alpha, orientation.

Kept: the format is decided by magic bytes alone, every read is bounded by the data, and the work by a count of
segments. Metadata that is malformed is ignored; a structure that is broken is `InvalidImage`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from service.errors import InvalidImage, UnsupportedMedia

Format = Literal["jpeg", "png", "webp"]

# 20 MB of the smallest segments would keep a core busy for seconds; cameras write some dozens, libpng one a 8 kB.
_MAX_SEGMENTS = 5_000
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0–15 without DHT, JPG and DAC
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


@dataclass(frozen=True, slots=True)
class Header:
    """A picture as stored: `width` × `height` before `orientation` (EXIF 1–8) is applied.

    Not `whole`: the data ends behind the size, and before the picture; the size can still be too large.
    """

    format: Format
    width: int
    height: int
    alpha: bool
    orientation: int
    whole: bool = True


def read_header(data: bytes) -> Header:
    """Read the header of `data`. Raises `UnsupportedMedia` for other formats, `InvalidImage` for a broken one."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            header = _jpeg(data)
        elif data.startswith(_PNG):
            header = _png(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _webp(data)
        else:
            raise UnsupportedMedia("the picture is not JPEG, PNG or WebP")
    except (struct.error, IndexError):
        raise InvalidImage("the picture ends inside its header") from None
    if header.width < 1 or header.height < 1:
        raise InvalidImage("the picture's header gives no size")
    return header


def orientation(exif: bytes) -> int:
    """The orientation 1–8 that an EXIF block (TIFF structure) states; 1 where it is absent or malformed."""
    try:
        exif = exif.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        magic, at = struct.unpack_from(order + "HI", exif, 2)
        (count,) = struct.unpack_from(order + "H", exif, at)
        if magic != 42:
            return 1
        for entry in range(at + 2, at + 2 + 12 * min(count, 500), 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, entry + 8)
                return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass
    return 1


def _jpeg(data: bytes) -> Header:
    at, turned, size = 2, 0, (0, 0)
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(data) and size != (0, 0):
            return Header("jpeg", *size, alpha=False, orientation=1, whole=False)
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise InvalidImage("the JPEG's segments are broken")
        marker = data[at + 1]
        if marker in _BARE:
            at += 2
            continue
        if marker in (0xDA, 0xD9):  # the scan, or the end
            return Header("jpeg", *size, alpha=False, orientation=turned or 1)
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            if data[at + 9] not in (1, 3, 4):
                raise InvalidImage(f"the JPEG has {data[at + 9]} channels: save it in grey, colour or CMYK")
            size = (width, height)
        elif marker == 0xE1 and not turned and data[at + 4 : at + 10] == b"Exif\0\0":
            turned = orientation(data[at + 4 : at + 2 + length])
        at += 2 + max(2, length)
    raise InvalidImage("the JPEG has too many segments")


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise InvalidImage("the PNG does not begin with its header")
    width, height, _, colour = struct.unpack_from(">IIBB", data, 16)
    alpha, turned, at = colour in (4, 6), 1, 8
    for _ in range(_MAX_SEGMENTS):
        if at + 8 > len(data):
            return Header("png", width, height, alpha, turned, whole=False)
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind == b"IEND":
            return Header("png", width, height, alpha, turned)
        if kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf":
            turned = orientation(data[at + 8 : at + 8 + length])
        at += 12 + length
    raise InvalidImage("the PNG has too many chunks")


def _webp(data: bytes) -> Header:
    (length,) = struct.unpack_from("<I", data, 4)
    if length + 8 > len(data):
        raise InvalidImage("the WebP is truncated")
    kind = data[12:16]
    if kind == b"VP8 ":
        if data[23:26] != b"\x9d\x01\x2a":
            raise InvalidImage("the WebP's frame is broken")
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF, alpha=False, orientation=1)
    if kind == b"VP8L":
        if data[20] != 0x2F:
            raise InvalidImage("the WebP's frame is broken")
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1), 1)
    if kind != b"VP8X":
        raise InvalidImage("the WebP has no picture")
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    return Header("webp", width, height, bool(data[20] & 0x10), _webp_orientation(data))


def _webp_orientation(data: bytes) -> int:
    at = 12
    for _ in range(_MAX_SEGMENTS):
        if at + 8 > len(data):
            return 1
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            return orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)
    raise InvalidImage("the WebP has too many chunks")
