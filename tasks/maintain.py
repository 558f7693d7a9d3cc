"""Maintain: what nothing needs any more is deleted, many small files become few. At the end of a night, or by itself.

Every chore can be killed and done again: folders go in one rename, all rows of a key in one commit.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from storage.digests import digest_of
from storage.folders import is_unfinished
from storage.schemas import CREATED_AT, METRICS, RECOMMENDATIONS, TABLES, TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluate import EvaluateConfig, EvaluateStage
from tasks.evaluation.kept import experiments_evaluations
from tasks.features import Dataset
from tasks.recommend import LISTED, RecommendConfig, RecommendStage
from tasks.retention import drop_folder, drop_old_models, drop_unused_data, folders_in, old_models, unused_data
from tasks.serving import decisions, serving_key
from tasks.stage import Outcome, Plan, Progress, ReportProgress
from tasks.train import TrainStageConfig, model_refs
from tasks.trained_models import models_on_disk

logger = logging.getLogger(__name__)

_LARGE_FILE = 32 * 2**20  # bytes; a third of what compaction aims at: those above gain little from it


class MaintainConfig(BaseModel):
    """What is kept, and when the rest goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_night: bool = Field(True, description="maintain at the end of each night; else by `dmesr maintain` alone")
    keep_hours: int = Field(
        168,
        ge=0,
        le=1_000_000,
        description="old versions of the tables, and recommendations that newer ones replaced, stay readable so many "
        "hours: a week to look at what was published; 0 while nothing reads or writes",
    )
    small_files: int = Field(
        64,
        ge=2,
        description="join a table's small files from this many on: a night adds a few to most tables, and rewriting "
        "them each night would cost more than it saves",
    )


@dataclass(frozen=True)
class Chore:
    """Something to delete or join: what in words, how much of it, and how."""

    what: str
    amount: int
    do: Callable[[], int]


