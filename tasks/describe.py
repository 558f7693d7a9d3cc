"""Describe: the model's answer for every item and view, from the picture, the item's own text, or both."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage.digests import digest_of
from storage.pictures import PictureStore
from storage.schemas import GENERATION_KEY, GENERATIONS, ITEM_ID, ITEMS, TableSchema
from storage.tables import Store
from tasks.answers import FAILED
from tasks.cluster.config import ClusterConfig
from tasks.describe_rows import AnswerWriter, PlanRow, RequestMaker, rows_of, with_items
from tasks.engines.endpoint import EndpointConfig, EndpointEngine
from tasks.engines.offline import OfflineConfig, OfflineEngine
from tasks.engines.own_process import ProcessEngine
from tasks.engines.protocol import Completion, Engine, Request
from tasks.generation import Generation, run_generations
from tasks.generation_keys import AskedView, wanted_generations
from tasks.item_choice import chosen
from tasks.item_text import TextLimiter, limiter_for
from tasks.model_identity import model_digest, unpinned
from tasks.preparation import Preparation
from tasks.prompt_files import Prompt, load_prompts
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate

logger = logging.getLogger(__name__)

_FEW = 100  # requests before the share of failures means anything
_OURS = ("picture_", "prompt_error")
_SERVER_GONE = re.compile(r"connection|timeout|http_(401|403|429|5\d\d)")
_NOT_THERE = re.compile(r"connection|http_(401|403|502|503|504)")  # whatever is asked; one item can cause the rest
_REPORT_SECONDS = 1.0
_WORTH_AN_ENGINE = 256  # requests below which a further engine is not worth its start


class DescribeConfig(BaseModel):
    """Which model answers which prompts, and how the work is paced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="folder of a vision-language model, a hub id, or the name a server knows it by")
    revision: str | None = Field(
        None, description="commit of a hub id; for a server, any word that names what it serves"
    )
    prompts: tuple[str, ...] = Field(
        ("caption", "summary"), min_length=1, description="one prompt a view: a name in tasks/prompts, or a YAML path"
    )
    engine: Annotated[OfflineConfig | EndpointConfig, Field(discriminator="kind")] = OfflineConfig()
    max_pixels: int = Field(
        1_003_520, ge=784, description="pictures are scaled down to it; 1,280 patches of 28 x 28 px"
    )
    processor: dict[str, Any] = Field({}, description="settings for the model's picture processor, such as min_pixels")
    workers: int = Field(2, ge=1, description="threads that decode and scale pictures ahead of the engine")
    ahead: int = Field(64, ge=1, description="requests made ready beyond what the engine holds; bounds host memory")
    commit_seconds: float = Field(5.0, gt=0, description="answers are committed so often: what a kill can cost")
    max_attempts: int = Field(3, ge=1, description="runs that try an item again after its request failed")
    retry_failed: bool = Field(False, description="try failed requests again even beyond max_attempts")
    items: Path | None = Field(None, description="file of item ids, one a line: ask about these only; None: about all")
    max_restarts: int = Field(
        10, ge=0, description="starts of an engine after its first in a run, before the stage gives up"
    )
    max_failed_share: float = Field(
        0.5, gt=0, le=1, description="above this share of failed requests, after the first 100, the run stops"
    )
    cluster: ClusterConfig | None = Field(None, description="a Ray cluster to work on; None: this machine alone")

    @model_validator(mode="after")
    def _ray_chooses_devices(self) -> "DescribeConfig":
        if self.cluster and isinstance(self.engine, OfflineConfig) and self.engine.devices:
            raise ValueError("engine.devices is for one machine; on a cluster give cluster.gpus, and Ray chooses")
        return self

    @model_validator(mode="after")
    def _server_has_its_own_processor(self) -> "DescribeConfig":
        if self.processor and isinstance(self.engine, EndpointConfig):
            raise ValueError("processor is for a model that runs here; a server is started with its own settings")
        return self


