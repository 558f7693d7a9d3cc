"""Recommend: the best unseen items for every user with a history, streamed into their table.

The histories are all events, those held out for the evaluation too. Candidates are the active items without those of a
blocklist; new ones that no training saw are placed by their content. The model is the one that serves. Commits hold
whole users, so what is left after a kill is an anti-join on users.
"""

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences, count_events, select_users
from storage.approximate_index import IndexConfig
from storage.digests import digest_of
from storage.folders import is_unfinished, write_whole
from storage.schemas import ITEM_ID, ITEMS, PROMOTIONS, RECOMMENDATIONS, USER_ID, TableSchema
from storage.tables import Store
from tasks.audience import Audience, listed_users
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluation.scorers import Scorer, model_scorer
from tasks.features import READS, Dataset, DatasetKeys, open_features
from tasks.id_files import counted, read_item_ids
from tasks.retention import drop_folder, folders_in
from tasks.serving import serving_model
from tasks.shelf import Shelf, unseen_left
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate
from tasks.train import TrainStageConfig, model_refs
from tasks.trained_models import ModelRef

logger = logging.getLogger(__name__)

_FORMAT = 3  # raise it when the same model and histories come to give other rows
_INDEXES_KEPT = 3  # a server may still read the one before
_ABOUT = "about.json"

LISTED = "listed-"
"""What the keys of publications for a list of users begin with, to tell them from those for everyone."""


class RecommendConfig(BaseModel):
    """What is published, to whom, and from which model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(20, ge=1, description="items a user; fewer where a user has seen nearly everything")
    variant: str | None = Field(
        None, description="the trained variant chosen for service; None: the first in train. `promote` lets it in"
    )
    seed: int | None = Field(None, description="its seed; None: the one with the best validation NDCG@10")
    blocklist: Path | None = Field(
        None, description="file of item ids, one a line, that are never recommended: recalled, out of season, paused"
    )
    users: Path | None = Field(
        None,
        description="file of users to recommend to, one a line; None: everyone with a history. A line is a user_id, or "
        'JSON {"user_id": …, "history": [item_id, …]}, oldest first, also for a user whom the store doesn\'t know',
    )
    index: IndexConfig = Field(
        IndexConfig(), description="how items are searched; an approximate index's recall stands in the summary"
    )
    users_a_commit: int = Field(
        16_384, ge=1, description="users whose items are committed together: what a kill can cost, and memory"
    )


@dataclass(frozen=True)
class Recommending:
    """Which model recommends which items, and the key that the rows for everyone stand under."""

    model: ModelRef
    offered: np.ndarray  # bool [N], in the order of the features
    key: str
    notes: tuple[str, ...] = ()


def chosen_model(config: RecommendConfig, train: TrainStageConfig, keys: DatasetKeys, work_folder: Path) -> ModelRef:
    """Return the model in use that is to serve. Raises StageError where the config names one that isn't in train."""
    variant = config.variant or train.variants[0].name
    models = [model for model in model_refs(train, keys, work_folder) if model.variant == variant]
    models = [model for model in models if config.seed in (None, model.seed)]
    if not models:
        names = ", ".join(variant.name for variant in train.variants)
        raise StageError(
            f"recommend.variant {variant!r} with recommend.seed {config.seed} is not trained here: train has the "
            f"variants {names} and the seeds {list(train.seeds)}"
        )
    return max(models, key=lambda model: (-1.0 if model.validation is None else model.validation, -models.index(model)))


def recommending(
    config: RecommendConfig, train: TrainStageConfig, dataset: Dataset, store: Store, work_folder: Path
) -> Recommending:
    """Return what would be published now to everyone.

    The model is the one promoted last; until one is, the one chosen for service.
    """
    serving = serving_model(store, dataset.keys, work_folder)
    model = serving.model if serving else chosen_model(config, train, dataset.keys, work_folder)
    item_ids = ItemFeatures.open(dataset.features_folder()).item_ids
    offered, notes = _on_offer(store, item_ids, config.blocklist)
    decisive = {
        "format": _FORMAT,
        "model": model.key,
        "features": dataset.keys.features,
        "histories": dataset.keys.histories,
        "items": digest_of([item_ids[row] for row in np.flatnonzero(offered)]),
        "k": config.k,
        "index": config.index.model_dump(exclude={"recall_users"}),
    }
    return Recommending(model, offered, digest_of(decisive), notes)


