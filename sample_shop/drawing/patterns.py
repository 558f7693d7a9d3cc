"""Woven, printed and painted patterns, as how much of the accent colour lies on each pixel."""

import numpy as np

# One repeat of a pattern, as a share of the picture's width.
SMALLEST_REPEAT, LARGEST_REPEAT = 0.095, 0.135


def pattern_coverage(pattern: str, size: int, angle: float, rng: np.random.Generator) -> np.ndarray:
    """Accent coverage in [0, 1], float32, shape [size, size].

    angle: how far the product is turned, in degrees; the pattern turns with it.
    """
    repeat = size * rng.uniform(SMALLEST_REPEAT, LARGEST_REPEAT)
    u, v = _turned_grid(size, angle, repeat, rng)
    match pattern:
        case "plain":
            return np.zeros((size, size), dtype=np.float32)
        case "striped":
            return _soft_step(_wave(u if rng.random() < 0.35 else v) - 0.03, repeat)
        case "dotted":
            shift = 0.5 * (np.floor(v) % 2)
            distance = np.hypot(u + shift - np.floor(u + shift) - 0.5, v - np.floor(v) - 0.5)
            return _soft_step(0.31 - distance, repeat / 2)
        case "checked":
            return 0.5 * _soft_step(_wave(u) - 0.02, repeat) + 0.5 * _soft_step(_wave(v) - 0.02, repeat)
        case "floral":
            return _flowers(u / 1.45, v / 1.45, repeat * 1.45)
        case "zigzag":
            ridge = np.abs(u / 1.2 - np.floor(u / 1.2) - 0.5) * 1.5
            return _soft_step(_wave(v + ridge) - 0.03, repeat)
        case _:
            raise ValueError(f"unknown pattern {pattern!r}")


def _turned_grid(size: int, angle: float, repeat: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates in repeats of the pattern, turned by the angle and shifted at random."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / np.float32(repeat)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    shift = rng.uniform(0, 1, 2)
    return (
        (cos * x + sin * y + shift[0]).astype(np.float32),
        (-sin * x + cos * y + shift[1]).astype(np.float32),
    )


def _wave(t: np.ndarray) -> np.ndarray:
    """Triangle wave of period 1 between -0.25 and 0.25."""
    return np.abs(t - np.floor(t) - 0.5) - 0.25


def _soft_step(signed: np.ndarray, pixels: float) -> np.ndarray:
    """1 where `signed` (in repeats) is positive, 0 where negative, with an edge about a pixel wide."""
    return np.clip(signed * pixels + 0.5, 0, 1).astype(np.float32)


def _flowers(u: np.ndarray, v: np.ndarray, repeat: float) -> np.ndarray:
    """Five-petalled flowers with an open centre, in offset rows."""
    shifted = u + 0.5 * (np.floor(v) % 2)
    du, dv = shifted - np.floor(shifted) - 0.5, v - np.floor(v) - 0.5
    radius, turn = np.hypot(du, dv), np.arctan2(dv, du)
    petals = _soft_step(0.30 + 0.15 * np.cos(5 * turn) - radius, repeat)
    return petals * (1 - _soft_step(0.09 - radius, repeat))
