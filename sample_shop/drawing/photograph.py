"""Puts a drawn product before a studio background, lit and with a soft shadow."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sample_shop.attributes import COLOURS, Look
from sample_shop.drawing import clothes, gear, household
from sample_shop.drawing.patterns import pattern_coverage
from sample_shop.drawing.shapes import Outline, Part, Relief

CANVAS_PX = 256
_OVERSAMPLING = 2
_BACKDROPS = (
    (232, 230, 226), (222, 228, 233), (238, 231, 220), (226, 233, 224), (236, 226, 228), (214, 214, 216),
    (226, 222, 234), (200, 204, 208), (240, 238, 234),
)  # fmt: skip
_FIXED_PAINTS = {"metal": (186, 190, 196), "wood": (168, 124, 80), "dark": (46, 40, 38), "pale": (240, 238, 230)}
_DRAWERS: dict[str, Callable[[], list[Part]]] = {
    "t-shirt": clothes.t_shirt,
    "hoodie": clothes.hoodie,
    "dress": clothes.dress,
    "skirt": clothes.skirt,
    "cap": clothes.cap,
    "sneaker": clothes.sneaker,
    "backpack": gear.backpack,
    "tote bag": gear.tote_bag,
    "mug": household.mug,
    "teapot": household.teapot,
    "vase": household.vase,
    "cushion": household.cushion,
    "lamp": household.lamp,
    "umbrella": gear.umbrella,
    "guitar": gear.guitar,
    "drum": gear.drum,
}


@dataclass(frozen=True)
class _Pose:
    """How the product stands: degrees turned, scale, shift as a share of the width, mirrored or not."""

    angle: float
    scale: float
    shift: tuple[float, float]
    mirrored: bool

    def place(self, outline: Outline) -> Outline:
        centred = (outline - 0.5) * self.scale
        if self.mirrored:
            centred = centred * np.array([-1.0, 1.0])
        cos, sin = np.cos(np.radians(self.angle)), np.sin(np.radians(self.angle))
        return centred @ np.array([[cos, sin], [-sin, cos]]) + 0.5 + np.array(self.shift)


def photograph(look: Look, rng: np.random.Generator, size: int = CANVAS_PX) -> Image.Image:
    """An RGB picture of a product, `size` pixels square; pose, light and background come from `rng`."""
    pose = _draw_pose(rng)
    main, accent = _draw_tint(look.main_colour, rng), _draw_tint(look.accent_colour, rng)
    coverage = pattern_coverage(look.pattern, CANVAS_PX, pose.angle, rng)[..., None]
    print_rgb = main * (1 - coverage) + accent * coverage
    parts = [(part, _mask(part, pose)) for part in _DRAWERS[look.kind]()]
    scene = _background(rng)
    scene = _cast_shadow(scene, [mask for part, mask in parts if part.paint != "fold"], rng)
    body = np.zeros((CANVAS_PX, CANVAS_PX), dtype=np.float32)
    for part, mask in parts:
        shape = mask * body if part.clip else mask
        if part.paint == "main":
            body = np.maximum(body, shape)
        scene = _paint(scene, part, shape, {"main": print_rgb, "accent": accent, "inside": main * 0.55})
    lit = scene * _light(rng) + rng.normal(0, 1.5, (CANVAS_PX, CANVAS_PX, 1)).astype(np.float32)
    picture = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))
    return picture if size == CANVAS_PX else picture.resize((size, size), Image.Resampling.LANCZOS)


def _draw_pose(rng: np.random.Generator) -> _Pose:
    return _Pose(
        angle=float(rng.normal(0, 3)),
        scale=float(rng.uniform(0.86, 1.0)),
        shift=(float(rng.uniform(-0.03, 0.03)), float(rng.uniform(-0.03, 0.02))),
        mirrored=bool(rng.random() < 0.5),
    )


def _draw_tint(colour: str, rng: np.random.Generator) -> np.ndarray:
    """The named colour as one batch of dye came out, float32 RGB."""
    rgb = np.array(COLOURS[colour], dtype=np.float32) * rng.uniform(0.93, 1.05) + rng.normal(0, 2.5, 3)
    return np.clip(rgb, 0, 255).astype(np.float32)


def _mask(part: Part, pose: _Pose) -> np.ndarray:
    """Coverage of a part in [0, 1], float32, shape [CANVAS_PX, CANVAS_PX]."""
    side = CANVAS_PX * _OVERSAMPLING
    image = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(image)
    for outline in part.outlines:
        pen.polygon([(float(x), float(y)) for x, y in pose.place(outline) * side], fill=255)
    if part.paint == "fold":
        image = image.filter(ImageFilter.BoxBlur(3))
    return np.asarray(image.reduce(_OVERSAMPLING), dtype=np.float32) / 255


def _blurred(mask: np.ndarray, radius: float) -> np.ndarray:
    """Soft version of a mask, worked out at a quarter of the size."""
    image = Image.fromarray((mask * 255).astype(np.uint8))
    small = image.reduce(4).filter(ImageFilter.GaussianBlur(radius / 4))
    return np.asarray(small.resize(image.size, Image.Resampling.BILINEAR), dtype=np.float32) / 255


def _background(rng: np.random.Generator) -> np.ndarray:
    """A pale wall, on a table or as an endless studio curve."""
    tint = np.array(_BACKDROPS[int(rng.integers(len(_BACKDROPS)))], dtype=np.float32)
    down = np.linspace(0, 1, CANVAS_PX, dtype=np.float32)[:, None, None]
    edge = rng.uniform(0.66, 0.80)
    sharpness = rng.choice([8.0, 60.0])
    floor = 1 / (1 + np.exp(-(down - edge) * sharpness))
    shade = (1.03 - 0.06 * down) * (1 - floor) + (0.90 + 0.10 * down) * floor
    return np.broadcast_to(tint * shade, (CANVAS_PX, CANVAS_PX, 3)).astype(np.float32)


def _cast_shadow(scene: np.ndarray, masks: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    outline = np.maximum.reduce(masks)
    offset = (int(CANVAS_PX * rng.uniform(0.015, 0.04)), int(CANVAS_PX * rng.uniform(-0.04, 0.04)))
    soft = _blurred(np.roll(outline, offset, axis=(0, 1)), CANVAS_PX * 0.035)
    return scene * (1 - rng.uniform(0.32, 0.5) * soft[..., None])


def _paint(scene: np.ndarray, part: Part, mask: np.ndarray, paints: dict[str, np.ndarray]) -> np.ndarray:
    """The scene with one part laid over it."""
    cover = mask[..., None]
    if part.paint == "fold":
        return scene * (1 - 0.22 * cover)
    rgb = paints[part.paint] if part.paint in paints else np.array(_FIXED_PAINTS[part.paint], dtype=np.float32)
    return scene * (1 - cover) + rgb * _relief(part.relief, mask)[..., None] * cover


def _relief(relief: Relief, mask: np.ndarray) -> np.ndarray:
    """How bright a part is at each pixel: its edges turn away from the light."""
    if relief == "flat":
        return np.ones_like(mask)
    inner = np.clip(_blurred(mask, CANVAS_PX * 0.02) * 2 - 1, 0, 1)
    bright = 0.80 + 0.20 * inner
    if relief == "round":
        columns = np.flatnonzero(mask.max(axis=0) > 0.5)
        across = np.linspace(-1, 1, max(len(columns), 2), dtype=np.float32)[: len(columns)]
        profile = np.ones(CANVAS_PX, dtype=np.float32)
        profile[columns] = 1.06 - 0.30 * np.abs(across + 0.25) ** 2
        bright = bright * profile
    return bright


def _light(rng: np.random.Generator) -> np.ndarray:
    """A lamp to one side: a gentle gradient across the whole picture."""
    towards = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-0.5 : 0.5 : CANVAS_PX * 1j, -0.5 : 0.5 : CANVAS_PX * 1j].astype(np.float32)
    gradient = np.cos(towards) * x + np.sin(towards) * y
    return (rng.uniform(0.96, 1.04) + rng.uniform(0.04, 0.16) * gradient)[..., None].astype(np.float32)
