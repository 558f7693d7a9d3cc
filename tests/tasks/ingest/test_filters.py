import polars as pl
import pytest

from storage.schemas import INTERACTIONS
from storage.tables import Store
from tasks.ingest.filters import FilterConfig, filtered_events, k_core


def events_of(*pairs: str) -> pl.DataFrame:
    """Events from "user item" texts, in order."""
    users, items = zip(*(pair.split() for pair in pairs), strict=True)
    return pl.DataFrame({"user_id": users, "item_id": items})


def pairs_of(events: pl.DataFrame) -> list[str]:
    return [f"{user} {item}" for user, item in events.select("user_id", "item_id").iter_rows()]


def test_k_core_goes_on_to_the_fixed_point():
    # Round 1 drops c (1 event), which leaves item y with 1 event (b); round 2 drops y, which leaves b with 1 event (x);
    # round 3 drops b. What is left: a bought x twice.
    events = events_of("a x", "c y", "b x", "b y", "a x")
    assert pairs_of(k_core(events, 2, 2)) == ["a x", "a x"]


def test_k_core_can_be_empty_and_one_keeps_all():
    events = events_of("a x", "b y")
    assert k_core(events, 2, 2).height == 0
    assert pairs_of(k_core(events, 1, 1)) == ["a x", "b y"]
    assert k_core(events.clear(), 5, 5).height == 0


def test_k_core_agrees_with_a_loop_over_rows():
    numbers = range(400)
    events = pl.DataFrame(
        {"user_id": [str(n * n % 61) for n in numbers], "item_id": [str(n * (n + 3) % 53) for n in numbers]}
    )
    rows = pairs_of(events)
    while True:
        kept = [
            row
            for row in rows
            if sum(other.split()[0] == row.split()[0] for other in rows) >= 9
            and sum(other.split()[1] == row.split()[1] for other in rows) >= 12
        ]
        if kept == rows:
            break
        rows = kept
    assert 0 < len(rows) < 400
    assert pairs_of(k_core(events, 9, 12)) == rows


def test_filtered_events_are_sorted_with_ties_in_file_order(tmp_path):
    store = Store(tmp_path)
    table = store.table(INTERACTIONS)
    rows = [("u", "late", 9, 1), ("u", "second", 5, 3), ("u", "first", 5, 2), ("t", "short", 1, 4)]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp", "file_order"], orient="row")
    events = events.with_row_index("event_digest").with_columns(
        pl.col("event_digest").cast(pl.Int64),
        created_at=pl.lit(None).cast(pl.Datetime("us", "UTC")),
        run_id=pl.lit("r"),
    )
    table.append(events)
    kept = filtered_events(store, FilterConfig(min_sequence_length=3))
    assert kept.columns == ["user_id", "item_id", "timestamp", "file_order"]
    assert kept["item_id"].to_list() == ["first", "second", "late"]


@pytest.mark.parametrize("k_items, expected", [(1, 3), (2, 0)])
def test_minimum_length_and_core_hold_together(tmp_path, k_items, expected):
    # b has 1 event, so it drops; with k_items 2, x then has 1 event and drops, which leaves a with 2 of 3.
    store = Store(tmp_path)
    events = events_of("a x", "a y", "a y", "b x").with_columns(
        pl.int_range(pl.len()).alias("event_digest"),
        pl.int_range(pl.len()).alias("timestamp"),
        pl.int_range(pl.len()).alias("file_order"),
        pl.lit(None).cast(pl.Datetime("us", "UTC")).alias("created_at"),
        pl.lit("r").alias("run_id"),
    )
    store.table(INTERACTIONS).append(events)
    assert filtered_events(store, FilterConfig(min_sequence_length=3, k_items=k_items)).height == expected
