"""One pass over a delivery: what it holds against what the store holds, written down or only counted."""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

import polars as pl

from storage.schemas import INTERACTIONS, ITEMS
from storage.tables import Store
from tasks.ingest.catalog import CatalogPass, ItemDraft
from tasks.ingest.comparison import NEW, SAME, STATE, StoredItems, content_digest
from tasks.ingest.config import IngestConfig
from tasks.ingest.delivery import Delivery
from tasks.ingest.events import EventPass, StoredEvents
from tasks.ingest.pictures import PictureIntake, Verdict
from tasks.ingest.refusals import Refusal, RefusalLog
from tasks.stage import Progress, ReportProgress, StageError

_COMMIT_SECONDS = 30.0
_ITEM_COLUMNS = tuple(name for name in ItemDraft._fields if name not in ("source", "row", "picture"))


class Mode(Enum):
    """What a pass does with what it finds."""

    COUNT = "count"
    WRITE = "write"
    WRITE_REFUSALS = "write_refusals"  # the delivery is refused: only why is written


@dataclass
class Findings:
    """What a pass found. `rows` and `refused_rows` are by file; items by state, events as `new` and `known`."""

    items: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    refused_rows: Counter[str] = field(default_factory=Counter)
    new_refusals: int = 0
    refusals: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict)  # by file: `3 broken_json, 1 duplicate_id`
    picture_files: int = 0
    retries: int = 0
    alike: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # see CatalogPass
    absent: Collection[str] = ()  # see CatalogPass

    def refused_files(self, max_share: float) -> list[str]:
        """Return the files of which too many rows were refused."""
        return [name for name, rows in self.rows.items() if self.refused_rows[name] > max_share * rows]


