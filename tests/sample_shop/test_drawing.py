"""Pictures: deterministic, and the named colours are really there."""

from dataclasses import replace

import numpy as np
import pytest

from sample_shop.attributes import COLOURS, KINDS, PATTERNS, Look, accents_for
from sample_shop.drawing.contact_sheet import contact_sheet
from sample_shop.drawing.patterns import pattern_coverage
from sample_shop.drawing.photograph import photograph

MUG = Look("mug", "red", "plain", "blue")


def test_same_seed_same_picture() -> None:
    first, second = (photograph(MUG, np.random.default_rng(3), 160) for _ in range(2))
    assert first.size == (160, 160)
    assert first.tobytes() == second.tobytes()
    assert photograph(MUG, np.random.default_rng(4), 160).tobytes() != first.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_its_main_and_accent_colour(kind: str) -> None:
    pixels = np.asarray(photograph(replace(MUG, kind=kind), np.random.default_rng(1)), dtype=float)
    for colour, least in (("red", 0.05), ("blue", 0.01)):
        near = np.linalg.norm(pixels - np.array(COLOURS[colour]), axis=-1) < 60
        assert near.mean() > least, f"{kind} shows too little {colour}"


def test_patterns_cover_part_of_the_body() -> None:
    for pattern in PATTERNS:
        coverage = pattern_coverage(pattern, 64, 5.0, np.random.default_rng(0))
        assert coverage.shape == (64, 64)
        assert (coverage.mean() == 0) == (pattern == "plain")
        assert coverage.mean() < 0.6


def test_accents_differ_from_the_main_colour() -> None:
    for colour in COLOURS:
        assert colour not in accents_for(colour)
        assert len(accents_for(colour)) >= 6


def test_contact_sheet_holds_every_picture() -> None:
    pictures = [photograph(MUG, np.random.default_rng(i), 160) for i in range(5)]
    # 3 columns of 50 + 6 px and a gap of 6; 5 pictures take 2 rows
    assert contact_sheet(pictures, columns=3, tile_px=50).size == (174, 118)
