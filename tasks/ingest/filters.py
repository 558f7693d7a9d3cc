"""Which events sequences are made of: k-core, to its fixed point, and a minimum sequence length.

The store keeps every event; these filters apply when sequences are built, so another setting needs no new ingest.
"""

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.schemas import INTERACTIONS, ITEM_ID, USER_ID
from storage.tables import Store

TIMESTAMP = "timestamp"
FILE_ORDER = "file_order"


class FilterConfig(BaseModel):
    """Which users, items and events take part in training and evaluation. The defaults keep everything usable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k_users: int = Field(
        default=1, ge=1, description="events a user needs to stay (k-core, iterated together with k_items); 5 is usual"
    )
    k_items: int = Field(
        default=1, ge=1, description="events an item needs to stay (k-core); 1 keeps items that were seen once"
    )
    min_sequence_length: int = Field(
        default=3, ge=1, description="events a sequence needs: leave-one-out takes two off, training needs one more"
    )


def k_core(events: pl.DataFrame, k_users: int, k_items: int) -> pl.DataFrame:
    """Return the largest subset of events in which each user has k_users events and each item k_items.

    Rows are counted (a repeated purchase counts twice) and keep their order. Rounds go on until none drops a row, so
    the result does not depend on which side is looked at first.
    """
    while True:
        kept = _frequent(_frequent(events, USER_ID, k_users), ITEM_ID, k_items)
        if kept.height == events.height:
            return kept
        events = kept


def filtered_events(store: Store, config: FilterConfig) -> pl.DataFrame:
    """Return the stored events that pass the filters: user_id, item_id, timestamp, file_order.

    Sorted by user, then time, then order of delivery. Both the k-core and the minimum length hold for the result:
    dropping a short sequence could cost an item its k events, so the minimum takes part in the rounds.
    """
    columns = (USER_ID, ITEM_ID, TIMESTAMP, FILE_ORDER)
    events = store.table(INTERACTIONS).read(*columns)
    kept = k_core(events, max(config.k_users, config.min_sequence_length), config.k_items)
    return kept.sort(USER_ID, TIMESTAMP, FILE_ORDER)


def _frequent(events: pl.DataFrame, column: str, k: int) -> pl.DataFrame:
    if k <= 1:
        return events
    frequent = events.group_by(column).len().filter(pl.col("len") >= k).select(column)
    return events.join(frequent, on=column, how="semi", maintain_order="left")