class Intake:
    """A pass over a delivery. `run_id` is None for counting."""

    def __init__(self, delivery: Delivery, config: IngestConfig, store: Store, mode: Mode, run_id: str | None) -> None:
        self._delivery = delivery
        self._config = config
        self._store = store
        self._mode = mode
        self._run_id = run_id
        self._log = RefusalLog(store, [source.name for source in delivery.files])
        self._findings = Findings()
        self._pending: list[pl.DataFrame] = []
        self._committed_at = time.monotonic()

    def take_in(self, report: ReportProgress, total: int = 0) -> Findings:
        """Go through the catalog, then the interactions. Raises StageError where the delivery can't be right."""
        self._progress = _Clock(report, total)
        known_items = self._take_items()
        self._take_events(known_items)
        self._log.write(self._run_id or "")
        findings = self._findings
        findings.new_refusals, findings.refusals = self._log.new, self._log.reasons.total()
        findings.reasons = {name: self._log.summary(name) for name in findings.rows}
        return findings

    # Items

    def _take_items(self) -> set[str]:
        """Return the ids that events may name: items delivered now or ever before."""
        stored = StoredItems(self._store)
        catalog = CatalogPass(self._delivery, self._config)
        pictures = PictureIntake(
            self._store,
            self._config.pictures,
            self._delivery.columns.image,
            {source.name: source.path.parent for source in self._delivery.catalog},
            self._run_id if self._mode is Mode.WRITE else None,
        )
        for drafts, refusals in catalog.batches():
            verdicts, picture_refusals = pictures.resolve(drafts)
            self._refuse(refusals + picture_refusals)
            compared = stored.compare(_frame(drafts, verdicts))
            self._findings.items.update(dict(compared.group_by(STATE).len().iter_rows()))
            self._pending.append(compared.filter(pl.col(STATE) != SAME))
            self._commit_items(pictures, everything=False)
            self._progress.step(len(drafts) + len(refusals))
        self._findings.rows.update(catalog.rows)
        self._findings.refused_rows.update(catalog.refused_rows)
        self._findings.picture_files, self._findings.retries = pictures.paths, pictures.retries
        self._findings.alike = catalog.alike
        if self._delivery.catalog:
            self._findings.absent = catalog.absent
            self._take_out_gone(stored, catalog, pictures)
        catalog.accepted.update(stored.ids)
        return catalog.accepted

    def _commit_items(self, pictures: PictureIntake, everything: bool) -> None:
        rows = sum(frame.height for frame in self._pending)
        due = rows >= self._config.commit_rows or time.monotonic() - self._committed_at > _COMMIT_SECONDS
        if self._mode is not Mode.WRITE:
            self._pending.clear()
        elif due or everything:
            pictures.write()
            self._log.write(self._run_id or "")
            if self._pending:
                self._write_items(pl.concat(self._pending))
            self._pending.clear()
            self._committed_at = time.monotonic()

    def _write_items(self, compared: pl.DataFrame) -> None:
        now = datetime.now(UTC)
        table = self._store.table(ITEMS)
        rows = compared.with_columns(
            active=pl.lit(True),
            first_seen_at=pl.col("first_seen_at").fill_null(now),
            updated_at=pl.lit(now),
            run_id=pl.lit(self._run_id),
        )
        is_new = pl.col(STATE) == NEW
        table.append(rows.filter(is_new).drop(STATE), note="new items")
        table.upsert(rows.filter(~is_new).drop(STATE), note="changed items")

    def _take_out_gone(self, stored: StoredItems, catalog: CatalogPass, pictures: PictureIntake) -> None:
        if self._findings.refused_files(self._config.max_reject_share):
            return  # the delivery is refused as a whole; nothing can be said of what it lacks
        if not catalog.accepted:
            names = ", ".join(str(source.path) for source in self._delivery.catalog)
            raise StageError(
                f"{names}: the catalog has no items; the items in the store stay as they are. Deliver it again"
            )
        gone = stored.gone(catalog.accepted | catalog.refused if catalog.refused else catalog.accepted)
        if len(gone) > self._config.max_gone_share * stored.active:
            raise StageError(
                f"the catalog lacks {len(gone):,} of {stored.active:,} active items, such as {gone[0]!r}: more than "
                f"ingest.max_gone_share ({self._config.max_gone_share:g}). Deliver the whole catalog; or, if they are "
                "really gone, raise the share for this run"
            )
        self._findings.items["gone"] = len(gone)
        self._commit_items(pictures, everything=True)
        if self._mode is Mode.WRITE:
            for rows in stored.rows_of(gone, self._config.commit_rows):
                changes = {"active": False, "updated_at": datetime.now(UTC), "run_id": self._run_id}
                table = self._store.table(ITEMS)
                table.upsert(
                    rows.with_columns(**{name: pl.lit(value) for name, value in changes.items()}), note="gone items"
                )

    # Events

    def _take_events(self, known_items: set[str]) -> None:
        if not self._delivery.interactions:
            return
        stored = StoredEvents(self._store)
        events = EventPass(self._delivery, self._config, known_items)
        for batch, refusals in events.batches():
            self._refuse(refusals)
            new = stored.take_new(batch)
            self._findings.events.update(new=new.height, known=len(batch) - new.height)
            if self._mode is Mode.WRITE:
                self._log.write(self._run_id or "")
                times = {"created_at": pl.lit(datetime.now(UTC)), "run_id": pl.lit(self._run_id)}
                self._store.table(INTERACTIONS).append(new.with_columns(**times), note="new events")
            self._progress.step(len(batch) + len(refusals))
        self._findings.rows.update(events.rows)
        self._findings.refused_rows.update(events.refused_rows)

    def _refuse(self, refusals: list[Refusal]) -> None:
        self._log.add(refusals, keep=self._mode is not Mode.COUNT)
        if self._mode is Mode.WRITE_REFUSALS:
            self._log.write(self._run_id or "")


class _Clock:
    """Reports progress at a rate counted from its making."""

    def __init__(self, report: ReportProgress, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        self._start = time.monotonic()

    def step(self, rows: int) -> None:
        self._done += rows
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._report(Progress(self._done, max(self._total, self._done), "rows", self._done / seconds))


def _frame(drafts: list[ItemDraft], verdicts: list[Verdict]) -> pl.DataFrame:
    """Return drafts with their picture's reference and digest, and the content's digest."""
    rows = [_row(draft, verdict) for draft, verdict in zip(drafts, verdicts, strict=True)]
    columns = (*_ITEM_COLUMNS, "image_reference", "image_digest", "content_digest")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")


def _row(draft: ItemDraft, verdict: Verdict) -> tuple[str | None, ...]:
    image_digest = verdict.image_digest if verdict.reason is None else None
    digest = content_digest(draft.title_digest, draft.description_digest, draft.attributes_digest, image_digest)
    return (*draft[2:9], verdict.image_reference, image_digest, digest)
