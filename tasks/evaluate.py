"""Evaluate: where the held-out items rank, for every trained model and for baselines, in the same way.

Each model is one commit of rows in `metrics`; the ranks behind them, one a test user, stay in the work folder, so that
models can be compared user by user. What is measured and how: docs/evaluation.md.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from dmesr_model.sequences import Sequences, leave_one_out
from storage.approximate_index import IndexConfig
from storage.digests import digest_of
from storage.schemas import METRICS, TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluation.kept import evaluation_folder, keep_evaluation
from tasks.evaluation.measures import Measured, TestSet, measure, metric_rows
from tasks.evaluation.scorers import Baseline, UnreadableModelError, content_scorer, model_scorer, popularity_scorer
from tasks.features import READS, Dataset, DatasetKeys, open_features
from tasks.serving import serving_model
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate
from tasks.train import TrainStageConfig, model_refs
from tasks.trained_models import ModelRef

logger = logging.getLogger(__name__)

_MEASURES = 3  # raise it when the same ranks, slices or metrics come to be computed otherwise
_BASELINE_SEED = 0
_TESTED_K = 10


class EvaluateConfig(BaseModel):
    """What is measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (5, 10, 20), description=f"list lengths of HR, NDCG and MRR; {_TESTED_K}, by which models are judged, is added"
    )
    negatives: int = Field(
        100, ge=0, description="unseen items beside the target in the sampled protocol; 0 leaves the protocol out"
    )
    negatives_seed: int = Field(0, ge=0, description="decides them; the same for every model")
    head_share: float = Field(
        0.2, gt=0, lt=1, description="share of items (users), by training events, that is head; the rest is tail"
    )
    history_edges: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (5, 10, 20, 50),
        description="upper bounds of the slices by length of the training history, in events, ascending",
    )
    baselines: tuple[Baseline, ...] = Field(
        ("popularity", "content"),
        description="popularity: training events of an item; content: likeness to the mean of the history's texts",
    )
    index: IndexConfig = Field(
        IndexConfig(), description="how items are searched; an approximate index's recall stands beside the metrics"
    )

    @field_validator("ks")
    @classmethod
    def _with_the_tested(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({*ks, _TESTED_K}))

    @field_validator("history_edges")
    @classmethod
    def _ascending(cls, edges: tuple[int, ...]) -> tuple[int, ...]:
        if list(edges) != (ascending := sorted(set(edges))):
            raise ValueError(f"a slice begins where the one before it ends; give the bounds as {ascending}")
        return edges

    @field_validator("baselines")
    @classmethod
    def _each_once(cls, baselines: tuple[Baseline, ...]) -> tuple[Baseline, ...]:
        if len(set(baselines)) < len(baselines):
            raise ValueError("one stands there twice, and would be measured twice; name each once")
        return baselines


@dataclass(frozen=True)
class Candidate:
    """A model, or a baseline where `model` is None, to be evaluated."""

    variant: str
    seed: int
    key: str
    model: ModelRef | None


def candidates(
    config: EvaluateConfig, train: TrainStageConfig, keys: DatasetKeys, work_folder: Path
) -> Iterator[Candidate]:
    """Yield what `config` asks for: the models in their order, then the baselines."""
    for model in model_refs(train, keys, work_folder):
        yield candidate_of(config, model, keys)
    for baseline in config.baselines:
        key = digest_of({**_settings(config), "baseline": baseline, "data": keys.data})
        yield Candidate(baseline, _BASELINE_SEED, key, None)


def candidate_of(config: EvaluateConfig, model: ModelRef, keys: DatasetKeys) -> Candidate:
    """Return a model to be evaluated on the present data, whatever data it was trained on.

    Its results are fair to it and to others: no model saw the event that it is tested on. A user's test event is the
    last of all. It was the last when an older model was trained, which held it out as its own test event, or it
    came after. (With train.filters.min_sequence_length below 3 there is an exception: a user who had too few
    events to hold one out, and whose log then got earlier events late.)
    """
    decisive = {"model": model.key, "variant": model.variant, "seed": model.seed, "data": keys.data}
    return Candidate(model.variant, model.seed, digest_of({**_settings(config), **decisive}), model)


def _settings(config: EvaluateConfig) -> dict[str, object]:
    return {"measures": _MEASURES, **config.model_dump(mode="json", exclude={"baselines"})}


def ranks_folder(work_folder: Path, candidate: Candidate) -> Path:
    """Return the folder with `full.npy` and `sampled.npy`: ranks int32 [H], in the order of the test users."""
    return evaluation_folder(work_folder, candidate.key)


