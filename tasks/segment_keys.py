"""Which segments the catalog wants, by key: equal own texts under equal settings share their segments."""

import polars as pl

from storage.schemas import ITEM_ID, SEGMENT_KEY
from tasks.generation_keys import keys_of
from tasks.segments import SegmentConfig

TEXT_COLUMNS = ("title_digest", "description_digest", "attributes_digest")


def wanted_segments(items: pl.LazyFrame, config: SegmentConfig) -> pl.DataFrame:
    """Return item_id, segment_key: a row for each item that has any text of its own."""
    has_text = pl.any_horizontal(pl.col(column).is_not_null() for column in TEXT_COLUMNS)
    rows = items.filter(has_text).select(ITEM_ID, *TEXT_COLUMNS).collect()
    return rows.select(pl.col(ITEM_ID), keys_of(rows.select(TEXT_COLUMNS), config.digest).alias(SEGMENT_KEY))
