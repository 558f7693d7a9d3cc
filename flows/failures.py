"""What the UI shows of a failed run: stage, reason, and what to start next, as an artifact and a log line."""

import logging
import shlex
import textwrap
from pathlib import Path
from typing import Any, cast

from prefect import Flow, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State

from flows.night import StageFailure, for_users, limited
from tasks.pipeline import StageName

logger = logging.getLogger(__name__)


def say_remedy(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Publish the artifact `failure`, so that its history shows, and log its first line. A hook of every flow."""
    stage, reason = _what_failed(state)
    text = remedy_markdown(stage, reason, flow_run.parameters, alone=flow.name == stage)
    logger.error("stage %s failed; what to do stands in the artifact `failure`", stage or "unknown")
    with get_client(sync_client=True) as client:
        client.create_artifact(
            ArtifactCreate(
                key="failure",
                type="markdown",
                description=f"{stage or flow.name} failed",
                data=text,
                flow_run_id=flow_run.id,
            )
        )


def remedy_markdown(stage: str | None, reason: str, parameters: dict[str, Any], alone: bool = False) -> str:
    """Return stage, reason and remedies; without a stage the run ended before or between them.

    A stage that was run `alone` is to be run alone again: those after it may let a model serve that was a trial.
    """
    if stage is None:
        return f"# The run failed\n\n{_as_written(reason)}\n\nStart it again: what was committed stays."
    given = [f"`{name}`" for name in _given_again(stage, alone) if parameters.get(name)]
    nightly = f"- the deployment `nightly/nightly`, with `start_from` set to `{stage}`, for it and those after it;"
    return "\n".join(
        [
            f"# Stage {stage} failed",
            "",
            _as_written(reason),
            "",
            "What was committed stays. When the cause is mended, go on with one of",
            "",
            *([] if alone else [nightly]),
            f"- the deployment `{stage}/{stage}`, for this stage alone;",
            f"- on a command line: `{_command(stage, parameters, alone)}`.",
            *(["", f"In a deployment give the same {' and '.join(given)} as here."] if given else []),
        ]
    )


def _as_written(reason: str) -> str:
    """Return a text as a block of code that none of its lines can end: it may quote a log, and a log an item."""
    return textwrap.indent(reason, "    ", lambda line: True)


def _command(stage: str, parameters: dict[str, Any], alone: bool) -> str:
    """The command that goes on from the stage, or does it alone, with what this run was given."""
    words = ["dmesr", "run", "--config", str(parameters.get("config", "CONFIG"))]
    if "data" in _given_again(stage, alone) and parameters.get("data") is not None:
        words += ["--data", str(parameters["data"])]
    settings = parameters.get("settings")
    if alone:
        items, users = (Path(given) if (given := parameters.get(name)) else None for name in ("items", "users"))
        settings = for_users(
            limited(settings, cast(StageName, stage), items, bool(parameters.get("retry_failed"))), users
        )
    for setting in settings or ():
        words += ["--set", setting]
    words += ["--force"] if alone and parameters.get("force") else []
    return shlex.join([*words, "--only" if alone else "--from", stage])


def _given_again(stage: str, alone: bool) -> tuple[str, ...]:
    """Parameters that the stage needs again: later ones find the delivery in the store."""
    own = ("items", "users", "retry_failed", "force") if alone else ()
    return (*(("data",) if stage == "ingest" else ()), "settings", *own)


def _what_failed(state: State[Any]) -> tuple[str | None, str]:
    error = state.result(raise_on_failure=False)
    if isinstance(error, StageFailure):
        return error.stage_name, str(error).removeprefix(f"stage {error.stage_name} failed: ")
    return None, state.message or str(error)
