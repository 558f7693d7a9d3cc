"""Outlines of things for the house."""

from sample_shop.drawing.shapes import Part, curve, ellipse, polygon, rounded, stroke


def mug() -> list[Part]:
    """Straight mug with a large handle and a coloured inside."""
    body = polygon((0.13, 0.22), (0.69, 0.22), (0.67, 0.83), (0.60, 0.875), (0.41, 0.89), (0.22, 0.875), (0.15, 0.83))
    handle = stroke(curve((0.67, 0.36), (0.82, 0.33), (0.91, 0.46), (0.85, 0.64), (0.66, 0.70), closed=False), 0.075)
    return [
        Part(handle, "accent"),
        Part((body,), "main", "round"),
        Part(
            (
                polygon(
                    (0.148, 0.78), (0.672, 0.78), (0.67, 0.83), (0.60, 0.875), (0.41, 0.89), (0.22, 0.875), (0.15, 0.83)
                ),
            ),
            "accent",
            "round",
        ),
        Part((ellipse((0.41, 0.22), 0.285, 0.075),), "pale"),
        Part((ellipse((0.41, 0.225), 0.255, 0.058),), "accent", "flat"),
    ]


def teapot() -> list[Part]:
    """Round pot, spout to the right, handle to the left."""
    spout = curve((0.68, 0.66), (0.76, 0.52), (0.86, 0.40), (0.97, 0.33), (0.95, 0.42), (0.90, 0.52), (0.80, 0.74))
    handle = stroke(curve((0.26, 0.42), (0.10, 0.38), (0.05, 0.54), (0.11, 0.70), (0.27, 0.73), closed=False), 0.06)
    return [
        Part(handle, "accent"),
        Part((spout,), "accent"),
        Part((ellipse((0.50, 0.60), 0.325, 0.285),), "main", "round"),
        Part((ellipse((0.50, 0.865), 0.17, 0.03),), "accent", "round"),
        Part((curve((0.33, 0.36), (0.40, 0.27), (0.50, 0.25), (0.60, 0.27), (0.67, 0.36), (0.50, 0.40)),), "accent"),
        Part((ellipse((0.50, 0.215), 0.045, 0.045),), "accent"),
    ]


def vase() -> list[Part]:
    """Belly, neck and lip; three dry stems stand in it."""
    belly = curve((0.38, 0.30), (0.36, 0.40), (0.24, 0.55), (0.24, 0.74), (0.36, 0.90), (0.64, 0.90), (0.76, 0.74),
                  (0.76, 0.55), (0.64, 0.40), (0.62, 0.30))  # fmt: skip
    stems = [
        *stroke(curve((0.48, 0.32), (0.44, 0.16), (0.36, 0.05), closed=False), 0.012),
        *stroke(curve((0.50, 0.32), (0.52, 0.16), (0.51, 0.04), closed=False), 0.012),
        *stroke(curve((0.52, 0.32), (0.60, 0.16), (0.68, 0.08), closed=False), 0.012),
    ]
    return [
        Part(tuple(stems), "wood", "flat"),
        Part((belly,), "main", "round"),
        Part((polygon((0.375, 0.28), (0.625, 0.28), (0.64, 0.40), (0.36, 0.40)),), "accent", "round"),
        Part(
            (curve((0.34, 0.245), (0.50, 0.225), (0.66, 0.245), (0.66, 0.29), (0.50, 0.315), (0.34, 0.29)),),
            "accent",
            "round",
        ),
        Part((polygon((0.345, 0.86), (0.655, 0.86), (0.635, 0.93), (0.365, 0.93)),), "accent", "round"),
    ]


def cushion() -> list[Part]:
    """Square and plump, with broad piping and tassels."""
    body = curve((0.09, 0.10), (0.30, 0.125), (0.50, 0.13), (0.70, 0.125), (0.91, 0.10), (0.885, 0.30), (0.88, 0.50),
                 (0.885, 0.70), (0.91, 0.90), (0.70, 0.875), (0.50, 0.87), (0.30, 0.875), (0.09, 0.90), (0.115, 0.70),
                 (0.12, 0.50), (0.115, 0.30))  # fmt: skip
    corners = [(0.09, 0.10), (0.91, 0.10), (0.09, 0.90), (0.91, 0.90)]
    return [
        Part((body,), "main"),
        Part(stroke(body, 0.05, closed=True), "accent"),
        Part(tuple(ellipse(corner, 0.04, 0.04) for corner in corners), "accent"),
        Part(stroke(curve((0.30, 0.36), (0.44, 0.48), (0.42, 0.62), closed=False), 0.02), "fold", clip=True),
    ]


def lamp() -> list[Part]:
    """Table lamp: a large shade on a turned foot."""
    shade = polygon((0.32, 0.08), (0.68, 0.08), (0.88, 0.56), (0.70, 0.585), (0.50, 0.595), (0.30, 0.585), (0.12, 0.56))
    rim = polygon((0.14, 0.51), (0.12, 0.56), (0.30, 0.585), (0.50, 0.595), (0.70, 0.585), (0.88, 0.56), (0.86, 0.51),
                  (0.70, 0.53), (0.50, 0.54), (0.30, 0.53))  # fmt: skip
    foot = curve((0.46, 0.58), (0.45, 0.66), (0.39, 0.73), (0.41, 0.81), (0.33, 0.88), (0.50, 0.90), (0.67, 0.88),
                 (0.59, 0.81), (0.61, 0.73), (0.55, 0.66), (0.54, 0.58))  # fmt: skip
    return [
        Part((foot,), "accent", "round"),
        Part((rounded(0.27, 0.87, 0.73, 0.935, 0.03),), "accent", "round"),
        Part((shade,), "main", "round"),
        Part((rim,), "accent", "round"),
        Part((polygon((0.32, 0.07), (0.68, 0.07), (0.70, 0.12), (0.30, 0.12)),), "accent", "round"),
    ]
