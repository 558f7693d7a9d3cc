"""Rows that are refused: what a refusal says, which ones the store knows already, and each file's share of them.

The same files ingested again give the same refusals, so none is written twice (`Refusal.known_by`).
"""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from storage.digests import number_of_text
from storage.schemas import REJECTS
from storage.tables import Store

PICTURE_REASON = "picture_"  # begins the reasons of refused pictures

_STAGE = "ingest"
_IDENTITY = ("source", "row", "field", "item_id", "reason", "detail")


class Refusal(NamedTuple):
    """Why a row, a field of it, or a file's pictures were refused."""

    source: str
    row: int | None
    field: str | None
    item_id: str | None
    reason: str
    detail: str

    @property
    def known_by(self) -> tuple[str | int | None, ...]:
        """What another refusal has in common with this one if it is the same.

        All of it; of a picture, whose item is taken in all the same, not the row, which moves when the catalog gains or
        loses another.
        """
        if self.reason.startswith(PICTURE_REASON):
            return self.source, self.item_id, self.reason, self.detail
        return tuple(self)


class RefusalLog:
    """The refusals of one pass over a delivery. Holds 8 bytes for each one that the store knows."""

    def __init__(self, store: Store, sources: Iterable[str]) -> None:
        self._table = store.table(REJECTS)
        self._known = _stored_digests(store, sorted(set(sources)))
        self._pending: list[Refusal] = []
        self.new = 0
        self.reasons: Counter[tuple[str, str]] = Counter()  # (source, reason): rows and fields refused

    def add(self, refusals: Iterable[Refusal], keep: bool) -> None:
        """Count refusals; with `keep`, hold the new ones until `write`."""
        batch = list(refusals)
        if not batch:
            return
        self.reasons.update((refusal.source, refusal.reason) for refusal in batch)
        digests = np.array([_digest(refusal) for refusal in batch], dtype=np.int64)
        fresh = unseen_first(digests, self._known)
        self.new += int(fresh.sum())
        if keep:
            self._pending.extend(refusal for refusal, is_new in zip(batch, fresh, strict=True) if is_new)
        self._known = merge_sorted(self._known, digests[fresh])

    def write(self, run_id: str) -> None:
        """Append what is held to the `rejects` table."""
        if not self._pending:
            return
        rows = [(_STAGE, *refusal, datetime.now(UTC), run_id) for refusal in self._pending]
        self._table.append(pl.DataFrame(rows, schema=self._table.empty().schema, orient="row"))
        self._pending.clear()

    def summary(self, source: str) -> str:
        """Return a file's refusals as text: `3 broken_json, 1 duplicate_id`."""
        counts = sorted((-count, reason) for (name, reason), count in self.reasons.items() if name == source)
        return ", ".join(f"{-count:,} {reason}" for count, reason in counts)


def unseen_first(digests: np.ndarray, seen_sorted: np.ndarray) -> np.ndarray:
    """Return a mask of the digests that are not in `seen_sorted`, each digest's first place only."""
    fresh = np.zeros(len(digests), dtype=bool)
    fresh[np.unique(digests, return_index=True)[1]] = True
    places = np.searchsorted(seen_sorted, digests)
    inside = places < len(seen_sorted)
    fresh[inside] &= seen_sorted[places[inside]] != digests[inside]
    return fresh


def merge_sorted(sorted_digests: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Return both as one sorted array."""
    if not len(more):
        return sorted_digests
    return np.sort(np.concatenate([sorted_digests, more]), kind="stable")


def _stored_digests(store: Store, sources: list[str]) -> np.ndarray:
    of_sources = (pl.col("stage") == _STAGE) & pl.col("source").is_in(sources)
    parts = (part.filter(of_sources).select(_IDENTITY).collect() for part in store.table(REJECTS).parts())
    digests = [np.array([_digest(Refusal(*row)) for row in part.iter_rows()], dtype=np.int64) for part in parts]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *digests]))


def _digest(refusal: Refusal) -> int:
    return number_of_text("\x00".join("" if part is None else str(part) for part in refusal.known_by))