class MaintainStage:
    """One unit of work is one chore; one without anything to do is none."""

    name: ClassVar[str] = "maintain"
    reads: ClassVar[tuple[TableSchema, ...]] = TABLES
    writes: ClassVar[tuple[TableSchema, ...]] = ()
    isolated: ClassVar[bool] = False

    def __init__(
        self,
        config: MaintainConfig,
        evaluate: EvaluateConfig,
        recommend: RecommendConfig,
        train: TrainStageConfig,
        describe: DescribeConfig,
        embed: EmbedConfig,
        store: Store,
        work_folder: Path,
    ) -> None:
        self.config = config
        self.evaluate = evaluate
        self.recommend = recommend
        self.train = train
        self.store = store
        self.work_folder = work_folder
        self.dataset = Dataset(store, describe, embed, train.filters, work_folder)
        places = (train, describe, embed, store, work_folder)
        self._evaluations = EvaluateStage(evaluate, *places)
        self._everyones = RecommendStage(recommend.model_copy(update={"users": None}), *places)
        self._listed = RecommendStage(recommend, *places) if recommend.users else None

    @property
    def config_digest(self) -> str:
        parts = (self.config, self.evaluate, self.recommend, self.train)
        return digest_of([part.model_dump(mode="json") for part in parts])

    def plan(self) -> Plan:
        """Work through the chores without doing them. `work` has a row each: what, amount."""
        self.dataset = self.dataset.as_it_is_now()
        chores = [(chore.what, chore.amount) for chore in self._chores()]
        return Plan(
            stage=self.name,
            unit="chores",
            new=len(chores),
            notes=tuple(f"{amount:,} {what}" for what, amount in chores),
            work=pl.DataFrame(chores, schema={"what": pl.String, "amount": pl.Int64}, orient="row"),
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        """Do the chores, at last that of old files, to which the others add."""
        started, done = time.monotonic(), dict[str, int]()
        for number, chore in enumerate(self._chores(), start=1):
            done[chore.what] = chore.do()
            logger.info("%s: %d", chore.what, done[chore.what])
            report(Progress(number, max(number, plan.to_do), "chores", number / (time.monotonic() - started)))
        return Outcome({"done": len(done), **done})

    def _chores(self) -> Iterator[Chore]:
        """Those with something to do; old files are counted when the others are done."""
        first = (*self._folders(), self._metrics(), self._recommendations(), *self._small_files(), self._short_memory())
        yield from (chore for chore in first if chore.amount)
        if (last := self._old_files()).amount:
            yield last

    def _folders(self) -> Iterator[Chore]:
        keys, folder, needed, kept = self.dataset.keys, self.work_folder, self._needed(), self.train.keep_models
        yield Chore("old models", len(old_models(folder, kept, needed)), lambda: drop_old_models(folder, kept, needed))
        unused = len(list(unused_data(folder, keys)))
        yield Chore("folders of old features and sequences", unused, lambda: drop_unused_data(folder, keys))
        old = self._old_ranks()
        yield Chore("folders of old ranks", len(old), lambda: _drop_all(old))

    def _needed(self) -> set[str]:
        used = {model.key for model in model_refs(self.train, self.dataset.keys, self.work_folder)}
        return used | serving_key(self.store)

    def _old_ranks(self) -> list[Path]:
        """Ranks that are not of the present evaluations, and older than `keep_hours`."""
        present = self._evaluations.present_keys()
        oldest = self._oldest_kept().timestamp()
        folders = [path for path in folders_in(self.work_folder / "evaluations") if not is_unfinished(path)]
        return [path for path in folders if path.name not in present and path.stat().st_mtime < oldest]

    def _metrics(self) -> Chore:
        """Evaluations of models that are gone, and of baselines older than every model that is left.

        Experiments keep theirs: their models lie elsewhere.
        """
        gone = set(old_models(self.work_folder, self.train.keep_models, self._needed()))
        left = [model for model in models_on_disk(self.work_folder) if model.folder not in gone]
        since = min((found.training.start for found in left), default=datetime.now(UTC))
        model, key = pl.col("model"), pl.col("evaluation_key")
        of_baseline, of_model = pl.col(CREATED_AT) < since, ~model.is_in([found.key for found in left])
        old = pl.when(model.is_null()).then(of_baseline).otherwise(of_model)
        present = [*self._evaluations.present_keys(), *experiments_evaluations(self.work_folder)]
        rows = self.store.table(METRICS).scan().filter(old & ~key.is_in(present))
        return self._rows_to_delete("rows of old metrics", METRICS, rows)

    def _recommendations(self) -> Chore:
        """Publications that another of their kind, for everyone or for a list of users, replaced `keep_hours` ago.

        None of a kind while recommend has work to do for the present one: what is served then is one of the others.
        """
        key, table = pl.col("recommendation_key"), self.store.table(RECOMMENDATIONS)
        is_listed = key.str.starts_with(LISTED)
        old = [*self._replaced(~is_listed, self._everyones), *self._replaced(is_listed, self._listed)]
        return self._rows_to_delete("rows of old recommendations", RECOMMENDATIONS, table.scan().filter(key.is_in(old)))

    def _replaced(self, of_kind: pl.Expr, present: RecommendStage | None) -> list[str]:
        since = self._served_since(of_kind)
        if since.height < 2 or (present and present.plan().to_do):
            return []
        key, is_old = pl.col("recommendation_key"), pl.col("since").shift(-1) < self._oldest_kept()
        old = since.sort("since").filter(is_old)
        return old.filter(key != (present.present_key() if present else ""))["recommendation_key"].to_list()

    def _served_since(self, of_kind: pl.Expr) -> pl.DataFrame:
        """Return recommendation_key, since: when it was made, or served again by the promotion of its model."""
        since = pl.col(CREATED_AT).min().alias("since")
        rows = self.store.table(RECOMMENDATIONS).scan().filter(of_kind)
        made = rows.group_by("recommendation_key", "model").agg(since).collect()
        promoted = decisions(self.store).filter("promoted").select("model", since=CREATED_AT).sort("since")
        again = promoted.join_asof(made.sort("since"), on="since", by="model", check_sortedness=False)
        both = pl.concat([made, again.select(made.columns).drop_nulls()])
        return both.group_by("recommendation_key").agg(pl.col("since").max())

    def _rows_to_delete(self, what: str, schema: TableSchema, rows: pl.LazyFrame) -> Chore:
        """The chore of deleting all rows that stand under the first key column's values in `rows`."""
        column = schema.key[0]
        counts = rows.group_by(column).len().collect()
        keys, table = sorted(counts[column]), self.store.table(schema)
        return Chore(what, int(counts["len"].sum()), lambda: table.delete_keys(column, keys, note="maintain"))

    def _small_files(self) -> Iterator[Chore]:
        for schema in TABLES:
            table = self.store.table(schema)
            files = table.small_files(_LARGE_FILE)
            if files >= self.config.small_files:
                yield Chore(f"small files of {schema.name} joined", files, _compaction(table.compact, files))

    def _short_memory(self) -> Chore:
        """Logs that forget which files were removed before `keep_hours` are over: these would count as nobody's."""
        hours = self.config.keep_hours
        tables = [table for table in map(self.store.table, TABLES) if not table.remembers(hours)]

        def remember() -> int:
            for table in tables:
                table.remember(hours)
            return len(tables)

        return Chore("tables that are to remember longer", len(tables), remember)

    def _old_files(self) -> Chore:
        """Files that no version of the last `keep_hours` needs."""
        tables, hours = [self.store.table(schema) for schema in TABLES], self.config.keep_hours
        old = sum(len(table.old_files(hours)) for table in tables)
        return Chore("files of old versions", old, lambda: sum(table.vacuum(hours) for table in tables))

    def _oldest_kept(self) -> datetime:
        return datetime.now(UTC) - timedelta(hours=self.config.keep_hours)


def _compaction(compact: Callable[[], None], files: int) -> Callable[[], int]:
    def do() -> int:
        compact()
        return files

    return do


def _drop_all(folders: list[Path]) -> int:
    for folder in folders:
        drop_folder(folder)
    return len(folders)
