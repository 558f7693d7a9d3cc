"""What is delivered against what the store holds: which items are new, changed, back, the same, gone."""

from collections.abc import Iterator, Set

import polars as pl

from storage.digests import digest_of_text
from storage.schemas import ITEM_ID, ITEMS
from storage.tables import Store

NEW, CHANGED, RETURNED, SAME = "new", "changed", "returned", "same"
STATE = "state"

_KNOWN = (ITEM_ID, "content_digest", "image_reference", "active", "first_seen_at")


class StoredItems:
    """The store's items at the beginning of a pass, by what decides whether they changed (about 150 bytes an item)."""

    def __init__(self, store: Store) -> None:
        self._table = store.table(ITEMS)
        self._known = self._table.read(*_KNOWN).sort(ITEM_ID)
        self.ids = self._known[ITEM_ID]
        self.active = int(self._known["active"].sum())

    def compare(self, drafts: pl.DataFrame) -> pl.DataFrame:
        """Return drafts with a `state` and, for known items, `first_seen_at`."""
        places = self._known[ITEM_ID].search_sorted(drafts[ITEM_ID], side="left").unique()
        near = self._known[places.filter(places < self._known.height)]
        stored = near.rename({"content_digest": "stored_digest", "image_reference": "stored_reference"})
        joined = drafts.join(stored, on=ITEM_ID, how="left", maintain_order="left")
        differs = pl.col("content_digest").ne_missing(pl.col("stored_digest")) | pl.col("image_reference").ne_missing(
            pl.col("stored_reference")
        )
        state = (
            pl.when(pl.col("active").is_null())
            .then(pl.lit(NEW))
            .when(differs)
            .then(pl.lit(CHANGED))
            .when(~pl.col("active"))
            .then(pl.lit(RETURNED))
            .otherwise(pl.lit(SAME))
        )
        return joined.with_columns(state.alias(STATE)).drop("stored_digest", "stored_reference", "active")

    def gone(self, delivered: Set[str]) -> pl.Series:
        """Return the ids of active items that are not among the delivered."""
        active = self._known.filter("active")[ITEM_ID]
        return active.filter(pl.Series([item_id not in delivered for item_id in active], dtype=pl.Boolean))

    def rows_of(self, item_ids: pl.Series, rows: int) -> Iterator[pl.DataFrame]:
        """Yield whole rows of the items table, at most `rows` at a time."""
        for start in range(0, len(item_ids), rows):
            chosen = item_ids.slice(start, rows)
            yield self._table.scan().filter(pl.col(ITEM_ID).is_in(chosen.implode())).collect()


def content_digest(
    title_digest: str | None, description_digest: str | None, attributes_digest: str | None, image_digest: str | None
) -> str:
    """Return the digest of an item's four parts: an item changed when this did."""
    parts = (title_digest, description_digest, attributes_digest, image_digest)
    return digest_of_text("\n".join(part or "-" for part in parts))
