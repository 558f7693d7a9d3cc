"""Pictures from their bytes: what is refused, and how the rest becomes RGB.

A picture is checked before anything decodes it in full: the header alone tells its size, so a decompression bomb costs
nothing. What is odd but readable (CMYK, 16-bit, palette, transparency, animation, EXIF rotation) is accepted and made
plain RGB on white when it is decoded.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

# Formats that shops deliver. Others stay closed: some of Pillow's readers start other programs (EPS: Ghostscript).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")

# What Pillow's readers raise on damaged files, as seen by flipping and cutting bytes of all the formats above.
_DAMAGE = (
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
)

MOST_PIXELS = 178_956_970  # of a picture that Pillow opens: twice its MAX_IMAGE_PIXELS

_WHITE = (255, 255, 255)


class PictureError(Exception):
    """A picture that can't be used. `kind` is one short word for counting; `detail` says what is wrong, for people."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type["PictureError"], tuple[str, str]]:
        return PictureError, (self.kind, self.detail)


class PictureLimits(BaseModel):
    """What a picture may be. The defaults pass every product photo and stop what would only cost memory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=32 * 2**20, ge=1, description="bytes of the encoded file")
    max_pixels: int = Field(
        default=64_000_000,
        ge=1,
        le=MOST_PIXELS,
        description="width × height, read from the header; decoded they take 3 bytes each; Pillow opens no more",
    )
    min_side: int = Field(default=8, ge=1, description="pixels of the shorter side; below it there is nothing to see")
    max_aspect: float = Field(
        default=20.0, ge=1, description="longer side / shorter side; encoders of vision models fail on slivers"
    )


def check_picture(content: bytes, limits: PictureLimits) -> None:
    """Return if the picture can be used.

    Raises PictureError of kind `empty`, `too_many_bytes`, `not_a_picture`, `too_many_pixels`, `too_small`,
    `bad_aspect` or `truncated`. JPEGs are decoded at an eighth of their size: all their bytes are read, few are kept.
    """
    picture = _opened(content, limits.max_bytes, limits.max_pixels)
    width, height = picture.size
    if min(width, height) < limits.min_side:
        raise PictureError("too_small", f"{width} × {height} pixels; the shorter side needs {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise PictureError("bad_aspect", f"{width} × {height} pixels; sides may differ {limits.max_aspect:g}-fold")
    picture.draft("RGB", (max(width // 8, 1), max(height // 8, 1)))
    _loaded(picture)


def decode_picture(content: bytes, max_pixels: int, max_side: int | None = None) -> Image.Image:
    """Return the picture (an animation's first frame) upright, in RGB on white, no side longer than max_side pixels.

    Raises PictureError as `check_picture` does, bounds on sides and aspect aside.
    """
    picture = _opened(content, len(content), max_pixels)
    if max_side is not None:
        picture.draft("RGB", (max_side, max_side))  # JPEG only: decodes at the nearest size that is not smaller
    upright = _upright(_loaded(picture))
    plain = _as_rgb(upright)
    if max_side is not None and max(plain.size) > max_side:
        plain.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return plain


def _opened(content: bytes, max_bytes: int, max_pixels: int) -> Image.Image:
    if not content:
        raise PictureError("empty", "the file has no bytes")
    if len(content) > max_bytes:
        raise PictureError("too_many_bytes", f"{len(content):,} bytes; at most {max_bytes:,} are read")
    try:
        picture = Image.open(io.BytesIO(content), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("too_many_pixels", f"{error}; at most {max_pixels:,} pixels are decoded") from error
    except _DAMAGE as error:
        if _begins_as_picture(content[:16]):
            said = f"the picture ends early or is damaged, in its header: begins with {content[:16]!r}"
            raise PictureError("truncated", said) from error
        raise PictureError("not_a_picture", f"no known picture format: begins with {content[:16]!r}") from error
    width, height = picture.size
    if width * height > max_pixels:
        raise PictureError("too_many_pixels", f"{width} × {height} pixels; at most {max_pixels:,} are decoded")
    return picture


def _begins_as_picture(prefix: bytes) -> bool:
    """Whether one of the formats knows the first 16 bytes as its own."""
    if prefix.startswith(b"BM"):
        return prefix[6:10] == bytes(4)  # reserved in a BMP's header; Pillow takes any text that begins with BM
    accepts = (Image.OPEN[name][1] for name in _FORMATS)
    return any(accept is not None and accept(prefix) is True for accept in accepts)


def _loaded(picture: Image.Image) -> Image.Image:
    try:
        picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("too_many_pixels", str(error)) from error
    except _DAMAGE as error:
        raise PictureError("truncated", f"the picture ends early or is damaged: {error}") from error
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except _DAMAGE:
        return picture  # unreadable EXIF says nothing about rotation; the picture itself is fine


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _gray_from_deep(picture).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        return _on_white(picture.convert("RGBA"))
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()


def _on_white(picture: Image.Image) -> Image.Image:
    ground = Image.new("RGB", picture.size, _WHITE)
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


def _gray_from_deep(picture: Image.Image) -> Image.Image:
    """Return 8-bit gray from 16-bit, 32-bit or float gray; Pillow's own conversion clips all above 255 to white."""
    values_HW = np.nan_to_num(np.asarray(picture, dtype=np.float32))
    top = float(values_HW.max(initial=0.0))
    if picture.mode == "F":
        full = 1.0 if top <= 1 else 255.0
    else:
        full = 65535.0 if picture.mode != "I" or top > 255 else 255.0
    return Image.fromarray(np.clip(values_HW * (255.0 / full), 0, 255).astype(np.uint8))
