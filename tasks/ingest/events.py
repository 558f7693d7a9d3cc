"""Interactions as events: ids as text, times in milliseconds, unknown items refused, repeats dropped."""

import itertools
from collections import Counter
from collections.abc import Container, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from storage.digests import event_digest
from storage.schemas import EVENT_DIGEST, INTERACTIONS
from storage.tables import Store
from tasks.ingest.cleaning import BadValueError, id_text
from tasks.ingest.config import EventColumns, IngestConfig, TimestampUnit
from tasks.ingest.delivery import Delivery, SourceFile
from tasks.ingest.reading import Row, read_rows
from tasks.ingest.refusals import Refusal, merge_sorted, unseen_first
from tasks.ingest.timestamps import decide_unit, timestamp_of

EVENT_ROWS = 100_000  # events a commit
_UNIT_ROWS = 10_000  # rows that decide a file's unit of time


class Event(NamedTuple):
    event_digest: int
    user_id: str
    item_id: str
    timestamp: int


class StoredEvents:
    """Which events the store holds (8 bytes each), and the next place in the order of delivery."""

    def __init__(self, store: Store) -> None:
        table = store.table(INTERACTIONS)
        self._seen = np.sort(table.read(EVENT_DIGEST)[EVENT_DIGEST].to_numpy())
        last = table.scan().select(pl.col("file_order").max()).collect().item()
        self._next_order = 0 if last is None else last + 1

    def take_new(self, events: list[Event]) -> pl.DataFrame:
        """Return the events not met before, with `file_order`, in order; from now on they count as met."""
        frame = pl.DataFrame(
            events,
            schema={"event_digest": pl.Int64, "user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64},
            orient="row",
        )
        digests = frame[EVENT_DIGEST].to_numpy()
        fresh = unseen_first(digests, self._seen)
        self._seen = merge_sorted(self._seen, digests[fresh])
        new = frame.filter(pl.Series(fresh, dtype=pl.Boolean))
        new = new.with_columns(file_order=pl.int_range(pl.len(), dtype=pl.Int64) + self._next_order)
        self._next_order += new.height
        return new


class EventPass:
    """One pass over the interaction files; `known_items` are the ids that events may name."""

    def __init__(self, delivery: Delivery, config: IngestConfig, known_items: Container[str]) -> None:
        self._delivery = delivery
        self._config = config
        self._known = known_items
        self.rows: Counter[str] = Counter()
        self.refused_rows: Counter[str] = Counter()

    def batches(self) -> Iterator[tuple[list[Event], list[Refusal]]]:
        """Yield events and refusals in order of delivery, at most EVENT_ROWS rows at a time."""
        for source in self._delivery.interactions:
            rows = self._rows(source)
            while batch := list(itertools.islice(rows, EVENT_ROWS)):
                refusals = [row for row in batch if isinstance(row, Refusal)]
                self.rows[source.name] += len(batch)
                self.refused_rows[source.name] += len(refusals)
                yield [row for row in batch if isinstance(row, Event)], refusals

    def _rows(self, source: SourceFile) -> Iterator[Event | Refusal]:
        columns = self._delivery.event_columns
        needed = {f"event_columns.{key}": getattr(columns, key) for key in type(columns).model_fields}
        rows = read_rows(source, needed, only=tuple(needed.values()))
        first = list(itertools.islice(rows, _UNIT_ROWS))
        unit = self._config.timestamp_unit
        if unit == "auto":
            unit = decide_unit(row[1].get(columns.timestamp) for row in first if not isinstance(row, Refusal))
        for row in itertools.chain(first, rows):
            yield row if isinstance(row, Refusal) else self._event(source, row, columns, unit)

    def _event(self, source: SourceFile, row: Row, columns: EventColumns, unit: TimestampUnit) -> Event | Refusal:
        number, values = row
        item_id, field = None, columns.item_id
        try:
            item_id = id_text(values.get(columns.item_id))
            field = columns.user_id
            user_id = id_text(values.get(columns.user_id))
            field = columns.timestamp
            timestamp = timestamp_of(values.get(columns.timestamp), unit)
        except BadValueError as error:
            return Refusal(source.name, number, field, item_id, error.reason, error.detail)
        if item_id not in self._known:
            detail = "no item of the catalog has this id; deliver the item, or leave the event out"
            return Refusal(source.name, number, columns.item_id, item_id, "unknown_item", detail)
        return Event(event_digest(user_id, item_id, timestamp), user_id, item_id, timestamp)
