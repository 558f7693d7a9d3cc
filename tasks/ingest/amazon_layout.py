"""The file layout of Amazon Reviews 2023 (https://amazon-reviews-2023.github.io): meta files and reviews or ratings.

meta_*.jsonl(.gz) or *.parquet: parent_asin, title, features, description (list), images (hi_res, large), store,
categories, details. Reviews as JSON Lines, or the rating-only CSV: user_id, parent_asin, timestamp in milliseconds.
"""

import json
from dataclasses import replace
from pathlib import Path

from tasks.ingest.config import CatalogColumns, EventColumns, IngestConfig
from tasks.ingest.delivery import Delivery, files_in, layout_columns, source_files
from tasks.stage import StageError

_ITEM_ID = "parent_asin"
_PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.csv", "*.csv.gz", "*.parquet")

# These change from crawl to crawl, say nothing of what an item is, or point to other items.
_NO_ATTRIBUTES = (
    "average_rating",
    "rating_number",
    "price",
    "videos",
    "bought_together",
    "subtitle",
    "author",
)
_NO_DETAILS = ("Best Sellers Rank",)
_MAX_DEPTH_OF_DETAILS = 32


def amazon_delivery(config: IngestConfig) -> Delivery:
    """Return the delivery in `folder`, or in the files that the config names, with the data set's column names."""
    catalog, interactions = config.catalog, config.interactions
    if config.folder is not None:
        catalog, interactions = _files(config.folder)
    columns = CatalogColumns(item_id=_ITEM_ID, image="images", ignore=_NO_ATTRIBUTES)
    event_columns = EventColumns(item_id=_ITEM_ID)
    meta, events = source_files(catalog, interactions, config)
    lasting = tuple(replace(file, adapt=_lasting_details) for file in meta)
    return Delivery(lasting, events, *layout_columns(config, columns, event_columns))


def _lasting_details(values: dict[str, object]) -> dict[str, object]:
    """Make an object of `details`, in Parquet files JSON in a string, without what changes from crawl to crawl."""
    details = values.get("details")
    if isinstance(details, str) and details.count("{") + details.count("[") <= _MAX_DEPTH_OF_DETAILS:
        try:
            details = json.loads(details)
        except ValueError:
            return values
    if not isinstance(details, dict):
        return values
    return values | {"details": {name: value for name, value in details.items() if name not in _NO_DETAILS}}


def _files(folder: Path) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    paths = sorted({path for pattern in _PATTERNS for path in files_in(folder, pattern)})
    meta = tuple(path for path in paths if "meta_" in path.name)
    events = tuple(path for path in paths if "meta_" not in path.name)
    if not meta or not events:
        raise StageError(
            f"{folder} holds {len(meta)} meta_* files and {len(events)} files of reviews or ratings; the layout "
            "amazon_reviews_2023 needs both, as .jsonl, .csv (ratings) or .parquet, .gz or not"
        )
    return meta, events
