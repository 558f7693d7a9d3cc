"""The sample shop's vocabulary: what a product can be, what it looks like, and what only its description tells.

A `Look` is what a picture can show; `Facts` are what only words can say. Both together make a `Product`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Colour = tuple[int, int, int]
Field = Literal["kind", "main colour", "pattern", "accent colour", "material", "brand", "occasion", "care", "size"]

PICTURE_FIELDS: tuple[Field, ...] = ("kind", "main colour", "pattern", "accent colour")
TEXT_FIELDS: tuple[Field, ...] = ("kind", "material", "brand", "occasion", "care", "size")
FIELDS: tuple[Field, ...] = (*PICTURE_FIELDS, "material", "brand", "occasion", "care", "size")

COLOURS: dict[str, Colour] = {
    "red": (200, 36, 42),
    "orange": (240, 128, 28),
    "yellow": (247, 209, 62),
    "green": (52, 138, 66),
    "teal": (34, 160, 160),
    "blue": (38, 84, 190),
    "purple": (122, 62, 160),
    "pink": (243, 140, 178),
    "brown": (118, 74, 42),
    "black": (36, 36, 40),
    "grey": (134, 136, 140),
    "white": (246, 245, 241),
}
PATTERNS = ("plain", "striped", "dotted", "checked", "floral", "zigzag")
OCCASIONS = ("everyday", "office", "travel", "party", "gift", "outdoor", "sports", "winter")

# Squared RGB distance under which a main and an accent colour are too alike to tell apart in a small picture.
NEAREST_ACCENT_DISTANCE = 85**2

_CLOTHES_CARE = ("machine-wash", "hand-wash", "dry-clean", "cool-iron")
_HOUSE_CARE = ("dishwasher-safe", "hand-wash", "wipe-clean")
_HARD_CARE = ("wipe-clean", "dust-only", "polish-only")
_CLOTHES_SIZES = ("small", "medium", "large", "extra-large")


@dataclass(frozen=True)
class Kind:
    """What products of one kind share; the choices are those the generator may draw from."""

    department: str
    materials: tuple[str, ...]
    cares: tuple[str, ...]
    sizes: tuple[str, ...]


_CLOTHES = Kind("clothing", ("cotton", "wool", "linen", "fleece", "silk", "hemp"), _CLOTHES_CARE, _CLOTHES_SIZES)
_BAGS = Kind("bags", ("canvas", "leather", "nylon", "felt"), ("wipe-clean", "hand-wash"), ("10 l", "15 l", "20 l"))
_POTTERY = Kind("kitchen", ("stoneware", "porcelain", "enamel", "glass"), _HOUSE_CARE, ("small", "medium", "large"))
_MUSIC = Kind("music", ("maple", "birch", "mahogany", "walnut"), _HARD_CARE, ("junior", "three-quarter", "full-size"))

KINDS: dict[str, Kind] = {
    "t-shirt": _CLOTHES,
    "hoodie": _CLOTHES,
    "dress": _CLOTHES,
    "skirt": _CLOTHES,
    "cap": Kind("clothing", ("cotton", "wool", "linen", "canvas"), _CLOTHES_CARE, _CLOTHES_SIZES),
    "sneaker": Kind(
        "shoes", ("canvas", "leather", "suede", "hemp"), ("wipe-clean", "hand-wash"), ("38", "40", "42", "44")
    ),
    "backpack": _BAGS,
    "tote bag": _BAGS,
    "mug": _POTTERY,
    "teapot": _POTTERY,
    "vase": Kind("home", ("stoneware", "porcelain", "glass", "terracotta"), _HARD_CARE, ("20 cm", "30 cm", "40 cm")),
    "cushion": Kind("home", ("cotton", "velvet", "linen", "wool"), _CLOTHES_CARE, ("40 cm", "50 cm", "60 cm")),
    "lamp": Kind("home", ("linen", "paper", "bamboo", "glass"), _HARD_CARE, ("30 cm", "40 cm", "50 cm")),
    "umbrella": Kind(
        "outdoors", ("nylon", "polyester", "canvas", "bamboo"), ("wipe-clean", "dust-only"), ("compact", "full-size")
    ),
    "guitar": _MUSIC,
    "drum": _MUSIC,
}

# Made-up brands of the shop; training also sees names put together from the same kinds of syllables.
SHOP_BRANDS = (
    "Norvel", "Tamsin", "Brookam", "Ferrano", "Kestwick", "Lumora", "Oakden", "Pellistra", "Quillon", "Rivanto",
    "Solberry", "Tavish", "Umbrel", "Varnholt", "Wendora", "Yarrowby", "Zelmont", "Arkenny", "Birchlow", "Calmora",
    "Dunmere", "Elvando", "Fjordan", "Glenwick",
)  # fmt: skip
_BRAND_HEADS = (
    "Nor", "Tam", "Bro", "Fer", "Kes", "Lum", "Oak", "Pel", "Qui", "Riv", "Sol", "Tav", "Um", "Var", "Wen", "Yar",
    "Zel", "Ark", "Bir", "Cal", "Dun", "El", "Fjo", "Glen", "Hal", "Is", "Jor", "Kan", "Lor", "Mar", "Os", "Pra",
)  # fmt: skip
_BRAND_MIDDLES = ("", "", "a", "o", "den", "li", "ra", "ven", "mi", "so")
_BRAND_TAILS = (
    "vel", "sin", "kam", "rano", "wick", "mora", "den", "stra", "lon", "vanto", "berry", "vish", "brel", "holt",
    "dora", "by", "mont", "kenny", "low", "mere", "vando", "dan", "tek", "ford", "lind", "nova", "quist", "rel",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """What a picture can show."""

    kind: str
    main_colour: str
    pattern: str
    accent_colour: str


@dataclass(frozen=True)
class Facts:
    """What only words can say."""

    material: str
    brand: str
    occasion: str
    care: str
    size: str


@dataclass(frozen=True)
class Product:
    """One product of the made world."""

    look: Look
    facts: Facts

    def value(self, field: Field) -> str:
        """The product's value of a field, by the field's public name."""
        if field in PICTURE_FIELDS:
            return str(getattr(self.look, field.replace(" ", "_")))
        return str(getattr(self.facts, field))


def accents_for(main_colour: str) -> tuple[str, ...]:
    """Accent colours that can be told apart from `main_colour` in a small picture."""
    main = COLOURS[main_colour]
    return tuple(
        name
        for name, colour in COLOURS.items()
        if sum((a - b) ** 2 for a, b in zip(colour, main, strict=True)) >= NEAREST_ACCENT_DISTANCE
    )


def pick(rng: np.random.Generator, choices: tuple[str, ...], weights: np.ndarray | None = None) -> str:
    """One of `choices`, drawn with `rng`."""
    return choices[int(rng.choice(len(choices), p=weights))]


def draw_look(rng: np.random.Generator) -> Look:
    """A look, uniform over kinds, colours and patterns."""
    main_colour = pick(rng, tuple(COLOURS))
    return Look(pick(rng, tuple(KINDS)), main_colour, pick(rng, PATTERNS), pick(rng, accents_for(main_colour)))


def draw_facts(rng: np.random.Generator, kind: str, brand: str) -> Facts:
    """Facts that fit a kind."""
    options = KINDS[kind]
    return Facts(
        material=pick(rng, options.materials),
        brand=brand,
        occasion=pick(rng, OCCASIONS),
        care=pick(rng, options.cares),
        size=pick(rng, options.sizes),
    )


def draw_invented_brand(rng: np.random.Generator) -> str:
    """A made-up name of two or three syllables that is not one of the shop's brands."""
    while True:
        name = pick(rng, _BRAND_HEADS) + pick(rng, _BRAND_MIDDLES) + pick(rng, _BRAND_TAILS)
        if name not in SHOP_BRANDS:
            return name