class EvaluateStage:
    """One unit of work is one model or baseline."""

    name: ClassVar[str] = "evaluate"
    reads: ClassVar[tuple[TableSchema, ...]] = READS
    writes: ClassVar[tuple[TableSchema, ...]] = (METRICS,)
    isolated: ClassVar[bool] = True

    def __init__(
        self,
        config: EvaluateConfig,
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
        wanted = list(self._candidates())
        missing = self._missing(wanted)
        untrained = sum(candidate.model is not None and not candidate.model.is_trained for candidate in missing)
        rate = last_rate(self.store, self.name)
        return Plan(
            stage=self.name,
            unit="models",
            new=len(missing),
            up_to_date=len(wanted) - len(missing),
            seconds=len(missing) / rate if missing and rate else None,
            notes=(f"{untrained} of them to be trained first",) if untrained else (),
            work=pl.DataFrame({"key": [candidate.key for candidate in missing]}, schema={"key": pl.String}),
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        wanted = set(plan.work["key"])
        todo = [candidate for candidate in self._candidates() if candidate.key in wanted]
        for candidate in todo:
            if candidate.model is not None and not candidate.model.is_trained:
                raise StageError(f"{candidate.variant}, seed {candidate.seed}, is not trained: run train first")
        test = self._test_set()
        started = time.monotonic()
        details: dict[str, str | float | int] = {"test users": test.users.count, "items": test.users.item_count}
        for done, candidate in enumerate(todo, start=1):
            name = f"{candidate.variant}/{candidate.seed}"  # twice where the one that serves is judged against
            name = f"{name} {candidate.key[:8]}" if name in details else name
            try:
                details[name] = _in_words(self._evaluate(candidate, test, run_id))
            except UnreadableModelError as error:
                if candidate in self._wanted():
                    raise
                logger.warning("the model that serves is not judged against: %s", error)
                details[name] = "can't be loaded"
            report(Progress(done, len(todo), "models", done / (time.monotonic() - started)))
        return Outcome({"done": len(todo)}, details)

    def _candidates(self) -> Iterator[Candidate]:
        """What the config asks for, and the model that serves where it is another: a new one is judged against it."""
        wanted = self._wanted()
        yield from wanted
        serving = serving_model(self.store, self.dataset.keys, self.work_folder)
        if serving is not None:
            candidate = candidate_of(self.config, serving.model, self.dataset.keys)
            if candidate.key not in {one.key for one in wanted}:
                yield candidate

    def _wanted(self) -> list[Candidate]:
        return list(candidates(self.config, self.train, self.dataset.keys, self.work_folder))

    def present_keys(self) -> set[str]:
        """Return the keys of what is evaluated on the present data."""
        self.dataset = self.dataset.as_it_is_now()
        return {candidate.key for candidate in self._candidates()}

    def _missing(self, wanted: list[Candidate]) -> list[Candidate]:
        """Those without rows in the table, or whose ranks are gone from the work folder."""
        stored = self.store.table(METRICS).scan().select("evaluation_key").unique().collect()
        keys = set(stored["evaluation_key"])
        return [
            candidate
            for candidate in wanted
            if candidate.key not in keys or not ranks_folder(self.work_folder, candidate).exists()
        ]

    def _test_set(self) -> TestSet:
        features, facts = open_features(self.dataset.features_folder())
        split = leave_one_out(Sequences.open(self.dataset.sequences_folder()))
        return TestSet.of(split, features, facts, self.config.head_share, self.config.history_edges)

    def _evaluate(self, candidate: Candidate, test: TestSet, run_id: str) -> Measured:
        """Write ranks first, then the rows that say they are there: a kill in between costs this model's evaluation."""
        started = time.monotonic()
        if candidate.model is not None:
            scorer = model_scorer(candidate.model.checkpoint, test.features, test.split.test.histories)
        elif candidate.variant == "popularity":
            scorer = popularity_scorer(test.train_events_N)
        else:
            scorer = content_scorer(test.features, test.split.test.histories)
        config = self.config
        measured = measure(scorer, test, config.ks, config.negatives, config.negatives_seed, config.index)
        folder = ranks_folder(self.work_folder, candidate)
        keep_evaluation(folder, measured, test, candidate.variant, candidate.seed)
        self._commit(candidate, metric_rows(measured, test, self.config.ks), run_id)
        logger.info("evaluated %s, seed %d, in %.1f s", candidate.variant, candidate.seed, time.monotonic() - started)
        return measured

    def _commit(self, candidate: Candidate, rows: pl.DataFrame, run_id: str) -> None:
        table = self.store.table(METRICS)
        table.upsert(
            rows.with_columns(
                evaluation_key=pl.lit(candidate.key),
                variant=pl.lit(candidate.variant),
                model=pl.lit(None if candidate.model is None else candidate.model.key, dtype=pl.String),
                seed=pl.lit(candidate.seed, dtype=pl.Int64),
                created_at=pl.lit(datetime.now(UTC)),
                run_id=pl.lit(run_id),
            ),
            note=f"{candidate.variant}, seed {candidate.seed}",
        )


def _in_words(measured: Measured) -> str:
    ndcg = measured.mean_ndcg(10)
    return "no test users" if ndcg is None else f"ndcg@10 {ndcg:.4f}"
