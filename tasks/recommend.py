"""Recommend: the best unseen items for every user with a history, streamed into their table.

The histories are all events, those held out for the evaluation too. Candidates are the active items, new ones that no
training saw included: their content places them. Commits hold whole users, so what is left after a kill is an
anti-join on users.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences, select_users
from storage.digests import digest_of
from storage.schemas import ITEM_ID, ITEMS, RECOMMENDATIONS, USER_ID, TableSchema
from storage.tables import Store
from storage.vector_index import NO_ROW, Excluded, VectorIndex
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluation.protocols import seen_rows
from tasks.evaluation.scorers import Scorer, model_scorer
from tasks.features import READS, Dataset, DatasetKeys, open_features
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate
from tasks.train import TrainStageConfig, model_refs
from tasks.trained_models import ModelRef

logger = logging.getLogger(__name__)

_FORMAT = 1  # raise it when the same model and histories come to give other rows
_USERS_PER_BLOCK = 1024
_INDEXES_KEPT = 3  # a server may still read the one before


class RecommendConfig(BaseModel):
    """What is published, and from which model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(20, ge=1, description="items a user; fewer where a user has seen nearly everything")
    variant: str | None = Field(None, description="the trained variant that recommends; None: the first in train")
    seed: int | None = Field(None, description="its seed; None: the one with the best validation NDCG@10")
    users_a_commit: int = Field(
        16_384, ge=1, description="users whose items are committed together: what a kill can cost, and memory"
    )


@dataclass(frozen=True)
class Recommending:
    """Which model recommends which items to whom, and the key that the rows stand under."""

    model: ModelRef
    active: np.ndarray  # bool [N], in the order of the features
    key: str


def chosen_model(config: RecommendConfig, train: TrainStageConfig, keys: DatasetKeys, work_folder: Path) -> ModelRef:
    """Return the model that recommends. Raises StageError where the config names one that isn't in train."""
    variant = config.variant or train.variants[0].name
    models = [model for model in model_refs(train, keys, work_folder) if model.variant == variant]
    models = [model for model in models if config.seed in (None, model.seed)]
    if not models:
        names = ", ".join(variant.name for variant in train.variants)
        raise StageError(
            f"recommend.variant {variant!r} with recommend.seed {config.seed} is not trained here: train has the "
            f"variants {names} and the seeds {list(train.seeds)}"
        )
    return max(models, key=lambda model: (_validation(model), -models.index(model)))


def _validation(model: ModelRef) -> float:
    score = model.summary["validation_ndcg_at_10"] if model.is_trained else None
    return -1.0 if score is None else score


def recommending(
    config: RecommendConfig, train: TrainStageConfig, dataset: Dataset, store: Store, work_folder: Path
) -> Recommending:
    """Return what would be published now; its key is what the present rows of the table stand under."""
    model = chosen_model(config, train, dataset.keys, work_folder)
    items = store.table(ITEMS).scan().filter(pl.col("active")).select(ITEM_ID).collect()
    features = ItemFeatures.open(dataset.features_folder())
    active = pl.Series(features.item_ids, dtype=pl.String).is_in(items[ITEM_ID].implode()).to_numpy()
    ids = digest_of([features.item_ids[row] for row in np.flatnonzero(active)])
    key = digest_of(
        {"format": _FORMAT, "model": model.key, "histories": dataset.keys.histories, "items": ids, "k": config.k}
    )
    return Recommending(model, active, key)


