"""Outlines of what is worn."""

from sample_shop.drawing.shapes import Part, curve, ellipse, mirrored, polygon, stroke


def t_shirt() -> list[Part]:
    """Short sleeves, round collar."""
    body = polygon(
        (0.38, 0.14), (0.27, 0.18), (0.05, 0.38), (0.17, 0.53), (0.27, 0.45), (0.26, 0.90),
        (0.74, 0.90), (0.73, 0.45), (0.83, 0.53), (0.95, 0.38), (0.73, 0.18), (0.62, 0.14), (0.50, 0.20),
    )  # fmt: skip
    cuff = polygon((0.05, 0.38), (0.17, 0.53), (0.215, 0.49), (0.10, 0.335))
    collar = stroke(curve((0.37, 0.14), (0.42, 0.21), (0.50, 0.235), (0.58, 0.21), (0.63, 0.14), closed=False), 0.045)
    folds = [curve((0.32, 0.50), (0.36, 0.65), (0.33, 0.82), closed=False)]
    return [
        Part((ellipse((0.50, 0.15), 0.125, 0.035),), "inside", "flat"),
        Part((body,), "main"),
        Part(mirrored([cuff]), "accent"),
        Part(collar, "accent"),
        Part(mirrored(stroke(folds[0], 0.02)), "fold", clip=True),
    ]


def hoodie() -> list[Part]:
    """Hood, long sleeves, front pocket and draw-strings."""
    body = polygon(
        (0.36, 0.24), (0.25, 0.28), (0.13, 0.46), (0.06, 0.82), (0.17, 0.85), (0.27, 0.55), (0.26, 0.84),
        (0.74, 0.84), (0.73, 0.55), (0.83, 0.85), (0.94, 0.82), (0.87, 0.46), (0.75, 0.28), (0.64, 0.24),
    )  # fmt: skip
    hood = curve((0.33, 0.27), (0.36, 0.12), (0.50, 0.06), (0.64, 0.12), (0.67, 0.27), (0.50, 0.36))
    pocket = polygon((0.37, 0.62), (0.63, 0.62), (0.70, 0.78), (0.30, 0.78))
    cuff = polygon((0.06, 0.82), (0.17, 0.85), (0.155, 0.92), (0.045, 0.89))
    strings = stroke(curve((0.45, 0.32), (0.44, 0.42), (0.455, 0.52), closed=False), 0.016)
    return [
        Part((body,), "main"),
        Part((hood,), "main"),
        Part((curve((0.39, 0.26), (0.42, 0.15), (0.50, 0.12), (0.58, 0.15), (0.61, 0.26), (0.50, 0.32)),), "accent"),
        Part(stroke(pocket, 0.012, closed=True), "fold", clip=True),
        Part(mirrored([cuff]), "accent"),
        Part((polygon((0.26, 0.84), (0.74, 0.84), (0.73, 0.91), (0.27, 0.91)),), "accent"),
        Part(mirrored(strings), "accent", "flat"),
    ]


def dress() -> list[Part]:
    """Sleeveless, belted, with a flared skirt."""
    top = curve((0.38, 0.07), (0.37, 0.20), (0.34, 0.29), (0.36, 0.44), (0.64, 0.44), (0.66, 0.29), (0.63, 0.20),
                (0.62, 0.07), (0.56, 0.17), (0.44, 0.17))  # fmt: skip
    flare = polygon((0.37, 0.43), (0.63, 0.43), (0.86, 0.90), (0.68, 0.935), (0.50, 0.945), (0.32, 0.935), (0.14, 0.90))
    hem = polygon((0.165, 0.85), (0.14, 0.90), (0.32, 0.935), (0.50, 0.945), (0.68, 0.935), (0.86, 0.90),
                  (0.835, 0.85), (0.66, 0.88), (0.50, 0.888), (0.34, 0.88))  # fmt: skip
    fold = stroke(curve((0.44, 0.52), (0.40, 0.70), (0.34, 0.86), closed=False), 0.016)
    return [
        Part((top,), "main"),
        Part((flare,), "main"),
        Part(mirrored(fold), "fold", clip=True),
        Part((polygon((0.355, 0.41), (0.645, 0.41), (0.65, 0.48), (0.35, 0.48)),), "accent", "round"),
        Part((hem,), "accent"),
    ]


