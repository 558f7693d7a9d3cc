"""What the UI shows of a failed run: stage, reason, and what to start next, as an artifact and a log line."""

import logging
import shlex
from typing import Any

from prefect import Flow, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.objects import FlowRun, State

from flows.night import StageFailure

logger = logging.getLogger(__name__)


def say_remedy(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Publish the artifact `failure`, so that its history shows, and log its first line. A hook of every flow."""
    stage, reason = _what_failed(state)
    text = remedy_markdown(stage, reason, flow_run.parameters)
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


def remedy_markdown(stage: str | None, reason: str, parameters: dict[str, Any]) -> str:
    """Return stage, reason and remedies; without a stage the run ended before or between them."""
    if stage is None:
        return f"# The run failed\n\n```text\n{reason}\n```\n\nStart it again: what was committed stays."
    given = [f"`{name}`" for name in _given_again(stage) if parameters.get(name)]
    return "\n".join(
        [
            f"# Stage {stage} failed",
            "",
            f"```text\n{reason}\n```",
            "",
            "What was committed stays. When the cause is mended, go on with one of",
            "",
            f"- the deployment `nightly/nightly`, with `start_from` set to `{stage}`, for it and those after it;",
            f"- the deployment `{stage}/{stage}`, for this stage alone;",
            f"- on a command line: `{_command(stage, parameters)}`.",
            *(["", f"In a deployment give the same {' and '.join(given)} as here."] if given else []),
        ]
    )


def _command(stage: str, parameters: dict[str, Any]) -> str:
    """The command that goes on from the stage, with what this run was given."""
    words = ["dmesr", "run", "--config", str(parameters.get("config", "CONFIG"))]
    if "data" in _given_again(stage) and parameters.get("data") is not None:
        words += ["--data", str(parameters["data"])]
    for setting in parameters.get("settings") or ():
        words += ["--set", setting]
    return shlex.join([*words, "--from", stage])


def _given_again(stage: str) -> tuple[str, ...]:
    """Parameters that the stage needs again: later ones find the delivery in the store."""
    return ("data", "settings") if stage == "ingest" else ("settings",)


def _what_failed(state: State[Any]) -> tuple[str | None, str]:
    error = state.result(raise_on_failure=False)
    if isinstance(error, StageFailure):
        return error.stage_name, str(error).removeprefix(f"stage {error.stage_name} failed: ")
    return None, state.message or str(error)