def asked_views(config: DescribeConfig) -> tuple[AskedView, ...]:
    """Return each prompt with the digest of the engine that answers it; picture settings bear on picture views only."""
    engine = _engine_identity(config)
    pictures = {**engine, "max_pixels": config.max_pixels, "processor": config.processor}
    return tuple(
        AskedView(prompt, digest_of(pictures if prompt.needs_picture else engine))
        for prompt in load_prompts(config.prompts)
    )


def _engine_identity(config: DescribeConfig) -> dict[str, object]:
    if isinstance(config.engine, EndpointConfig):
        return {"served": config.model, "revision": config.revision}
    return {"model": model_digest(config.model, config.revision), "dtype": config.engine.dtype}


def _unpinned(config: DescribeConfig) -> tuple[str, ...]:
    is_served = isinstance(config.engine, EndpointConfig)
    return () if is_served else unpinned("describe", config.model, config.revision)


def start_engine(config: DescribeConfig) -> Engine:
    """Start the configured engine, on its device if it has one. Raises StageError if it doesn't start."""
    if isinstance(config.engine, OfflineConfig) and not config.engine.devices:
        return _offline(config, has_pictures(load_prompts(config.prompts)))()
    return start_apart(config, has_pictures(load_prompts(config.prompts)))


def start_apart(config: DescribeConfig, pictures: bool) -> Engine:
    """Start the configured engine in a process of its own (an endpoint is one already). Raises as `start_engine`."""
    engine = config.engine
    if isinstance(engine, EndpointConfig):
        return EndpointEngine(config.model, engine)
    environment = {"CUDA_VISIBLE_DEVICES": ",".join(engine.devices)} if engine.devices else {}
    # Its own watch notices a hanging model first; the longer one here is for the process as a whole.
    return ProcessEngine(_offline(config, pictures), environment, 2 * engine.hang_seconds)


def has_pictures(prompts: Iterable[Prompt]) -> bool:
    return any(prompt.needs_picture for prompt in prompts)


def _offline(config: DescribeConfig, pictures: bool) -> Callable[[], OfflineEngine]:
    assert isinstance(config.engine, OfflineConfig)
    return partial(OfflineEngine, config.model, config.revision, config.processor, config.engine, pictures)


def prepared(
    config: DescribeConfig, views: Mapping[str, AskedView], store: Store, rows: Iterator[PlanRow]
) -> Preparation[PlanRow, Request | Completion]:
    """Return the requests of plan rows, made ready ahead of the engine."""
    maker = RequestMaker(views, _limiter(config), PictureStore(store), config.max_pixels)
    return Preparation(rows, maker, config.workers, config.ahead)


