import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from storage.picture_checks import PictureError, PictureLimits, check_picture, decode_picture

LIMITS = PictureLimits()
PIXELS = LIMITS.max_pixels


def encoded(picture: Image.Image, picture_format: str, **settings: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, picture_format, **settings)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a decompression bomb costs its sender nothing."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + body
    data = zlib.compress(b"\x00" * 100)
    parts = [struct.pack(">I", len(body)) + chunk + struct.pack(">I", zlib.crc32(chunk))]
    parts.append(struct.pack(">I", len(data)) + b"IDAT" + data + struct.pack(">I", zlib.crc32(b"IDAT" + data)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def kind_of(content: bytes, limits: PictureLimits = LIMITS) -> str:
    with pytest.raises(PictureError) as error:
        check_picture(content, limits)
    return error.value.kind


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_formats(picture_format):
    content = encoded(noise(40, 30), picture_format)
    check_picture(content, LIMITS)
    picture = decode_picture(content, PIXELS)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.filterwarnings("ignore")
def test_truncated(picture_format):
    content = encoded(noise(64, 64), picture_format)
    for length in (20, 100, len(content) * 2 // 3):  # 20, 100: within the header
        assert kind_of(content[:length]) == "truncated"


def test_no_picture():
    assert kind_of(b"") == "empty"
    assert kind_of(b"This is a text named .jpg") == "not_a_picture"
    assert kind_of(b"BMW 320i, well kept") == "not_a_picture"  # a BMP begins with BM
    assert kind_of(b"%!PS-Adobe-3.0 EPSF-3.0\n") == "not_a_picture"  # Pillow would start Ghostscript for it


@pytest.mark.parametrize("width, height", [(8001, 8001), (30_000, 30_000), (2**31 - 1, 1)])
def test_bombs_are_seen_in_the_header(width, height):
    assert kind_of(png_header(width, height)) == "too_many_pixels"
    with pytest.raises(PictureError, match="too_many_pixels"):
        decode_picture(png_header(width, height), PIXELS)


def test_sides():
    assert kind_of(encoded(noise(1, 4000), "PNG")) == "too_small"
    assert kind_of(encoded(noise(7, 7), "PNG")) == "too_small"
    assert kind_of(encoded(noise(8, 161), "PNG")) == "bad_aspect"
    check_picture(encoded(noise(8, 160), "PNG"), LIMITS)


def test_too_many_bytes():
    assert kind_of(encoded(noise(64, 64), "PNG"), PictureLimits(max_bytes=1000)) == "too_many_bytes"


def test_what_is_odd_but_readable_passes():
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = [
        encoded(Image.new("CMYK", (20, 20)), "JPEG"),
        encoded(Image.fromarray(np.zeros((20, 20), dtype=np.uint16)), "PNG"),
        encoded(Image.new("P", (20, 20)), "PNG", transparency=0),
        encoded(Image.new("1", (20, 20)), "PNG"),
        encoded(noise(20, 20), "GIF", save_all=True, append_images=[noise(20, 20)]),
        encoded(noise(20, 20), "JPEG", exif=exif, progressive=True),
    ]
    for content in pictures:
        check_picture(content, LIMITS)
    check_picture(encoded(noise(3, 5), "JPEG"), PictureLimits(min_side=1))


def test_cmyk_becomes_rgb():
    content = encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")  # no cyan, all magenta and yellow: red
    red, green, blue = decode_picture(content, PIXELS).getpixel((5, 5))
    assert red > 200 > 60 > max(green, blue)


def test_16_bit_keeps_its_grays():
    values = np.full((20, 20), 32768, dtype=np.uint16)  # half of 65535: half of 255 is 127
    for picture_format in ("PNG", "TIFF"):
        picture = decode_picture(encoded(Image.fromarray(values), picture_format), PIXELS)
        assert picture.mode == "RGB"
        assert picture.getpixel((3, 3)) == (127, 127, 127)


def test_float_gray():
    half = Image.fromarray(np.full((20, 20), 0.5, dtype=np.float32))
    assert decode_picture(encoded(half, "TIFF"), PIXELS).getpixel((3, 3)) == (127, 127, 127)


@pytest.mark.parametrize(
    "picture, picture_format",
    [
        (Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "PNG"),
        (Image.new("LA", (20, 20), (0, 0)), "PNG"),
        (Image.new("RGBA", (20, 20), (255, 0, 0, 0)), "WEBP"),
    ],
)
def test_what_is_transparent_is_white(picture, picture_format):
    assert decode_picture(encoded(picture, picture_format), PIXELS).getpixel((3, 3)) == (255, 255, 255)


def test_palette_with_a_transparent_color():
    picture = Image.new("P", (20, 20), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    picture.paste(1, (0, 0, 10, 20))
    decoded = decode_picture(encoded(picture, "PNG", transparency=0), PIXELS)
    assert decoded.getpixel((3, 3)) == (0, 0, 255)
    assert decoded.getpixel((15, 3)) == (255, 255, 255)


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    check_picture(content, LIMITS)
    assert decode_picture(content, PIXELS).getpixel((3, 3)) == (255, 0, 0)


def test_exif_rotation_is_applied():
    picture = Image.new("RGB", (40, 20), "red")
    picture.paste("blue", (0, 0, 20, 20))  # left half blue
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright: the left half goes to the top
    decoded = decode_picture(encoded(picture, "JPEG", exif=exif, quality=95), PIXELS)
    assert decoded.size == (20, 40)
    red, _, blue = decoded.getpixel((10, 5))
    assert blue > 200 > red


def test_damaged_exif_does_not_cost_the_picture():
    content = encoded(noise(40, 20), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")
    check_picture(content, LIMITS)
    assert decode_picture(content, PIXELS).size == (40, 20)


def test_sides_are_bounded_on_decoding():
    for picture_format in ("JPEG", "PNG"):
        assert decode_picture(encoded(noise(400, 100), picture_format), PIXELS, max_side=64).size == (64, 16)
        assert decode_picture(encoded(noise(40, 10), picture_format), PIXELS, max_side=64).size == (40, 10)


@pytest.mark.parametrize("picture_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_is_a_picture_error(picture_format):
    content = encoded(noise(24, 16), picture_format)
    chooser = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        for place in chooser.integers(0, len(content), size=chooser.integers(1, 6)):
            damaged[place] = chooser.integers(256)
        try:
            check_picture(bytes(damaged), LIMITS)
            decode_picture(bytes(damaged), PIXELS, 16)
        except PictureError as error:
            assert error.kind
