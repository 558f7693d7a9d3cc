"""Outlines of bags, umbrellas and instruments."""

import numpy as np

from sample_shop.drawing.shapes import Part, curve, ellipse, mirrored, polygon, rounded, stroke


def backpack() -> list[Part]:
    """Round-topped pack with a front pocket, side straps and a grab handle."""
    grab = stroke(curve((0.42, 0.11), (0.44, 0.045), (0.56, 0.045), (0.58, 0.11), closed=False), 0.03)
    strap = stroke(curve((0.24, 0.30), (0.11, 0.45), (0.12, 0.72), (0.22, 0.84), closed=False), 0.055)
    zip_line = stroke(curve((0.27, 0.40), (0.36, 0.22), (0.50, 0.18), (0.64, 0.22), (0.73, 0.40), closed=False), 0.014)
    body = curve((0.22, 0.90), (0.20, 0.55), (0.24, 0.25), (0.38, 0.11), (0.50, 0.09), (0.62, 0.11), (0.76, 0.25),
                 (0.80, 0.55), (0.78, 0.90), (0.50, 0.925))  # fmt: skip
    return [
        Part(grab, "accent"),
        Part(mirrored(strap), "accent"),
        Part((body,), "main"),
        Part(zip_line, "dark", "flat"),
        Part((rounded(0.28, 0.58, 0.72, 0.86, 0.05),), "accent"),
        Part((rounded(0.28, 0.55, 0.72, 0.64, 0.03),), "accent"),
        Part((rounded(0.47, 0.60, 0.53, 0.70, 0.015),), "metal", "flat"),
    ]


def tote_bag() -> list[Part]:
    """Square shopper with long handles and a coloured bottom."""
    handle = stroke(curve((0.31, 0.40), (0.33, 0.16), (0.42, 0.06), (0.58, 0.06), (0.67, 0.16), (0.69, 0.40),
                          closed=False), 0.045)  # fmt: skip
    body = polygon((0.15, 0.33), (0.85, 0.33), (0.89, 0.92), (0.11, 0.92))
    return [
        Part(handle, "accent"),
        Part((body,), "main"),
        Part((polygon((0.15, 0.33), (0.85, 0.33), (0.854, 0.39), (0.146, 0.39)),), "accent", "flat"),
        Part((polygon((0.12, 0.79), (0.88, 0.79), (0.89, 0.92), (0.11, 0.92)),), "accent"),
        Part(mirrored(stroke(polygon((0.31, 0.33), (0.31, 0.43)), 0.045)), "accent", "flat"),
        Part(stroke(curve((0.24, 0.45), (0.27, 0.60), (0.23, 0.75), closed=False), 0.018), "fold", clip=True),
    ]


def umbrella() -> list[Part]:
    """Open umbrella: a scalloped canopy, its shaft and crook."""
    scallops = [ellipse((0.5 + 0.44 * x, 0.56), 0.11, 0.045, 180, 360)[::-1] for x in (0.75, 0.25, -0.25, -0.75)]
    dome = ellipse((0.50, 0.56), 0.44, 0.44, 180, 360)
    canopy = np.vstack([dome, *scallops])
    border = np.vstack([ellipse((0.50, 0.56), 0.44, 0.44, 180, 198), ellipse((0.50, 0.50), 0.40, 0.06, 180, 360),
                        ellipse((0.50, 0.56), 0.44, 0.44, 342, 360), *scallops])  # fmt: skip
    crook = curve((0.50, 0.50), (0.50, 0.70), (0.50, 0.84), (0.545, 0.93), (0.62, 0.93), (0.655, 0.85), closed=False)
    ribs = [
        *stroke(curve((0.50, 0.13), (0.40, 0.30), (0.39, 0.54), closed=False), 0.012),
        *stroke(curve((0.50, 0.13), (0.24, 0.28), (0.17, 0.54), closed=False), 0.012),
    ]
    return [
        Part(stroke(polygon((0.50, 0.12), (0.50, 0.80)), 0.022), "metal", "flat"),
        Part(stroke(crook[8:], 0.05), "accent"),
        Part(stroke(polygon((0.50, 0.06), (0.50, 0.13)), 0.03), "accent"),
        Part((canopy,), "main"),
        Part((border,), "accent"),
        Part(mirrored(ribs), "fold", clip=True),
    ]


def guitar() -> list[Part]:
    """Acoustic guitar, upright, with a broad body and an edge binding."""
    body = curve((0.50, 0.34), (0.66, 0.335), (0.735, 0.43), (0.70, 0.53), (0.80, 0.64), (0.83, 0.79), (0.71, 0.92),
                 (0.50, 0.945), (0.29, 0.92), (0.17, 0.79), (0.20, 0.64), (0.30, 0.53), (0.265, 0.43),
                 (0.34, 0.335))  # fmt: skip
    guard = curve((0.55, 0.53), (0.66, 0.55), (0.70, 0.66), (0.63, 0.74), (0.56, 0.66))
    strings = [quad for x in (0.482, 0.50, 0.518) for quad in stroke(polygon((x, 0.10), (x, 0.79)), 0.004)]
    return [
        Part((polygon((0.465, 0.14), (0.535, 0.14), (0.54, 0.55), (0.46, 0.55)),), "wood"),
        Part((body,), "main"),
        Part(stroke(body, 0.04, closed=True), "accent"),
        Part((guard,), "accent", "flat"),
        Part((ellipse((0.50, 0.565), 0.10, 0.10),), "accent", "flat"),
        Part((ellipse((0.50, 0.565), 0.07, 0.07),), "dark", "flat"),
        Part((polygon((0.465, 0.14), (0.535, 0.14), (0.54, 0.50), (0.46, 0.50)),), "wood"),
        Part((rounded(0.43, 0.035, 0.57, 0.15, 0.02),), "accent"),
        Part((rounded(0.39, 0.77, 0.61, 0.81, 0.015),), "accent"),
        Part(tuple(strings), "metal", "flat"),
    ]


def drum() -> list[Part]:
    """Side drum with hoops and tension rods."""
    shell = polygon((0.09, 0.32), (0.91, 0.32), (0.91, 0.74), (0.70, 0.84), (0.50, 0.865), (0.30, 0.84), (0.09, 0.74))
    lower = stroke(ellipse((0.50, 0.73), 0.41, 0.125, 0, 180), 0.075)
    upper = stroke(ellipse((0.50, 0.31), 0.41, 0.125), 0.06)
    rods = [quad for x, y in ((0.22, 0.43), (0.50, 0.47), (0.78, 0.43))
            for quad in stroke(polygon((x, y), (x, y + 0.34)), 0.018)]  # fmt: skip
    return [
        Part((shell,), "main", "round"),
        Part(lower, "accent", "round"),
        Part(tuple(rods), "metal", "flat"),
        Part((ellipse((0.50, 0.31), 0.41, 0.125),), "pale", "flat"),
        Part(upper, "accent", "round"),
    ]
