"""Run a flow from the command line: prepare Prefect, and say a failure with its stage, its reason and the remedy."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import typer

from flows.embedded_server import EmbeddedServer, ServerError, prepare_environment, start_server
from flows.night import StageFailure
from tasks.config import load_config, with_data
from tasks.pipeline import StageName, stage_named


def run_nightly(
    config: Path,
    data: Path | None = None,
    settings: list[str] | None = None,
    start_from: StageName = "ingest",
    force: bool = False,
) -> None:
    """Run the nightly flow here. Raises typer.Exit(1), having said why, if a stage fails."""
    server = _prepare(config, data, settings or [])
    from flows.nightly import nightly

    _run(server, lambda: nightly(config, data, settings or [], start_from, force), config, data, settings or [])


def run_one_stage(stage: StageName, config: Path, data: Path | None, settings: list[str], force: bool) -> None:
    """Run one stage's flow here. Raises typer.Exit(1), having said why, if it fails."""
    server = _prepare(config, data, settings)
    from flows.stages import STAGE_FLOWS

    given = {"data": data} if stage == "ingest" else {}
    run = partial(STAGE_FLOWS[stage], config=config, settings=settings, force=force, **given)
    _run(server, run, config, data, settings, alone=True)


def plan_and_run_stage(stage: StageName, config: Path, settings: list[str], force: bool) -> None:
    """Say the stage's plan, then run its flow here, as `run_one_stage` does."""
    typer.echo(stage_named(load_config(config, settings), stage).plan().sentence())
    run_one_stage(stage, config, None, settings, force)


def _prepare(config: Path, data: Path | None, settings: list[str]) -> EmbeddedServer | None:
    """Check the config before anything starts, prepare what Prefect reads when it is imported, and start its server."""
    work_folder = load_config(config, with_data(settings, data)).work_folder
    prepare_environment(work_folder)
    return start_server(work_folder)


def _run(
    server: EmbeddedServer | None,
    run: Callable[[], None],
    config: Path,
    data: Path | None,
    settings: list[str],
    alone: bool = False,
) -> None:
    for handler in logging.getLogger().handlers:
        handler.addFilter(_without_traceback)
    try:
        if server:
            server.wait()
            typer.echo(f"to watch while it runs: {server.url}", err=True)
        run()
    except StageFailure as failure:
        typer.secho(f"\n{failure}", fg="red", err=True)
        origin = load_config(config, with_data(settings, data)).origin
        # Those after a stage run alone might let a model serve that was a trial.
        command = f"dmesr run {origin} {'--only' if alone else '--from'} {failure.stage_name}"
        typer.echo(f"what was committed stays; go on with: {command}", err=True)
        raise typer.Exit(1) from None
    except ServerError as error:
        typer.secho(f"\n{error}", fg="red", err=True)
        raise typer.Exit(1) from None


def _without_traceback(record: logging.LogRecord) -> bool:
    """Prefect logs a failed run with its traceback; the last line of it is what people need."""
    if record.name.startswith("prefect") and record.exc_info:
        record.exc_info, record.exc_text = None, None
    return True
