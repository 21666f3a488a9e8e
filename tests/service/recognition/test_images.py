"""Every kind of picture a caller may send: upright pixels, or the reason why not, never a crash (invariant 5)."""

from __future__ import annotations

import contextlib
import io
import struct
import time
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.errors import FacetError, InvalidImage, MissingImage, TooLarge, UnsupportedMedia
from service.recognition.headers import orientation, read_header
from service.recognition.images import Limits, Picture, decode, inspect
from tests.odd_pictures import jpeg_of_two_channels

Pixels = npt.NDArray[np.uint8]
FORMATS = ["JPEG", "PNG", "WEBP"]


def scene(width: int = 96, height: int = 64) -> Pixels:
    """Four flat corners: red, green / blue, white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    half, middle = height // 2, width // 2
    pixels[:half, :middle], pixels[:half, middle:] = (220, 30, 30), (30, 200, 30)
    pixels[half:, :middle], pixels[half:, middle:] = (30, 30, 220), (240, 240, 240)
    return pixels


def encoded(picture: Image.Image | Pixels, form: str = "JPEG", **how: Any) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if form == "JPEG":
        how = {"quality": 95, "subsampling": 0, **how}
    elif form == "WEBP":
        how = {"lossless": True, **how}
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def opened(data: bytes, limits: Limits | None = None) -> Picture:
    return decode(data, inspect(data, limits or Limits()))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width: int, height: int, data: bytes) -> bytes:
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def jpeg_claiming(width: int, height: int, data: bytes) -> bytes:
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def exif(value: int, order: str = ">", kind: int = 3) -> bytes:
    mark = b"MM" if order == ">" else b"II"
    cell = struct.pack(order + ("H2x" if kind == 3 else "I"), value)
    return mark + struct.pack(order + "HIHHHI", 42, 8, 1, 0x0112, kind, 1) + cell + bytes(4)


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_is_decoded_as_it_was_drawn(form: str) -> None:
    picture = opened(encoded(scene(), form))
    assert (picture.width, picture.height) == (96, 64)
    assert picture.rgb.flags.c_contiguous
    assert np.abs(picture.rgb.astype(int) - scene()).mean() < 2


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("turn", range(1, 9))
def test_all_eight_orientations_come_out_upright(form: str, turn: int) -> None:
    as_stored = {
        1: lambda of: of, 2: lambda of: of[:, ::-1], 3: lambda of: of[::-1, ::-1], 4: lambda of: of[::-1],
        5: lambda of: of.transpose(1, 0, 2), 6: lambda of: np.rot90(of, 1),
        7: lambda of: np.rot90(of, 2).transpose(1, 0, 2), 8: lambda of: np.rot90(of, -1),
    }[turn](scene())  # fmt: skip
    tag = Image.Exif()
    tag[0x0112] = turn
    picture = opened(encoded(np.ascontiguousarray(as_stored), form, exif=tag))
    assert (picture.width, picture.height) == (96, 64)
    assert np.abs(picture.rgb.astype(int) - scene()).mean() < 3


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("kind", [3, 4])
def test_orientation_is_read_in_both_byte_orders_and_widths(order: str, kind: int) -> None:
    assert orientation(exif(6, order, kind)) == 6
    assert orientation(b"Exif\0\0" + exif(3, order, kind)) == 3


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(value: int) -> None:
    assert orientation(exif(value)) == 1


@given(st.binary(max_size=60), st.integers(0, 40))
def test_malformed_exif_is_ignored(noise: bytes, cut: int) -> None:
    assert 1 <= orientation(noise) <= 8
    assert 1 <= orientation(exif(6)[:cut] + noise) <= 8


def test_a_picture_with_malformed_exif_is_still_a_picture() -> None:
    data = encoded(scene())
    broken = b"\xff\xe1" + struct.pack(">H", 2 + 6 + 9) + b"Exif\0\0" + b"MM\0*\xff\xff\xff\xff\0"
    assert opened(data[:2] + broken + data[2:]).width == 96


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "I;16"])
def test_png_of_every_kind_is_accepted(mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(scene()[..., 0].astype(np.uint16) * 257)
    elif mode == "P":
        image = Image.fromarray(scene()).quantize(8)
    else:
        image = Image.fromarray(scene()).convert(mode)
    picture = opened(encoded(image, "PNG"))
    assert picture.rgb.shape == (64, 96, 3)
    grey = np.asarray(Image.fromarray(scene()).convert("L")).astype(int)
    expected = scene()[..., 0].astype(int) if mode == "I;16" else grey
    shown = picture.rgb[..., 0] if mode == "I;16" else np.asarray(Image.fromarray(picture.rgb).convert("L"))
    if mode != "1":  # dithered
        assert np.abs(shown.astype(int) - expected).mean() < 3


def test_sixteen_bits_of_colour_and_alpha_are_accepted() -> None:
    deep = (np.dstack([scene()[..., ::-1], np.full((64, 96), 255, np.uint8)]).astype(np.uint16)) * 257
    for image in (deep, deep[..., :3]):
        data = cv2.imencode(".png", image)[1].tobytes()
        assert np.abs(opened(data).rgb.astype(int) - scene()).max() <= 1


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparent_pixels_lie_on_white(form: str) -> None:
    alpha = np.zeros((64, 96, 1), np.uint8)
    alpha[:, 48:] = 255
    alpha[:, :24] = 128
    picture = opened(
        encoded(np.concatenate([scene(), alpha], 2), form, **({"exact": True} if form == "WEBP" else {}))
    )
    np.testing.assert_array_equal(picture.rgb[:, 48:], scene()[:, 48:])
    assert (picture.rgb[:, 24:48] == 255).all()
    half = 255 - (255 - scene()[:, :24].astype(int)) * 128 / 255
    assert np.abs(picture.rgb[:, :24] - half).max() <= 2


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.fromarray(scene()).quantize(8)
    transparent = image.getpixel((0, 0))
    assert (opened(encoded(image, "PNG", transparency=transparent)).rgb[0, 0] == 255).all()


def test_a_cmyk_jpeg_has_its_colours() -> None:
    picture = opened(encoded(Image.fromarray(scene()).convert("CMYK")))
    assert np.abs(picture.rgb.astype(int) - scene()).mean() < 4


@pytest.mark.parametrize(
    "how", [{"progressive": True}, {"subsampling": 2, "quality": 60}, {"optimize": True}]
)
def test_jpeg_of_every_common_coding_is_accepted(how: dict[str, Any]) -> None:
    assert opened(encoded(scene(), **how)).width == 96
    assert opened(encoded(Image.fromarray(scene()).convert("L"), **how)).rgb.shape == (64, 96, 3)


def test_a_lossy_webp_is_accepted() -> None:
    assert opened(encoded(scene(), "WEBP", lossless=False)).rgb.shape == (64, 96, 3)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(form: str) -> None:
    second = Image.fromarray(np.zeros_like(scene()))
    picture = opened(encoded(scene(), form, save_all=True, append_images=[second]))
    np.testing.assert_array_equal(picture.rgb, scene())


@pytest.mark.parametrize("size", [(8, 8), (8, 640), (640, 8), (40_000, 500)])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_small_and_thin_pictures_are_pictures(form: str, size: tuple[int, int]) -> None:
    picture = opened(encoded(np.zeros((size[1], size[0], 3), np.uint8), form))
    assert (picture.width, picture.height) == size


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((1, 1), "1 × 1 pixels: no face fits"),
        ((1, 3000), "no face fits"),
        ((40_000, 7), "no face fits"),
        ((648, 8), "only 7 are left of the other"),
        ((90, 12_000), "only 4 are left of the other.*cut the picture into pieces"),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_in_which_no_face_could_be_found_are_refused(
    form: str, size: tuple[int, int], told: str
) -> None:
    if form == "WEBP" and max(size) > 16_383:
        form = "PNG"  # beyond what WebP can hold
    data = encoded(np.zeros((size[1], size[0], 3), np.uint8), form)
    with pytest.raises(InvalidImage, match=told):
        inspect(data, Limits())


def test_a_jpeg_of_two_channels_is_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidImage, match="2 channels: save it in grey, colour or CMYK"):
        inspect(jpeg_of_two_channels(), Limits())


def test_no_bytes_are_a_missing_picture() -> None:
    with pytest.raises(MissingImage):
        inspect(b"", Limits())


OTHERS = [
    b"hello", b"GIF89a" + bytes(50), b"%PDF-1.7\n", b"BM" + bytes(60), b"\xff\xd8", b"\0" * 9, b"<svg/>", b"\x89PNG",
    b"RIFF\x10\0\0\0WAVEfmt ", b"II*\0" + bytes(40), b"\0\0\0 ftypheic" + bytes(40),
]  # fmt: skip


@pytest.mark.parametrize("data", OTHERS)
def test_other_formats_are_refused_by_their_first_bytes(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        inspect(data, Limits())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("how", [{}, {"progressive": True}])
def test_a_picture_cut_short_anywhere_is_refused(form: str, how: dict[str, Any]) -> None:
    noisy = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    data = encoded(noisy, form, **(how if form == "JPEG" else {}))
    for kept in (*range(13, 200, 7), *np.linspace(200, len(data) - 1, 25).astype(int)):
        with pytest.raises((InvalidImage, UnsupportedMedia)):
            opened(data[:kept])


@pytest.mark.parametrize("form", FORMATS)
def test_what_follows_the_picture_is_ignored(form: str) -> None:
    assert opened(encoded(scene(), form) + b"trailer" * 10).width == 96


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_a_picture_or_a_reason(form: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(scene(32, 32), form))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FacetError):
        assert opened(bytes(whole), Limits(max_pixels=1_000_000)).rgb.ndim == 3


@pytest.mark.parametrize("claim", [png_claiming, jpeg_claiming])
def test_a_picture_that_lies_about_its_size_is_refused(claim: Any) -> None:
    data = encoded(scene(), "PNG" if claim is png_claiming else "JPEG")
    for size in ((96, 4000), (4000, 64)):
        with pytest.raises(InvalidImage):
            opened(claim(*size, data))
    with pytest.raises(InvalidImage):
        opened(claim(0, 64, data))


@pytest.mark.parametrize("claim", [png_claiming, jpeg_claiming])
def test_a_huge_header_is_refused_before_anything_is_decoded(claim: Any) -> None:
    data = claim(20_000, 20_000, encoded(scene(), "PNG" if claim is png_claiming else "JPEG"))
    started = time.process_time()
    with pytest.raises(TooLarge) as refused:
        inspect(data, Limits())
    assert time.process_time() - started < 0.05
    assert refused.value.details == {"limit": 50_000_000}


def test_a_huge_webp_is_refused_by_its_header() -> None:
    extended = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB3x", 10, 0)
    side = (16_383).to_bytes(3, "little")
    with pytest.raises(TooLarge):
        inspect(extended + side + side, Limits())


def test_the_limits_are_inclusive() -> None:
    data = encoded(scene(), "PNG")
    assert inspect(data, Limits(len(data), 96 * 64)).width == 96
    with pytest.raises(TooLarge):
        inspect(data, Limits(len(data) - 1, 96 * 64))
    with pytest.raises(TooLarge):
        inspect(data, Limits(len(data), 96 * 64 - 1))


def test_a_jpeg_of_a_thousand_scans_is_refused_before_it_is_decoded() -> None:
    data = encoded(scene(), progressive=True)
    start = data.rindex(b"\xff\xda")
    with pytest.raises(InvalidImage, match="scans"):
        inspect(data[:-2] + data[start:-2] * 1000 + b"\xff\xd9", Limits())


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 1_000_000, b"\xff\xd8" + b"\xff" * 1_000_000,
        encoded(scene(), "PNG")[:33] + chunk(b"aaAa", b"") * 300_000,
        b"RIFF" + struct.pack("<I", 8_000_022) + b"WEBPVP8X" + struct.pack("<IB9x", 10, 8) + b"aaaa\0\0\0\0" * 10**6,
    ],
)  # fmt: skip
def test_a_header_of_endless_segments_costs_little(data: bytes) -> None:
    started = time.process_time()
    with pytest.raises(InvalidImage):
        read_header(data)
    assert time.process_time() - started < 0.5


def test_equal_pixels_have_one_digest_whatever_the_file() -> None:
    digests = {opened(encoded(scene(), form)).digest() for form in ("PNG", "WEBP")}
    turned = Image.Exif()
    turned[0x0112] = 3
    digests.add(opened(encoded(np.ascontiguousarray(scene()[::-1, ::-1]), "PNG", exif=turned)).digest())
    assert len(digests) == 1
    changed = scene()
    changed[0, 0, 0] ^= 1
    assert opened(encoded(changed, "PNG")).digest() not in digests
    flat = Picture(np.zeros((2, 3, 3), np.uint8)), Picture(np.zeros((3, 2, 3), np.uint8))
    assert flat[0].digest() != flat[1].digest()


def test_bytes_of_padding_in_a_jpeg_are_forgiven() -> None:
    data = encoded(scene())
    assert opened(data[:-2] + b"\0\0\0" + data[-2:]).width == 96
    at = data.index(b"\xff\xdb", 4)
    padded = decode(data[:at] + b"\xff\xff\xff" + data[at:], inspect(data, Limits()))
    np.testing.assert_array_equal(padded.rgb, opened(data).rgb)


def test_a_jpeg_cut_short_but_closed_is_refused() -> None:
    noisy = np.random.default_rng(1).integers(0, 255, (64, 96, 3), np.uint8)
    data = encoded(noisy)
    with pytest.raises(InvalidImage):
        opened(data[: len(data) // 2] + b"\xff\xd9")
