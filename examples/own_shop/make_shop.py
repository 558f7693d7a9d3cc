"""Make a small shop's export, as a shop might have it: `python examples/own_shop/make_shop.py FOLDER`.

Ten products with drawn pictures, and three weeks of orders; under FOLDER/tonight the next day's: two new products
and new orders. The columns have names of their own, so that the config has something to map. Nothing here is special:
put your own export in its place.
"""

import csv
import shutil
import sys
import tempfile
from pathlib import Path

from sample_shop.catalog import CatalogConfig, CatalogItem
from sample_shop.delivery import catalog_row, write_deliveries
from sample_shop.shoppers import ShopperConfig
from sample_shop.simulation import ShopConfig, TonightConfig

SHOP = ShopConfig(
    catalog=CatalogConfig(
        items=10, without_picture=0.0, without_description=0.0, near_duplicates=0.0, broken_pictures=0
    ),
    shoppers=ShopperConfig(shoppers=60, days=21, longest_history=8),
    tonight=TonightConfig(
        new_items=2,
        new_descriptions=1,
        new_pictures=0,
        gone_items=0,
        broken_pictures=0,
        returning_shoppers=10,
        new_shoppers=5,
    ),
)
COLUMNS = {"sku": "item_id", "name": "title", "text": "description", "photo": "image", "maker": "brand"}


def write_products(path: Path, items: list[CatalogItem]) -> None:
    """One product a line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "price"])
        for item in items:
            row = catalog_row(item)
            writer.writerow([*(row[name] for name in COLUMNS.values()), row["price"]])


def write_orders(source: Path, target: Path) -> None:
    """The same rows under the shop's own header."""
    lines = source.read_text(encoding="utf-8").splitlines()
    target.write_text("\n".join(["customer,sku,ordered_at", *lines[1:]]) + "\n", encoding="utf-8")


def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = write_deliveries(Path(folder), SHOP)
        world = made.world
        for source, target, items in ((made.day0, out, world.day0), (made.tonight, out / "tonight", world.tonight)):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source / "images", target / "images", dirs_exist_ok=True)
            write_products(target / "products.csv", list(items))
            write_orders(source / "interactions.csv", target / "orders.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
