"""What the shop delivers: the same bytes for the same seed, gaps in the stated shares, and tonight's differences."""

import csv
import io
import json
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from sample_shop.attributes import SHOP_BRANDS
from sample_shop.catalog import CatalogConfig, build_catalog
from sample_shop.delivery import Deliveries, write_deliveries
from sample_shop.shoppers import ShopperConfig
from sample_shop.simulation import ShopConfig

SMALL = ShopConfig(catalog=CatalogConfig(items=80), shoppers=ShopperConfig(shoppers=300))


@pytest.fixture(scope="module")
def deliveries(tmp_path_factory: pytest.TempPathFactory) -> Deliveries:
    return write_deliveries(tmp_path_factory.mktemp("shop"), SMALL)


def read_catalog(folder: Path) -> dict[str, dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "catalog.jsonl").read_text().splitlines()]
    return {row["item_id"]: row for row in rows}


def read_events(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "interactions.csv").open()))


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def is_broken(path: Path) -> bool:
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            picture.load()
    except (UnidentifiedImageError, OSError):
        return True
    return False


def test_same_seed_same_bytes_other_seed_other_bytes(deliveries: Deliveries, tmp_path: Path) -> None:
    again = write_deliveries(tmp_path / "again", SMALL)
    assert digests(again.day0.parent) == digests(deliveries.day0.parent)
    first, other = (build_catalog(SMALL.catalog, seed) for seed in (SMALL.seed, SMALL.seed + 1))
    assert [item.description for item in first] != [item.description for item in other]
    assert [item.product for item in first] != [item.product for item in other]


def test_shares_of_what_is_missing() -> None:
    items = build_catalog(CatalogConfig(), seed=3)
    assert len(items) == 600
    assert sum(item.picture_seed is None for item in items) == 60  # 10 % of 600
    assert sum(item.description is None for item in items) == 30  # 5 %
    assert sum(item.near_duplicate_of is not None for item in items) == 18  # 3 %
    assert sum(item.damage is not None for item in items) == 4
    assert {item.product.facts.brand for item in items} <= set(SHOP_BRANDS)


def test_catalog_rows_and_pictures_match(deliveries: Deliveries) -> None:
    for folder in (deliveries.day0, deliveries.tonight):
        rows = read_catalog(folder)
        references = {str(row["image"]) for row in rows.values() if row["image"] is not None}
        assert references == {f"images/{path.name}" for path in (folder / "images").iterdir()}
        assert all(row["title"] for row in rows.values())


def test_catalog_keeps_to_itself_what_only_pictures_or_descriptions_tell(deliveries: Deliveries) -> None:
    columns = set(next(iter(read_catalog(deliveries.day0).values())))
    assert columns == {"item_id", "title", "description", "image", "brand", "department", "price"}


def test_tonight_has_30_new_5_changed_3_gone_2_broken(deliveries: Deliveries) -> None:
    before, after = read_catalog(deliveries.day0), read_catalog(deliveries.tonight)
    new = after.keys() - before.keys()
    assert len(new) == 30
    assert len(before.keys() - after.keys()) == 3
    kept = before.keys() & after.keys()
    redescribed = {key for key in kept if before[key] != after[key]}
    assert all(before[key]["title"] == after[key]["title"] for key in redescribed)
    reshot = {
        key
        for key in kept
        if before[key]["image"] and picture(deliveries.day0, key) != picture(deliveries.tonight, key)
    }
    assert len(redescribed) == 3
    assert len(reshot) == 2
    assert not redescribed & reshot
    assert sum(is_broken(deliveries.tonight / "images" / f"{key}.jpg") for key in new if after[key]["image"]) == 2


def picture(folder: Path, item_id: str) -> bytes:
    return (folder / "images" / f"{item_id}.jpg").read_bytes()


def test_some_pictures_of_the_first_day_are_broken(deliveries: Deliveries) -> None:
    assert sum(is_broken(path) for path in (deliveries.day0 / "images").iterdir()) == 4


def test_tonights_events_are_new_and_known(deliveries: Deliveries) -> None:
    first, second = read_events(deliveries.day0), read_events(deliveries.tonight)
    assert list(first[0]) == ["user_id", "item_id", "timestamp"]
    assert max(int(row["timestamp"]) for row in first) < min(int(row["timestamp"]) for row in second)
    catalog = read_catalog(deliveries.tonight)
    assert {row["item_id"] for row in second} <= catalog.keys()
    assert {row["item_id"] for row in second} - read_catalog(deliveries.day0).keys(), "new items are bought, too"
    assert {row["item_id"] for row in first} <= read_catalog(deliveries.day0).keys()


def test_nobody_buys_an_item_twice(deliveries: Deliveries) -> None:
    pairs = [
        (row["user_id"], row["item_id"])
        for folder in (deliveries.day0, deliveries.tonight)
        for row in read_events(folder)
    ]
    assert len(pairs) == len(set(pairs))


def test_truth_lies_outside_the_deliveries(deliveries: Deliveries) -> None:
    delivered = [
        path for folder in (deliveries.day0, deliveries.tonight) for path in folder.rglob("*") if path.is_file()
    ]
    assert {path.suffix for path in delivered} == {".jsonl", ".csv", ".jpg"}
    assert {path.name for path in deliveries.truth.iterdir()} == {"items.parquet", "shoppers.parquet", "styles.parquet"}
