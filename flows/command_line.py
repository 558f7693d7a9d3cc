"""The command line, `dmesr`. Prefect starts only where a flow runs; planning and looking start nothing."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from flows import experiment_commands, overview, prompt_commands, serving_commands
from flows.embedded_server import ServerError
from flows.flow_runs import plan_and_run_stage, run_nightly, run_one_stage
from flows.night import limited
from flows.options import ConfigOption, DataOption, ForceOption, ItemsOption, SetOption
from storage.folders import whole_folder
from storage.tables import StoreError
from tasks.config import ConfigError, PipelineConfig, load_config, with_data
from tasks.pipeline import StageName, build_stages
from tasks.stage import StageError

SAMPLE_SHOP = Path(__file__).parents[1] / "configs" / "sample_shop.yaml"

app = typer.Typer(
    help="Describe a catalog with a multimodal LLM, embed, train, evaluate, recommend: a nightly pipeline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(prompt_commands.app, name="prompts")
app.command()(experiment_commands.compare)
app.command()(experiment_commands.experiment)
app.command()(serving_commands.recommend)
app.command()(serving_commands.models)
app.command()(serving_commands.promote)
app.command()(serving_commands.maintain)


@app.command()
def demo(settings: SetOption = None) -> None:
    """Run the whole pipeline on the sample shop, and show the metrics."""
    config = _load(SAMPLE_SHOP, settings)
    if config.ingest.folder is not None:
        _deliver_sample_shop(config.ingest.folder.parent)
    run_nightly(SAMPLE_SHOP, settings=settings or [])
    _show_results(config)


@app.command()
def run(
    config: ConfigOption,
    data: DataOption = None,
    settings: SetOption = None,
    only: Annotated[StageName | None, typer.Option("--only", help="Run this stage alone.")] = None,
    start_from: Annotated[StageName, typer.Option("--from", help="Run this stage and those after it.")] = "ingest",
    force: ForceOption = False,
) -> None:
    """Run the pipeline: every stage, from one on, or one alone."""
    if only is not None and start_from != "ingest":
        raise typer.BadParameter("give --only or --from, not both")
    if data is not None and (only or start_from) != "ingest":
        raise typer.BadParameter("--data is read by stage ingest, which --only and --from leave out here")
    if only is not None:
        run_one_stage(only, config, data, settings or [], force)
    else:
        run_nightly(config, data, settings or [], start_from, force)
    _show_results(_load(config, with_data(settings or [], data)))


@app.command()
def ingest(
    config: ConfigOption, data: DataOption = None, settings: SetOption = None, force: ForceOption = False
) -> None:
    """Read a delivery's catalog and events into the store."""
    run_one_stage("ingest", config, data, settings or [], force)


@app.command()
def describe(
    config: ConfigOption,
    settings: SetOption = None,
    items: ItemsOption = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask again what failed before, however often it was tried.")
    ] = False,
    force: ForceOption = False,
) -> None:
    """Ask the model to describe what is new or changed, or whose prompt changed. Says the plan first."""
    plan_and_run_stage("describe", config, limited(settings, "describe", items, retry_failed), force)


@app.command()
def embed(
    config: ConfigOption, settings: SetOption = None, items: ItemsOption = None, force: ForceOption = False
) -> None:
    """Embed every text that has no vector yet. Says the plan first."""
    plan_and_run_stage("embed", config, limited(settings, "embed", items), force)


@app.command()
def train(config: ConfigOption, settings: SetOption = None, force: ForceOption = False) -> None:
    """Train each variant and seed that has no finished model, or whose model the retraining policy replaces.

    With --force every model is trained anew; a forced training that was interrupted goes on.
    """
    run_one_stage("train", config, None, settings or [], force)


@app.command()
def evaluate(config: ConfigOption, settings: SetOption = None, force: ForceOption = False) -> None:
    """Evaluate each model that has no metrics yet."""
    run_one_stage("evaluate", config, None, settings or [], force)
    typer.echo(overview.metrics_table(_load(config, settings)))


@app.command()
def report(config: ConfigOption, settings: SetOption = None, force: ForceOption = False) -> None:
    """Write the report, and say where it is."""
    run_one_stage("report", config, None, settings or [], force)
    typer.echo(overview.report_line(_load(config, settings)))


@app.command()
def plan(config: ConfigOption, data: DataOption = None, settings: SetOption = None) -> None:
    """Say what each stage would do now. Does nothing, and starts nothing."""
    failed = False
    for stage in build_stages(_load(config, with_data(settings or [], data))):
        try:
            typer.echo(stage.plan().sentence())
        except StageError as error:
            typer.secho(f"{stage.name}: {error}", fg="red", err=True)
            failed = True
    typer.echo("(each stage is planned on what the stores hold now, not on what the stages before it would add)")
    if failed:
        raise typer.Exit(1)


@app.command()
def status(config: ConfigOption, settings: SetOption = None) -> None:
    """Show what the stores hold: rows and versions, the last runs, models, disk."""
    typer.echo(overview.status(_load(config, settings)))


@app.command("settings")
def list_settings(
    key: Annotated[str, typer.Argument(help="Those whose key begins so, such as describe.engine.")] = "",
) -> None:
    """List the settings of a config: type, default, meaning."""
    from tasks.settings import all_settings

    found = [setting.text() for setting in all_settings() if setting.key.startswith(key)]
    if not found:
        raise typer.BadParameter(f"no setting's key begins with {key}; dmesr settings lists all")
    typer.echo("\n".join(found))


@app.command()
def show(
    item: Annotated[str, typer.Argument(help="An item_id.")], config: ConfigOption, settings: SetOption = None
) -> None:
    """Show one item: what was delivered, what the model says, how its text is cut."""
    typer.echo(overview.item(_load(config, settings), item))


@app.command()
def rejects(
    config: ConfigOption,
    settings: SetOption = None,
    rows: Annotated[int, typer.Option(min=1, help="How many to show, the newest at the end.")] = 20,
) -> None:
    """Show the rows and pictures refused last: file, row, item, field, reason, remedy."""
    typer.echo(overview.rejects(_load(config, settings), rows))


def main() -> None:
    """Run the command line; errors that people can mend are said without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack characters of texts and tables
    try:
        app()
    except (ConfigError, StageError, StoreError, ServerError) as error:
        _end(str(error))
    except OSError as error:
        if error.filename is None:
            raise  # not a path that someone named
        _end(f"{error.filename}: {error.strerror}. Mend that path or its rights, or name another one")


def _end(said: str) -> NoReturn:
    typer.secho(f"error: {said}", fg="red", err=True)
    raise SystemExit(1)


def _load(config: Path, settings: list[str] | None) -> PipelineConfig:
    return load_config(config, settings or [])


def _deliver_sample_shop(folder: Path) -> None:
    """Draw and simulate the sample shop, unless its deliveries lie there already; the same bytes every time."""
    if folder.exists():
        return
    from sample_shop.delivery import write_deliveries

    typer.echo(f"drawing the sample shop in {folder}")
    with whole_folder(folder) as unfinished:
        write_deliveries(unfinished)


def _show_results(config: PipelineConfig) -> None:
    typer.echo(overview.metrics_table(config))
    typer.echo(overview.report_line(config))


if __name__ == "__main__":
    main()
