"""From the bytes a caller sent to upright RGB pixels, or to the reason why not.

Limits come before work: bytes, magic, header dimensions, and only then the decoder. The decoder's picture must have
the size that its header promised. Transparent pixels lie on white; of an animation the first frame is taken.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from bundle.preprocess import CANVASES
from service.errors import InvalidImage, MissingImage, TooLarge
from service.recognition.headers import Header, read_header

Pixels = npt.NDArray[np.uint8]  # (height, width, 3) RGB

# A progressive JPEG may hold thousands of scans, each of which costs a pass over the whole picture: a few kilobytes
# would keep a thread busy for minutes. Encoders write about ten.
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 1_500_000_000

# Pixels that the detector sees of the shorter side: its smallest faces are as large, so in less there is nobody.
_LEAST_SEEN = 8
_CANVAS_SIDE = max(max(size) for size in CANVASES)

# Cheap cameras pad between segments; every pixel is there all the same.
_HARMLESS = "extraneous bytes before marker"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may cost: encoded bytes and decoded pixels."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Upright pixels."""

    rgb: Pixels

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    def digest(self) -> str:
        """Equal exactly for equal upright pixels, whatever the file was; about 1 ms a megapixel."""
        digest = hashlib.blake2b(f"{self.width}x{self.height}".encode(), digest_size=16)
        digest.update(self.rgb.data)
        return digest.hexdigest()


def inspect(data: bytes, limits: Limits) -> Header:
    """The header of a picture within the limits, without decoding it: microseconds.

    Raises `MissingImage` (no bytes), `TooLarge`, `UnsupportedMedia`, `InvalidImage`.
    """
    if not data:
        raise MissingImage("the picture has 0 bytes")
    if len(data) > limits.max_bytes:
        raise TooLarge(f"the picture has more than {limits.max_bytes} bytes", limit=limits.max_bytes)
    header = read_header(data)
    pixels = header.width * header.height
    if pixels > limits.max_pixels:
        raise TooLarge(f"the picture has more than {limits.max_pixels} pixels", limit=limits.max_pixels)
    if not header.whole:
        raise InvalidImage("the picture is truncated")
    _refuse_unseen(header.width, header.height)
    if header.format == "jpeg":
        scans = data.count(b"\xff\xda")
        if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED_PIXELS:
            raise InvalidImage("the JPEG has too many scans")
    return header


def _refuse_unseen(width: int, height: int) -> None:
    """Raises `InvalidImage` for a picture in which no face can be found: "nobody is here" would be a guess."""
    shorter, longer = sorted((width, height))
    if shorter < _LEAST_SEEN:
        raise InvalidImage(f"{width} × {height} pixels: no face fits into that, send a larger picture")
    if (seen := shorter * _CANVAS_SIDE // longer) < _LEAST_SEEN:
        raise InvalidImage(
            f"{width} × {height} pixels: scaled to a longer side of {_CANVAS_SIDE} only {seen} are left of the other, "
            "too few for a face; cut the picture into pieces and send each"
        )


def decode(data: bytes, header: Header) -> Picture:
    """Decode what `inspect` let pass; `header` is its answer. Raises `InvalidImage`."""
    image = _jpeg(data, header) if header.format == "jpeg" else _other(data, header)
    if image.shape[:2] != (header.height, header.width):
        raise InvalidImage("the picture is not as large as its header says")
    rgb = _opaque(image) if header.alpha else image
    return Picture(_upright(rgb, header.orientation))


def _jpeg(data: bytes, header: Header) -> Pixels:
    """RGB, in whatever colours it is stored. Where OpenCV would fill what is missing with grey, this refuses."""
    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (header.height, header.width):
            raise InvalidImage("the picture is not as large as its header says")
        try:
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB"))
        except ValueError as warning:
            if _HARMLESS not in str(warning):
                raise
            return np.asarray(simplejpeg.decode_jpeg(data, "RGB", strict=False))
    except ValueError:
        raise InvalidImage("the picture is truncated or corrupt") from None


def _other(data: bytes, header: Header) -> npt.NDArray[Any]:
    """PNG and WebP: RGB, or OpenCV's own order with its alpha. Orientation is applied later, for all formats alike."""
    mode = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:
        image = None
    if image is None:
        raise InvalidImage("the picture is truncated or corrupt")
    return image


def _opaque(image: npt.NDArray[Any]) -> Pixels:
    """Any of OpenCV's unchanged forms, 8 or 16 bits, as RGB on white."""
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB))
    if image.shape[2] == 3:  # the alpha channel was announced, not delivered
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    rgb, alpha = cv2.cvtColor(image, cv2.COLOR_BGRA2RGB), image[..., 3]
    if alpha.min() == 255:
        return np.asarray(rgb)
    visible = cv2.merge([alpha, alpha, alpha])
    shown = cv2.multiply(rgb, visible, scale=1 / 255)
    return np.asarray(cv2.add(shown, 255 - visible))


def _upright(image: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: 5 to 8 lie on their side, 2, 4, 5 and 7 are mirrored."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
