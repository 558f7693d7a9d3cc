"""The shop's catalog: products with their texts and pictures, and the gaps that a real export has."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sample_shop.attributes import SHOP_BRANDS, Look, Product, accents_for, draw_facts, draw_look, pick
from sample_shop.drawing.photograph import photograph
from sample_shop.texts import write_texts

PICTURE_SIDES_PX = (160, 192, 224, 256)
JPEG_QUALITY = 90
DAMAGES = ("truncated", "empty", "web page")


@dataclass(frozen=True)
class CatalogConfig:
    """What the catalog is like; shares are of all items."""

    items: int = 600
    without_picture: float = 0.10
    without_description: float = 0.05
    near_duplicates: float = 0.03
    broken_pictures: int = 4
    brand_tail: float = 0.9  # exponent of the brands' sizes: the r-th largest has a share like r ** -brand_tail


@dataclass(frozen=True)
class CatalogItem:
    """One listed item. Only title, description, picture, brand, department and price leave the shop.

    picture_seed: what the picture is drawn from, None for an item without one.
    damage: how the delivered picture file is broken, None if it is sound.
    """

    item_id: str
    product: Product
    title: str
    description: str | None
    price: float
    picture_seed: tuple[int, ...] | None
    damage: str | None = None
    near_duplicate_of: str | None = None


def build_catalog(config: CatalogConfig, seed: int) -> list[CatalogItem]:
    """The catalog of the first day."""
    rng = np.random.default_rng([seed, 1])
    items = list_items(0, config.items, config, seed)
    items = _with_near_duplicates(items, round(config.items * config.near_duplicates), seed, rng)
    unpictured = _some_of(items, config.without_picture, rng)
    undescribed = _some_of(items, config.without_description, rng)
    items = [replace(item, picture_seed=None) if item.item_id in unpictured else item for item in items]
    items = [replace(item, description=None) if item.item_id in undescribed else item for item in items]
    return damage_pictures(items, config.broken_pictures, rng)


def list_items(first: int, count: int, config: CatalogConfig, seed: int) -> list[CatalogItem]:
    """Complete items numbered from `first`; an item depends on its number and the seed alone."""
    return [_list_item(first + offset, config, seed) for offset in range(count)]


def damage_pictures(items: Sequence[CatalogItem], count: int, rng: np.random.Generator) -> list[CatalogItem]:
    """The items, `count` of those with a picture now with a broken one."""
    pictured = [i for i, item in enumerate(items) if item.picture_seed is not None]
    chosen = rng.choice(pictured, size=min(count, len(pictured)), replace=False).tolist()
    damaged = list(items)
    for turn, i in enumerate(chosen):
        damaged[i] = replace(damaged[i], damage=DAMAGES[turn % len(DAMAGES)])
    return damaged


def rewritten(item: CatalogItem, seed: int) -> CatalogItem:
    """The item with a new description of the same product."""
    text = write_texts(item.product, np.random.default_rng([seed, 5, _number(item)]))
    return replace(item, description=text.description)


def photographed_again(item: CatalogItem, seed: int) -> CatalogItem:
    """The item with a new picture of the same product."""
    return replace(item, picture_seed=(seed, 6, _number(item)), damage=None)


def picture_bytes(item: CatalogItem) -> bytes:
    """The item's picture file as delivered, damage and all."""
    assert item.picture_seed is not None, f"{item.item_id} has no picture"
    jpeg = shop_jpeg(item.product.look, np.random.default_rng(item.picture_seed))
    match item.damage:
        case "truncated":
            return jpeg[: len(jpeg) // 3]
        case "empty":
            return b""
        case "web page":
            return b"<!doctype html><title>404 Not Found</title><p>The picture has moved.</p>\n"
        case _:
            return jpeg


def shop_jpeg(look: Look, rng: np.random.Generator) -> bytes:
    """A product's picture as a sound JPEG file."""
    side = int(rng.choice(PICTURE_SIDES_PX))
    buffer = io.BytesIO()
    photograph(look, rng, side).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _list_item(number: int, config: CatalogConfig, seed: int) -> CatalogItem:
    rng = np.random.default_rng([seed, 2, number])
    look = draw_look(rng)
    ranks = np.arange(1, len(SHOP_BRANDS) + 1) ** -config.brand_tail
    product = Product(look, draw_facts(rng, look.kind, pick(rng, SHOP_BRANDS, ranks / ranks.sum())))
    return _listed(f"item-{number:05d}", product, (seed, 3, number), rng)


def _listed(item_id: str, product: Product, picture_seed: tuple[int, ...], rng: np.random.Generator) -> CatalogItem:
    text = write_texts(product, rng)
    price = round(float(np.exp(rng.normal(3.4, 0.6))), 2)
    return CatalogItem(item_id, product, text.title, text.description, price, picture_seed)


def _with_near_duplicates(
    items: list[CatalogItem], count: int, seed: int, rng: np.random.Generator
) -> list[CatalogItem]:
    """Turn `count` items into second listings of others: at most one accent differs, text and picture are new."""
    chosen = rng.choice(len(items), size=2 * count, replace=False).tolist()
    listed = list(items)
    for original, copy in zip(chosen[:count], chosen[count:], strict=True):
        twin = _listed(items[copy].item_id, _twin(items[original].product, rng), (seed, 4, copy), rng)
        listed[copy] = replace(twin, near_duplicate_of=items[original].item_id)
    return listed


def _twin(product: Product, rng: np.random.Generator) -> Product:
    if rng.random() < 0.5:
        return product
    accent = pick(rng, accents_for(product.look.main_colour))
    return replace(product, look=replace(product.look, accent_colour=accent))


def _some_of(items: list[CatalogItem], share: float, rng: np.random.Generator) -> set[str]:
    """The ids of a share of the items, chosen at random."""
    chosen = rng.choice(len(items), size=round(len(items) * share), replace=False)
    return {items[int(i)].item_id for i in chosen}


def _number(item: CatalogItem) -> int:
    return int(item.item_id.rsplit("-", 1)[1])
