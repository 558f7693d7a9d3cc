"""Writes what the shop delivers: catalog, pictures and purchases of the first day and of tonight.

The generating truth goes beside the deliveries, never into them. It is for evaluation only: no stage may read it.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from sample_shop.attributes import KINDS
from sample_shop.catalog import CatalogItem, picture_bytes
from sample_shop.shoppers import Event
from sample_shop.simulation import ShopConfig, World, simulate

CATALOG_FILE = "catalog.jsonl"
INTERACTIONS_FILE = "interactions.csv"
PICTURES_FOLDER = "images"


@dataclass(frozen=True)
class Deliveries:
    """Where the deliveries lie, and the world that they are cut from."""

    day0: Path
    tonight: Path
    truth: Path
    world: World


def write_deliveries(out: Path, config: ShopConfig | None = None) -> Deliveries:
    """Simulate the shop and write `out`/day0, `out`/tonight and `out`/truth, replacing what is there.

    The same config writes the same bytes.
    """
    world = simulate(config or ShopConfig())
    written = Deliveries(out / "day0", out / "tonight", out / "truth", world)
    for folder in (written.day0, written.tonight, written.truth):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    pictures = _write_pictures(written.day0, world.day0, {})
    _write_pictures(written.tonight, world.tonight, pictures)
    for folder, items, events in (
        (written.day0, world.day0, world.day0_events),
        (written.tonight, world.tonight, world.tonight_events),
    ):
        _write_catalog(folder / CATALOG_FILE, items)
        _write_interactions(folder / INTERACTIONS_FILE, events, world.listed)
    _write_truth(written.truth, world)
    return written


def catalog_row(item: CatalogItem) -> dict[str, object]:
    """An item as the shop exports it."""
    return {
        "item_id": item.item_id,
        "title": item.title,
        "description": item.description,
        "image": picture_reference(item),
        "brand": item.product.facts.brand,
        "department": KINDS[item.product.look.kind].department,
        "price": item.price,
    }


def picture_reference(item: CatalogItem) -> str | None:
    """The picture's place relative to the catalog file."""
    return None if item.picture_seed is None else f"{PICTURES_FOLDER}/{item.item_id}.jpg"


def _write_pictures(
    folder: Path, items: Sequence[CatalogItem], drawn: dict[CatalogItem, bytes]
) -> dict[CatalogItem, bytes]:
    """Write every item's picture, drawing only those that `drawn` lacks, and return all of them."""
    (folder / PICTURES_FOLDER).mkdir()
    pictures = {item: drawn.get(item) or picture_bytes(item) for item in items if item.picture_seed is not None}
    for item, content in pictures.items():
        (folder / str(picture_reference(item))).write_bytes(content)
    return pictures


def _write_catalog(path: Path, items: Sequence[CatalogItem]) -> None:
    lines = (json.dumps(catalog_row(item), ensure_ascii=False) for item in items)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write_interactions(path: Path, events: Sequence[Event], listed: Sequence[CatalogItem]) -> None:
    rows = [
        {"user_id": event.user_id, "item_id": listed[event.item].item_id, "timestamp": event.timestamp}
        for event in events
    ]
    pl.DataFrame(rows).write_csv(path)


def _write_truth(folder: Path, world: World) -> None:
    """Attributes of every item ever listed, every shopper's styles, and what the styles like."""
    items = [
        {
            "item_id": item.item_id,
            **asdict(item.product.look),
            **asdict(item.product.facts),
            "near_duplicate_of": item.near_duplicate_of,
            "damage": item.damage,
            "bought_along": [world.listed[int(i)].item_id for i in companions],
        }
        for item, companions in zip(world.listed, world.market.companions_IC, strict=True)
    ]
    pl.DataFrame(items, infer_schema_length=None).write_parquet(folder / "items.parquet")
    shoppers = [{"user_id": shopper.user_id, "styles": list(shopper.styles)} for shopper in world.shoppers]
    pl.DataFrame(shoppers).write_parquet(folder / "shoppers.parquet")
    styles = [{key: _plain(value) for key, value in asdict(style).items()} for style in world.market.styles]
    pl.DataFrame(styles).with_row_index("style").write_parquet(folder / "styles.parquet")


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, frozenset) else value