def one_device_each(config: DescribeConfig, requests: int) -> tuple[DescribeConfig, ...]:
    """Return a configuration for each engine that so many requests keep busy."""
    engine = config.engine
    if isinstance(engine, EndpointConfig) or not engine.devices:
        return (config,)
    needed = engine.devices[: max(1, -(-requests // (engine.in_flight or _WORTH_AN_ENGINE)))]
    return tuple(config.model_copy(update={"engine": engine.model_copy(update={"devices": (d,)})}) for d in needed)


class DescribeStage:
    """Asks the model what the store lacks; all views go through one engine."""

    name: ClassVar[str] = "describe"
    reads: ClassVar[tuple[TableSchema, ...]] = (ITEMS,)
    writes: ClassVar[tuple[TableSchema, ...]] = (GENERATIONS,)
    isolated: ClassVar[bool] = True

    def __init__(
        self,
        config: DescribeConfig,
        store: Store,
        work_folder: Path,
        start: Callable[[DescribeConfig], Engine] = start_engine,
    ) -> None:
        """`start` makes the engine."""
        self.config = config
        self.store = store
        self.work_folder = work_folder
        self._start = start

    @property
    def config_digest(self) -> str:
        return digest_of({view.prompt.view: view.key_prefix for view in asked_views(self.config)})

    def plan(self) -> Plan:
        """Compare the answers that the catalog wants with those that the store has, by key.

        `work` has a row an answer: generation_key, item_id (the first that wants it), view, attempts so far, suspect
        (an engine died on it before).
        """
        items = chosen(self.store.table(ITEMS).scan(), self.config.items)
        wanted = wanted_generations(items, asked_views(self.config))
        stored = self.store.table(GENERATIONS).scan()
        rows = _compared(wanted.unique(GENERATION_KEY, keep="first", maintain_order=True), stored)
        is_missing, has_failed = pl.col("status").is_null(), pl.col("status") == FAILED
        may_try = pl.lit(self.config.retry_failed) | (pl.col("attempts") < self.config.max_attempts)
        missing, again = rows.filter(is_missing), rows.filter(has_failed & may_try)
        changed = _asked_before(missing, stored)
        given_up = rows.filter(has_failed & ~may_try).height
        tried = (
            f"{given_up:,} more given up after {self.config.max_attempts} attempts: --retry-failed asks for them again"
        )
        to_do = missing.height + again.height
        rate = last_rate(self.store, self.name)
        return Plan(
            self.name,
            "answers",
            new=missing.height - changed,
            changed=changed,
            failed_before=again.height,
            up_to_date=rows.height - to_do - given_up,
            seconds=to_do / rate if rate else None,
            notes=(*((tried,) if given_up else ()), *_unpinned(self.config)),
            work=pl.concat([missing, again]).drop("status").sort("suspect", "view", maintain_order=True),
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        """Ask for everything in the plan, committing answers as they come."""
        config = self.config
        views: dict[str, AskedView] = {view.prompt.view: view for view in asked_views(config)}
        writer = AnswerWriter(self.store, views, config.model, run_id, config.commit_seconds)
        watch = _Watch(writer, plan.to_do, config.max_failed_share, report)
        try:
            if config.cluster is None:
                self._run_here(plan, views, writer, watch)
            else:
                self._run_on_cluster(config.cluster, plan, views, writer, watch)
        finally:
            writer.commit()
        watch.stop_where_nothing_came_back()
        return Outcome({"done": writer.done, **writer.statuses}, dict(writer.error_kinds))

    def _run_here(self, plan: Plan, views: Mapping[str, AskedView], writer: AnswerWriter, watch: "_Watch") -> None:
        rows = rows_of(writer.noted(frame) for frame in with_items(self.store, plan.work))
        preparation = prepared(self.config, views, self.store, rows)
        try:
            run_generations(self._generations(plan.to_do), preparation, watch.accept)
        finally:
            preparation.close()

    def _run_on_cluster(
        self, cluster: ClusterConfig, plan: Plan, views: Mapping[str, AskedView], writer: AnswerWriter, watch: "_Watch"
    ) -> None:
        from tasks.cluster.describe_worker import DescribeWorker
        from tasks.cluster.workers import results_from_cluster

        make = partial(DescribeWorker, self.config, views, self.store.url, self.store.storage_options)
        shards = (writer.noted(shard) for shard in with_items(self.store, plan.work, cluster.shard))
        for completions in results_from_cluster(cluster, make, shards, GENERATION_KEY):
            watch.accept(completions)

    def _generations(self, requests: int) -> list[Generation]:
        configs = one_device_each(self.config, requests)
        return [Generation(partial(self._start, config), config.max_restarts) for config in configs]


class _Watch:
    """Passes completions to the writer, reports progress, and stops a run in which most requests fail."""

    def __init__(self, writer: AnswerWriter, total: int, max_failed_share: float, report: ReportProgress) -> None:
        self._writer = writer
        self._total = total
        self._max_failed_share = max_failed_share
        self._report = report
        self._start: float | None = None  # when the engine stood ready: its start is not part of the rate
        self._last_report = 0.0
        self._lost_in_a_row = 0

    def accept(self, completions: list[Completion]) -> None:
        self._writer.accept(completions)
        now = time.monotonic()
        self._start = self._start or now
        if now - self._last_report >= _REPORT_SECONDS or self._writer.done == self._total:
            self._last_report = now
            rate = self._writer.done / max(now - self._start, 1e-9)
            self._report(Progress(self._writer.done, self._total, "answers", rate))
        self._stop_where_the_server_is_gone(completions)
        failed = self._writer.statuses[FAILED]
        if failed >= _FEW and failed > self._max_failed_share * self._writer.done:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._writer.error_kinds.most_common(3))
            raise StageError(
                f"{failed} of {self._writer.done} requests failed ({kinds}), more than describe.max_failed_share "
                "allows; their rows in the generations table say why. Remedy the cause, then run with "
                "describe.retry_failed=true"
            )

    def stop_where_nothing_came_back(self) -> None:
        """At the end of a run too small for the limits above: the server took none of the requests that reached it."""
        kinds = self._writer.error_kinds
        own = sum(count for kind, count in kinds.items() if kind.startswith(_OURS))
        theirs = [kind for kind in kinds if not kind.startswith(_OURS)]
        if theirs and self._lost_in_a_row == self._writer.done - own and all(map(_NOT_THERE.fullmatch, theirs)):
            self._say_the_server_is_gone(f"all {self._lost_in_a_row} requests to the server failed")
        if failed := self._writer.statuses[FAILED]:
            logger.warning("%d of %d requests failed: %s", failed, self._writer.done, dict(kinds))

    def _stop_where_the_server_is_gone(self, completions: list[Completion]) -> None:
        """Late in a run the share of failures says nothing of now; so many in a row by the server's fault do."""
        for completion in completions:
            if (completion.error_kind or "").startswith(_OURS):
                continue  # it never reached the server
            is_lost = _SERVER_GONE.fullmatch(completion.error_kind or "") is not None
            self._lost_in_a_row = self._lost_in_a_row + 1 if is_lost else 0
        if self._lost_in_a_row >= _FEW:
            self._say_the_server_is_gone(
                f"the last {self._lost_in_a_row} requests to the server failed one after another"
            )

    def _say_the_server_is_gone(self, what: str) -> NoReturn:
        kinds = ", ".join(kind for kind in self._writer.error_kinds if _SERVER_GONE.fullmatch(kind))
        raise StageError(
            f"{what} ({kinds}); see that the server is up and lets this machine in, then run again with "
            "describe.retry_failed=true"
        )


def _compared(wanted: pl.DataFrame, stored: pl.LazyFrame) -> pl.DataFrame:
    """Return the wanted rows with stored status (null: no row), attempts so far, and whether they killed an engine."""
    found = stored.select(GENERATION_KEY, "status", "attempts", "error_kind")
    rows = wanted.lazy().join(found, on=GENERATION_KEY, how="left", maintain_order="left")
    return rows.select(
        GENERATION_KEY,
        ITEM_ID,
        "view",
        "status",
        pl.col("attempts").fill_null(0),
        pl.col("error_kind").is_in(["engine_died", "engine_hung"]).fill_null(False).alias("suspect"),
    ).collect()


def _asked_before(missing: pl.DataFrame, stored: pl.LazyFrame) -> int:
    """Return how many of the missing answers take the place of an older one of the same item and view."""
    if missing.height == 0:
        return 0
    older = stored.select(ITEM_ID, "view").unique()
    return missing.lazy().join(older, on=[ITEM_ID, "view"], how="semi").select(pl.len()).collect().item()


def _limiter(config: DescribeConfig) -> TextLimiter:
    if isinstance(config.engine, EndpointConfig):
        return TextLimiter(None)
    return limiter_for(config.model, config.revision)