def skirt() -> list[Part]:
    """A-line, with a waistband and a hem."""
    body = polygon((0.31, 0.18), (0.69, 0.18), (0.92, 0.82), (0.72, 0.865), (0.50, 0.88), (0.28, 0.865), (0.08, 0.82))
    hem = polygon((0.105, 0.75), (0.08, 0.82), (0.28, 0.865), (0.50, 0.88), (0.72, 0.865), (0.92, 0.82),
                  (0.895, 0.75), (0.70, 0.795), (0.50, 0.81), (0.30, 0.795))  # fmt: skip
    pleats = [
        *stroke(polygon((0.42, 0.27), (0.33, 0.82)), 0.015),
        *stroke(polygon((0.36, 0.27), (0.20, 0.80)), 0.015),
    ]
    return [
        Part((body,), "main"),
        Part(mirrored(pleats), "fold", clip=True),
        Part((polygon((0.31, 0.16), (0.69, 0.16), (0.715, 0.26), (0.285, 0.26)),), "accent", "round"),
        Part((hem,), "accent"),
    ]


def cap() -> list[Part]:
    """Baseball cap seen from the side, with a broad brim."""
    crown = curve((0.08, 0.66), (0.09, 0.42), (0.22, 0.22), (0.42, 0.16), (0.60, 0.22), (0.71, 0.40), (0.735, 0.66),
                  (0.40, 0.72))  # fmt: skip
    brim = curve((0.40, 0.68), (0.62, 0.63), (0.80, 0.64), (0.97, 0.74), (0.96, 0.80), (0.80, 0.785), (0.60, 0.79),
                 (0.42, 0.77))  # fmt: skip
    seam = stroke(curve((0.40, 0.17), (0.46, 0.40), (0.47, 0.69), closed=False), 0.012)
    return [
        Part((crown,), "main"),
        Part(seam, "fold", clip=True),
        Part(
            (curve((0.08, 0.60), (0.40, 0.665), (0.74, 0.60), (0.745, 0.69), (0.40, 0.755), (0.075, 0.69)),), "accent"
        ),
        Part((brim,), "accent"),
        Part((ellipse((0.41, 0.155), 0.04, 0.025),), "accent"),
    ]


def sneaker() -> list[Part]:
    """Low shoe from the side, toe to the right."""
    upper = curve((0.07, 0.70), (0.08, 0.36), (0.17, 0.25), (0.30, 0.33), (0.42, 0.29), (0.60, 0.44), (0.80, 0.50),
                  (0.93, 0.60), (0.95, 0.71), (0.50, 0.74))  # fmt: skip
    sole = curve((0.05, 0.70), (0.30, 0.715), (0.60, 0.715), (0.95, 0.69), (0.97, 0.78), (0.90, 0.83), (0.50, 0.83),
                 (0.10, 0.83), (0.045, 0.78))  # fmt: skip
    laces = [stroke(polygon((0.43 + 0.07 * i, 0.36 + 0.045 * i), (0.53 + 0.07 * i, 0.30 + 0.06 * i)), 0.026)
             for i in range(3)]  # fmt: skip
    return [
        Part((ellipse((0.235, 0.31), 0.10, 0.05),), "inside", "flat"),
        Part((upper,), "main"),
        Part((curve((0.80, 0.72), (0.79, 0.57), (0.87, 0.55), (0.95, 0.62), (0.96, 0.72)),), "accent"),
        Part((curve((0.06, 0.70), (0.07, 0.40), (0.13, 0.31), (0.17, 0.40), (0.19, 0.70)),), "accent"),
        Part(tuple(quad for lace in laces for quad in lace), "accent"),
        Part((sole,), "accent"),
        Part(stroke(curve((0.05, 0.775), (0.50, 0.785), (0.965, 0.765), closed=False), 0.01), "fold", "flat"),
    ]