def audience_of(config: RecommendConfig, dataset: Dataset) -> Audience:
    """Return whom the present publication is for. Raises StageError for a list of users that can't be read."""
    stored = Sequences.open(dataset.histories_folder())
    if config.users is None:
        return Audience(stored)
    return listed_users(config.users, stored, ItemFeatures.open(dataset.features_folder()).item_ids)


def publication_key(what: Recommending, audience: Audience) -> str:
    """Return the key that the present rows of the table stand under: a list of users is a publication of its own."""
    return what.key if audience.key is None else LISTED + digest_of([what.key, audience.key])


def _on_offer(store: Store, item_ids: tuple[str, ...], blocklist: Path | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which items are active and not blocked, bool [N]; and notes: what of the blocklist is unknown, why none is."""
    items = store.table(ITEMS).scan().select(ITEM_ID, "active").collect()
    blocked = _read_blocklist(blocklist) if blocklist else []
    active = items.filter("active")[ITEM_ID]
    rows = pl.Series(item_ids, dtype=pl.String)
    offered = rows.is_in(active.implode()) & ~rows.is_in(pl.Series(blocked, dtype=pl.String).implode())
    notes = []
    if unknown := sorted(set(blocked) - set(items[ITEM_ID])):
        notes.append(counted(unknown, f"ids of {blocklist} are of no item"))
    if not offered.any():
        why = "the store has no active one: ingest a catalog" if active.is_empty() else f"{blocklist} names all of them"
        notes.append(f"no item is on offer: {why}")
    return offered.to_numpy(), tuple(notes)


def _read_blocklist(path: Path) -> list[str]:
    try:
        return list(read_item_ids(path))
    except StageError as error:
        raise StageError(f"recommend.blocklist: {error}; or take the setting out") from error


class RecommendStage:
    """One unit of work is one user."""

    name: ClassVar[str] = "recommend"
    reads: ClassVar[tuple[TableSchema, ...]] = (*READS, PROMOTIONS)
    writes: ClassVar[tuple[TableSchema, ...]] = (RECOMMENDATIONS,)
    isolated: ClassVar[bool] = True

    def __init__(
        self,
        config: RecommendConfig,
        train: TrainStageConfig,
        describe: DescribeConfig,
        embed: EmbedConfig,
        store: Store,
        work_folder: Path,
    ) -> None:
        self.config = config
        self.train = train
        self.store = store
        self.work_folder = work_folder
        self.dataset = Dataset(store, describe, embed, train.filters, work_folder)

    @property
    def config_digest(self) -> str:
        return digest_of([self.config.model_dump(mode="json"), self.train.model_dump(mode="json")])

    def plan(self) -> Plan:
        self.dataset = self.dataset.as_it_is_now()
        what, audience = self._what(), self._audience()
        histories, key = audience.histories, publication_key(what, audience)
        served = self.store.table(RECOMMENDATIONS).scan().filter(pl.col("recommendation_key") == key)
        done = served.select(USER_ID).unique().collect()
        columns = {USER_ID: histories.user_ids, "user": range(histories.user_count)}
        users = pl.DataFrame(columns, schema={USER_ID: pl.String, "user": pl.Int64})
        users = users.filter(unseen_left(histories, what.offered) > 0)
        missing = users.join(done, on=USER_ID, how="anti").sort("user")
        no_index = users.height > 0 and not (self._index_folder(key) / _ABOUT).exists()
        rate = last_rate(self.store, self.name)
        nothing_left = histories.user_count - users.height
        seen_all = (
            (f"{nothing_left:,} users have seen every active item",) if nothing_left and what.offered.any() else ()
        )
        made_again = ("the index for serving is gone, and is made again",) if no_index and done.height else ()
        return Plan(
            stage=self.name,
            unit="users",
            new=missing.height,
            changed=int(no_index and missing.is_empty()),  # a run without users writes the index alone
            up_to_date=users.height - missing.height,
            seconds=missing.height / rate if missing.height and rate else None,
            notes=(*made_again, *seen_all, *what.notes, *audience.notes),
            work=missing.select("user"),
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        what, audience = self._what(), self._audience()
        if not what.model.is_trained:
            raise StageError(f"{what.model.name}, is not trained: run train first")
        features, _ = open_features(self.dataset.features_folder())
        histories = select_users(audience.histories, plan.work["user"].to_numpy())
        scorer = model_scorer(what.model.checkpoint, features, histories)
        events_N = count_events(self._stored_histories(), features.item_count)[1:]
        shelf = Shelf(features, what.offered, scorer.items_ND, events_N, self.config.index)
        key = publication_key(what, audience)
        index = self._save_index(shelf, what.model, key)
        started, rows = time.monotonic(), 0
        for start in range(0, histories.user_count, self.config.users_a_commit):
            users = np.arange(start, min(start + self.config.users_a_commit, histories.user_count))
            blocks = [*shelf.best(scorer, histories, users, self.config.k)]
            rows += self._commit(pl.concat(blocks), what.model, key, run_id)
            done = int(users[-1]) + 1
            report(Progress(done, histories.user_count, "users", done / (time.monotonic() - started)))
        without = int((histories.lengths == 0).sum())
        counts = {"done": histories.user_count, "recommendations": rows, "without a history": without}
        notes = {"said": "; ".join(plan.notes)} if plan.notes else {}
        details = {"model": what.model.name, "checkpoint": what.model.key, "key": key, "index": str(index)}
        return Outcome(counts, {**details, **self._recall(shelf, scorer, histories), **notes})

    def _recall(self, shelf: Shelf, scorer: Scorer, histories: Sequences) -> dict[str, str]:
        """What an approximate index misses, as a detail of the outcome."""
        config = self.config
        if config.index.is_exact:
            return {}
        recall = shelf.recall(scorer, histories, config.k, config.index.recall_users)
        return {name: f"{share:.3f}" for name, share in recall.items()}

    def present_key(self) -> str:
        """Return the key that the rows for the present audience stand under, or would stand under."""
        return publication_key(self._what(), self._audience())

    def published(self) -> pl.DataFrame:
        """Return what is stored for the present audience: user_id, source, and item_id as a list, best first."""
        rows = self.store.table(RECOMMENDATIONS).scan().filter(pl.col("recommendation_key") == self.present_key())
        return rows.sort(USER_ID, "rank").group_by(USER_ID, "source", maintain_order=True).agg(ITEM_ID).collect()

    def _what(self) -> Recommending:
        return recommending(self.config, self.train, self.dataset, self.store, self.work_folder)

    def _audience(self) -> Audience:
        return audience_of(self.config, self.dataset)

    def _stored_histories(self) -> Sequences:
        return Sequences.open(self.dataset.histories_folder())

    def _index_folder(self, key: str) -> Path:
        return self.work_folder / "indexes" / key

    def _save_index(self, shelf: Shelf, model: ModelRef, key: str) -> Path:
        """Save the index for serving, before the first commit, and drop all but the newest few of its kind.

        `about.json`, written last, names the checkpoint whose user vectors it answers; `popular.json` is for users
        without a history. One for a list of users drops none of those for everyone, which servers read.
        """
        folder = self._index_folder(key)
        shelf.index.save(folder, shelf.item_ids)
        write_whole(folder / "popular.json", json.dumps(shelf.popular(self.config.k)[ITEM_ID].to_list()))
        about = {"model": model.key, "variant": model.variant, "seed": model.seed}
        about |= {"checkpoint": str(model.checkpoint), "features": self.dataset.keys.features}
        write_whole(folder / _ABOUT, json.dumps(about, indent=2))
        alike = [path for path in folders_in(folder.parent) if path.name.startswith(LISTED) == key.startswith(LISTED)]
        whole = [path for path in alike if not is_unfinished(path)]
        newest_first = sorted(whole, key=lambda path: -path.stat().st_mtime)
        for old in [path for path in newest_first if path != folder][_INDEXES_KEPT - 1 :]:
            drop_folder(old)
        return folder

    def _commit(self, rows: pl.DataFrame, model: ModelRef, key: str, run_id: str) -> int:
        self.store.table(RECOMMENDATIONS).append(
            rows.with_columns(
                recommendation_key=pl.lit(key),
                model=pl.lit(model.key),
                created_at=pl.lit(datetime.now(UTC)),
                run_id=pl.lit(run_id),
            )
        )
        return rows.height