class RecommendStage:
    """One unit of work is one user."""

    name: ClassVar[str] = "recommend"
    reads: ClassVar[tuple[TableSchema, ...]] = READS
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
        what = self._what()
        histories = Sequences.open(self.dataset.histories_folder())
        served = self.store.table(RECOMMENDATIONS).scan().filter(pl.col("recommendation_key") == what.key)
        done = served.select(USER_ID).unique().collect()
        columns = {USER_ID: histories.user_ids, "user": range(histories.user_count)}
        users = pl.DataFrame(columns, schema={USER_ID: pl.String, "user": pl.Int64})
        users = users.filter(_unseen_left(histories, what.active) > 0)
        missing = users.join(done, on=USER_ID, how="anti").sort("user")
        rate = last_rate(self.store, self.name)
        nothing_left = histories.user_count - users.height
        return Plan(
            stage=self.name,
            unit="users",
            new=missing.height,
            up_to_date=users.height - missing.height,
            seconds=missing.height / rate if missing.height and rate else None,
            notes=(f"{nothing_left:,} users have seen every active item",) if nothing_left else (),
            work=missing.select("user"),
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        what = self._what()
        if not what.model.is_trained:
            raise StageError(f"{what.model.variant}, seed {what.model.seed}, is not trained: run train first")
        features, _ = open_features(self.dataset.features_folder())
        histories = select_users(Sequences.open(self.dataset.histories_folder()), plan.work["user"].to_numpy())
        scorer = model_scorer(what.model.checkpoint, features, histories)
        shelf = Shelf(features, what.active, scorer.items_ND)
        index = self._save_index(shelf, what.key)
        started, rows = time.monotonic(), 0
        for start in range(0, histories.user_count, self.config.users_a_commit):
            users = np.arange(start, min(start + self.config.users_a_commit, histories.user_count))
            blocks = [*shelf.best(scorer, histories, users, self.config.k)]
            rows += self._commit(pl.concat(blocks), what.key, run_id)
            done = int(users[-1]) + 1
            report(Progress(done, histories.user_count, "users", done / (time.monotonic() - started)))
        model = f"{what.model.variant}, seed {what.model.seed}"
        counts = {"done": histories.user_count, "recommendations": rows}
        return Outcome(counts, {"model": model, "key": what.key, "index": str(index)})

    def _what(self) -> Recommending:
        return recommending(self.config, self.train, self.dataset, self.store, self.work_folder)

    def _save_index(self, shelf: "Shelf", key: str) -> Path:
        """Save the index for serving, before the first commit, and drop all but the newest few."""
        folder = self.work_folder / "indexes" / key
        shelf.index.save(folder, shelf.item_ids)
        newest_first = sorted(folder.parent.iterdir(), key=lambda path: -path.stat().st_mtime)
        for old in [path for path in newest_first if path != folder][_INDEXES_KEPT - 1 :]:
            shutil.rmtree(old)
        return folder

    def _commit(self, rows: pl.DataFrame, key: str, run_id: str) -> int:
        self.store.table(RECOMMENDATIONS).append(
            rows.with_columns(
                recommendation_key=pl.lit(key), created_at=pl.lit(datetime.now(UTC)), run_id=pl.lit(run_id)
            )
        )
        return rows.height


class Shelf:
    """The active items, ready to be searched."""

    def __init__(self, features: ItemFeatures, active: np.ndarray, items_ND: np.ndarray) -> None:
        rows = np.flatnonzero(active)
        self.item_ids = [features.item_ids[row] for row in rows]
        self.index = VectorIndex(items_ND[rows])
        self._place_of_row = np.full(len(active), NO_ROW, dtype=np.int64)
        self._place_of_row[rows] = np.arange(len(rows))

    def best(self, scorer: Scorer, histories: Sequences, users: np.ndarray, k: int) -> Iterator[pl.DataFrame]:
        """Yield user_id, rank, item_id, score of the k best unseen items of these users, a block of users at a time."""
        for start in range(0, len(users), _USERS_PER_BLOCK):
            users_B = users[start : start + _USERS_PER_BLOCK]
            seen = self._on_shelf(seen_rows(select_users(histories, users_B)))
            scores_BK, places_BK = self.index.search_without(scorer.users(users_B), k, seen)
            user_F, rank_F = np.nonzero(places_BK != NO_ROW)
            ids, names = pl.Series(self.item_ids, dtype=pl.String), [histories.user_ids[user] for user in users_B]
            yield pl.DataFrame(
                {
                    USER_ID: pl.Series(names, dtype=pl.String).gather(user_F),
                    "rank": rank_F + 1,
                    ITEM_ID: ids.gather(places_BK[user_F, rank_F]),
                    "score": scores_BK[user_F, rank_F],
                }
            )

    def _on_shelf(self, seen: Excluded) -> Excluded:
        """Rows of items as places on the shelf, without those that are not on it."""
        places = self._place_of_row[seen.rows]
        kept = places != NO_ROW
        kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return Excluded(kept_before[seen.offsets], places[kept])


def _unseen_left(histories: Sequences, active: np.ndarray) -> pl.Series:
    """How many active items each user has not seen."""
    seen = seen_rows(histories)
    kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(active[seen.rows])])
    return pl.Series(int(active.sum()) - np.diff(kept_before[seen.offsets]))
