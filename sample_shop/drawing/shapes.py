"""Outlines in unit coordinates (x to the right, y down, the picture is the square from 0 to 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Point = tuple[float, float]
Outline = np.ndarray  # float64, shape [K, 2]
Paint = Literal["main", "accent", "inside", "metal", "wood", "dark", "pale", "fold"]
Relief = Literal["flat", "soft", "round"]


@dataclass(frozen=True)
class Part:
    """One painted piece of a product; later parts lie over earlier ones.

    relief: how the piece catches the light; "round" is a cylinder with an upright axis.
    clip: keep only what lies over the "main" pieces drawn so far.
    """

    outlines: tuple[Outline, ...]
    paint: Paint
    relief: Relief = "soft"
    clip: bool = False


def polygon(*points: Point) -> Outline:
    """Straight-edged outline."""
    return np.array(points, dtype=np.float64)


def curve(*points: Point, closed: bool = True, steps: int = 8) -> Outline:
    """Catmull-Rom spline through the points."""
    knots = np.array(points, dtype=np.float64)
    if closed:
        before, after, after_next = np.roll(knots, 1, 0), np.roll(knots, -1, 0), np.roll(knots, -2, 0)
    else:
        padded = np.vstack([knots[:1], knots, knots[-1:]])
        before, knots, after, after_next = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (p[:, None, :] for p in (before, knots, after, after_next))
    path = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    outline = path.reshape(-1, 2)
    return outline if closed else np.vstack([outline, np.array(points[-1:], dtype=np.float64)])


def ellipse(centre: Point, radius_x: float, radius_y: float, start: float = 0.0, end: float = 360.0) -> Outline:
    """Ellipse, or the slice of one between two angles in degrees (0 is right, 90 is down)."""
    angle = np.radians(np.linspace(start, end, 40))
    return np.stack([centre[0] + radius_x * np.cos(angle), centre[1] + radius_y * np.sin(angle)], axis=1)


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Outline:
    """Rectangle with round corners."""
    corners = [
        ellipse((right - radius, bottom - radius), radius, radius, 0, 90),
        ellipse((left + radius, bottom - radius), radius, radius, 90, 180),
        ellipse((left + radius, top + radius), radius, radius, 180, 270),
        ellipse((right - radius, top + radius), radius, radius, 270, 360),
    ]
    return np.vstack(corners)


def stroke(path: Outline, width: float, closed: bool = False) -> tuple[Outline, ...]:
    """A band of the given width along a path, as quads and round joints."""
    ends = np.vstack([path, path[:1]]) if closed else path
    direction = np.diff(ends, axis=0)
    length = np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    normal = direction[:, ::-1] * np.array([-1.0, 1.0]) / length * (width / 2)
    quads = [np.stack([a + n, b + n, b - n, a - n]) for a, b, n in zip(ends[:-1], ends[1:], normal, strict=True)]
    joints = [ellipse((float(x), float(y)), width / 2, width / 2)[::4] for x, y in ends]
    return (*quads, *joints)


def mirrored(outlines: Sequence[Outline]) -> tuple[Outline, ...]:
    """The outlines and their mirror images left to right."""
    flip = np.array([-1.0, 1.0])
    return (*outlines, *(outline * flip + np.array([1.0, 0.0]) for outline in outlines))
