"""What every stage is: a name, what it reads and writes, a plan, a run.

A stage is built from its config, the store and the work folder. `plan` says what `run` would do now, without doing it:
an anti-join of what is wanted against what the store holds. `run` works through the plan in bounded memory and commits
as it goes, so that a killed run, started again, plans only what is left.
"""

import dataclasses
import itertools
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import ClassVar, Protocol

import polars as pl
from filelock import FileLock, Timeout

from storage.references import TableRef
from storage.schemas import RUNS, TableSchema
from storage.tables import Store
from tasks.memory import PeakMemory

logger = logging.getLogger(__name__)

_RATED_RUNS = 10

ReportProgress = Callable[["Progress"], None]


class StageError(Exception):
    """A stage that can't go on; the message names the file, row and field meant, where there is one, and the remedy."""


class StageCrash(StageError):
    """A stage's process, or one that it started, ended without saying why: a kill, such as for want of memory."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows (or steps) done of all, the unit's name, and the rate so far in units a second."""

    done: int
    total: int
    unit: str
    rate: float


@dataclass(frozen=True)
class Plan:
    """What a stage would do now.

    `work` holds one row per unit of work, in the stage's own columns; it stays inside the process that made it.
    `seconds` is an estimate by `last_rate`, None where no run tells it.
    """

    stage: str
    unit: str  # what is counted, in the plural: items, texts, users
    new: int = 0
    changed: int = 0
    failed_before: int = 0
    up_to_date: int = 0
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    work: pl.DataFrame = field(default_factory=pl.DataFrame, compare=False, repr=False)

    @property
    def to_do(self) -> int:
        return self.new + self.changed + self.failed_before

    def sentence(self) -> str:
        """Return the plan as one line for people."""
        total = self.to_do + self.up_to_date
        text = (
            f"{self.stage}: {total:,} {self.unit}: {self.new:,} new, {self.changed:,} changed, "
            f"{self.failed_before:,} failed before, {self.up_to_date:,} up to date"
        )
        if self.to_do and self.seconds is not None:
            text += f"; about {self.seconds:,.0f} s"
        return "; ".join((text, *self.notes))


@dataclass(frozen=True)
class Summary:
    """What a stage did. Small and JSON-like: this, and references, are all that stages exchange."""

    stage: str
    run_id: str
    unit: str
    counts: Mapping[str, int]  # what: how many; `done` is the number of units worked through
    seconds: float
    details: Mapping[str, str | float | int] = field(default_factory=dict)
    reads: Mapping[str, TableRef] = field(default_factory=dict)
    writes: Mapping[str, TableRef] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Units a second; 0 where nothing was done."""
        return self.counts.get("done", 0) / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> "Summary":
        values = json.loads(text)
        for side in ("reads", "writes"):
            values[side] = {name: TableRef(**reference) for name, reference in values[side].items()}
        return Summary(**values)


@dataclass(frozen=True)
class Outcome:
    """What a stage's `run` returns: counts by name (`done` among them) and details worth keeping."""

    counts: Mapping[str, int]
    details: Mapping[str, str | float | int] = field(default_factory=dict)


class Stage(Protocol):
    """One step of the DAG. `isolated` stages hold an engine or a GPU and run in a process of their own."""

    name: ClassVar[str]
    reads: ClassVar[tuple[TableSchema, ...]]
    writes: ClassVar[tuple[TableSchema, ...]]
    isolated: ClassVar[bool]
    store: Store
    work_folder: Path

    @property
    def config_digest(self) -> str:
        """Return the digest of every setting that bears on the stage's result."""
        ...

    def plan(self) -> Plan: ...

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome: ...


def run_stage(stage: Stage, report: ReportProgress) -> Summary:
    """Plan a stage, run it, and leave a row in the `runs` table, also where it fails, if the store can be written.

    One run of a stage at a time works on a work folder: a second one stops at once with a StageError.
    """
    with _only_run(stage):
        started_at, start = datetime.now(UTC), time.monotonic()
        run_id = f"{stage.name}-{started_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:6]}"
        reads = stage.store.references(*stage.reads)
        try:
            plan = stage.plan()
            logger.info(plan.sentence())
            with PeakMemory() as peak:
                outcome = stage.run(plan, run_id, report) if plan.to_do else Outcome({"done": 0})
        except BaseException as error:  # panics of Rust libraries too, which are no Exception
            said = f"{type(error).__name__}: {error}"
            try:
                _record(stage, run_id, started_at, time.monotonic() - start, {}, reads, {}, said)
            except Exception:
                # Whatever it is, the store at fault or a setting: what ended the run is what people are to read.
                logger.exception("run %s has no row in the runs table", run_id)
            raise
        seconds = time.monotonic() - start
        counts = {"up_to_date": plan.up_to_date, **outcome.counts}
        writes = stage.store.references(*stage.writes)
        memory = peak.figures() if plan.to_do else {}
        _record(stage, run_id, started_at, seconds, {**counts, **memory}, reads, writes, None)
        return Summary(stage.name, run_id, plan.unit, counts, seconds, outcome.details, reads, writes)


@contextmanager
def _only_run(stage: Stage) -> Iterator[None]:
    stage.work_folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(stage.work_folder / f"{stage.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise StageError(
            f"another run of stage {stage.name} holds {lock.lock_file}; wait for it to end, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _record(
    stage: Stage,
    run_id: str,
    started_at: datetime,
    seconds: float,
    counts: Mapping[str, int],
    reads: Mapping[str, TableRef],
    writes: Mapping[str, TableRef],
    error: str | None,
) -> None:
    row = {
        "run_id": run_id,
        "stage": stage.name,
        "status": "completed" if error is None else "failed",
        "config_digest": stage.config_digest,
        "started_at": started_at,
        "seconds": seconds,
        "counts": json.dumps(dict(counts)),
        "read_versions": json.dumps({name: reference.version for name, reference in reads.items()}),
        "written_versions": json.dumps({name: reference.version for name, reference in writes.items()}),
        "error": error and error.encode("utf-8", "replace").decode(),  # file names may hold bytes that are no UTF-8
    }
    table = stage.store.table(RUNS)
    table.append(pl.DataFrame([row], schema=table.empty().schema))


def last_rate(store: Store, stage_name: str) -> float | None:
    """Return the throughput of the largest of the stage's last ten runs that did something, in units a second.

    A small run, such as one for a few items, is mostly an engine's start: it counts only until there is a larger one.
    """
    runs = store.table(RUNS).scan().filter((pl.col("stage") == stage_name) & (pl.col("status") == "completed"))
    newest = runs.sort("started_at", descending=True).select("counts", "seconds").collect().iter_rows()
    worked = ((json.loads(counts).get("done", 0), seconds) for counts, seconds in newest)
    last = itertools.islice(((done, seconds) for done, seconds in worked if done and seconds > 0), _RATED_RUNS)
    done, seconds = max(last, key=itemgetter(0), default=(0, 0.0))
    return done / seconds if done else None
