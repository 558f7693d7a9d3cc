"""Every stage as a Prefect task: retries, a cache key from our own digests, artifacts.

Rows and vectors stay in the store; tasks hand each other summaries, whose references draw the graph in the UI.
"""

import logging
from typing import Any

from prefect import State, task
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer

from flows.artifacts import publish_findings, publish_plan, publish_summary
from flows.embedded_server import OUR_LOGGERS
from flows.night import Night, StageFailure
from flows.progress import ProgressReporter
from flows.server_set_up import GPU_TAG
from storage.digests import digest_of
from storage.schemas import RUNS
from tasks.config import PipelineConfig
from tasks.ingest.stage import DeliveryRefusedError
from tasks.isolated import run_isolated
from tasks.pipeline import stage_named
from tasks.stage import Plan, Stage, StageCrash, Summary, run_stage
from tasks.train import TrainStage


def ingest_delivery(night: Night) -> Summary | None:
    return _run(night, "ingest")


def describe_items(night: Night, items: Summary | None) -> Summary | None:
    return _run(night, "describe", items)


def embed_texts(night: Night, texts: Summary | None) -> Summary | None:
    return _run(night, "embed", texts)


def train_models(night: Night, vectors: Summary | None) -> Summary | None:
    return _run(night, "train", vectors)


def evaluate_models(night: Night, models: Summary | None) -> Summary | None:
    return _run(night, "evaluate", models)


def promote_model(night: Night, metrics: Summary | None) -> Summary | None:
    return _run(night, "promote", metrics)


def recommend_items(night: Night, serving: Summary | None) -> Summary | None:
    return _run(night, "recommend", serving)


def write_report(night: Night, metrics: Summary | None, lists: Summary | None) -> Summary | None:
    return _run(night, "report", metrics, lists)


def maintain_stores(night: Night, page: Summary | None) -> Summary | None:
    return _run(night, "maintain", page)


def _run(night: Night, stage_name: str, *after: Summary | None) -> Summary | None:
    """Plan a stage and run its task; None where the stage was not chosen.

    Where the plan finds work, the task's cached result is refreshed and not read: the store is the cache. Plans know
    the time, so that a model too old is trained anew whatever the cache holds.
    """
    if stage_name not in night.chosen:
        return None
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)  # Prefect attaches its handlers to them, and leaves the level
    try:
        stage = stage_named(night.config, stage_name)
        if night.force and isinstance(stage, TrainStage):
            stage.order_retraining()
        plan = plan_stage(stage)
        has_work = plan.to_do > 0
        run = run_stage_task.with_options(
            name=stage_name,
            task_run_name=stage_name,
            # Prefect waits for the tag's place before it looks into the cache: what is done is not to wait.
            tags=[stage_name, *([GPU_TAG] if stage.isolated and has_work else [])],
            refresh_cache=night.force or has_work,
        )
        return run(night.config, stage_name, has_work, after)
    except Exception as error:
        raise StageFailure(stage_name, str(error) or type(error).__name__) from error


def plan_stage(stage: Stage) -> Plan:
    """Plan a stage and publish the plan; its tables are made first, so that their ids are in its cache key."""
    for schema in stage.writes:
        stage.store.table(schema).create()
    plan = stage.plan()
    publish_plan(plan)
    return plan


def stage_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    """Return the task's cache key: what decides a stage's result, by our own digests.

    The tables written count by their ids alone, so that a store deleted and made again is another one, while the
    stage's own commits leave its key as it is.
    """
    stage = stage_named(parameters["config"], parameters["stage_name"])
    return f"{stage.name}-{digest_of(_decisive(stage))}"


def _decisive(stage: Stage) -> dict[str, Any]:
    reads = stage.store.references(*stage.reads)
    writes = stage.store.references(*stage.writes)
    return {
        "config": stage.config_digest,
        "reads": {name: [ref.table_id, ref.version] for name, ref in reads.items() if name not in (*writes, RUNS.name)},
        "writes": {name: ref.table_id for name, ref in writes.items()},
        "work_folder": str(stage.work_folder),
    }


def is_worth_retrying(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failed run may do better the next time: a crash may, a stage that says what is wrong won't."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageCrash | ConnectionError | TimeoutError)


@task(
    retries=1,
    retry_delay_seconds=10,
    retry_condition_fn=is_worth_retrying,
    cache_key_fn=stage_key,
    persist_result=True,
    result_serializer=JSONSerializer(),
)
def run_stage_task(
    config: PipelineConfig, stage_name: str, has_work: bool, after: tuple[Summary | None, ...]
) -> Summary:
    """Run one stage, in a process of its own if it will start an engine, and publish its summary."""
    stage, report = stage_named(config, stage_name), ProgressReporter(stage_name)
    isolated = stage.isolated and has_work
    try:
        summary = run_isolated(config, stage_name, report) if isolated else run_stage(stage, report)
    except DeliveryRefusedError as error:
        publish_findings(config, Summary(stage_name, error.run_id, "rows", {}, 0.0))
        raise
    report.finish(summary)
    publish_summary(summary)
    publish_findings(config, summary)
    return summary
