"""The semantics as they stand: which answer and which segments hold for each item now.

What later stages read. Both are lazy joins of what the catalog wants (keys made from digests) with what the store
has; nothing is generated or cut here.
"""

import polars as pl

from storage.schemas import GENERATION_KEY, GENERATIONS, ITEM_ID, ITEMS, SEGMENT_KEY, SEGMENTS, TEXT_DIGEST
from storage.tables import Store
from tasks.describe import DescribeConfig, asked_views
from tasks.embed import EmbedConfig
from tasks.generation_keys import wanted_generations
from tasks.segment_keys import wanted_segments


def current_generations(store: Store, config: DescribeConfig) -> pl.LazyFrame:
    """Return item_id, view, generation_key, status, text, text_digest: one row a wanted item and view.

    Status is null where there is no answer yet, "ok" where there is one to use, else what is wrong with it. Items that
    are no longer active are among the rows: histories mention them.
    """
    wanted = wanted_generations(store.table(ITEMS).scan(), asked_views(config))
    answers = store.table(GENERATIONS).scan().select(GENERATION_KEY, "status", "text", TEXT_DIGEST)
    return wanted.lazy().join(answers, on=GENERATION_KEY, how="left")


def current_segments(store: Store, config: EmbedConfig) -> pl.LazyFrame:
    """Return item_id, position, kind, text, text_digest: the stored segments of each item's present text, unordered."""
    wanted = wanted_segments(store.table(ITEMS).scan(), config.segments)
    stored = store.table(SEGMENTS).scan().filter(pl.col(TEXT_DIGEST).is_not_null())
    rows = wanted.lazy().join(stored, on=SEGMENT_KEY, how="inner")
    return rows.select(ITEM_ID, "position", "kind", "text", TEXT_DIGEST)
