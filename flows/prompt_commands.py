"""`dmesr prompts`: the prompts there are, and two of them side by side before a catalog is paid for."""

from pathlib import Path
from typing import Annotated

import typer
from click.core import ParameterSource

from flows import overview
from flows.options import ConfigOption, SetOption, check_writable
from storage.digests import digest_of
from storage.pictures import PictureStore
from tasks.config import PipelineConfig, load_config
from tasks.describe import DescribeConfig, DescribeStage
from tasks.isolated import run_isolated
from tasks.prompt_comparison import Comparison, compare_prompts, prompt_in_use
from tasks.prompt_page import comparison_page
from tasks.stage import Progress
from tasks.work_lock import only_run

app = typer.Typer(help="The prompts: what there is, and two of them side by side.")


@app.callback(invoke_without_command=True)
def prompts(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="DMESR_CONFIG", help="The pipeline's YAML file.")
    ] = None,
    settings: SetOption = None,
) -> None:
    """Show the prompts, the digest that names each, and how many stored answers each has."""
    if context.invoked_subcommand is not None:
        if settings or context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
            raise typer.BadParameter(f"give --config and --set after {context.invoked_subcommand}, whose they are")
        return
    if config is None:
        raise typer.BadParameter("give the pipeline's YAML file", param_hint="--config")
    typer.echo(overview.prompts(load_config(config, settings or [])))


@app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A prompt: a YAML file, or a name. Alone: the new one.")],
    config: ConfigOption,
    second: Annotated[str | None, typer.Argument(help="The new prompt; without it, FIRST beside the config's.")] = None,
    settings: SetOption = None,
    items: Annotated[int, typer.Option(min=1, help="How many items to compare on.")] = 20,
    seed: Annotated[int, typer.Option(help="Draws the sample: the same seed, the same items.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Where to write the page; by default under the work folder.")] = None,
) -> None:
    """Compare two prompts on a sample of items: picture, old and new answer side by side, as a page.

    Answers that the store lacks are asked for and stored. Opens nothing; says where the page is.
    """
    pipeline = load_config(config, settings or [])
    if out is not None:
        check_writable(out)
    old, new = (prompt_in_use(pipeline.describe, first), first) if second is None else (first, second)

    def describe(trial: DescribeConfig) -> None:
        _describe(pipeline, trial)

    store = pipeline.open_store()
    comparison = compare_prompts(store, pipeline.describe, (old, new), items, seed, pipeline.work_folder, describe)
    path = out or pipeline.work_folder / "prompts" / _page_name(comparison)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(comparison_page(comparison, PictureStore(store)), encoding="utf-8")
    differ = sum(row.old != row.new for row in comparison.rows)
    typer.echo(f"{differ} of {len(comparison.rows)} answers differ: {path.absolute()}")


def _describe(pipeline: PipelineConfig, trial: DescribeConfig) -> None:
    """Say what a trial of one prompt would ask, and ask it in a process of its own if there is anything.

    Raises StageError where another run holds the work folder.
    """
    plan = DescribeStage(trial, pipeline.open_store(), pipeline.work_folder).plan()
    typer.echo(f"{trial.prompts[0]}: {plan.sentence()}")
    if plan.to_do:
        with only_run(pipeline.work_folder, "the command prompts diff"):
            run_isolated(pipeline.model_copy(update={"describe": trial}), "describe", _report)


def _report(progress: Progress) -> None:
    if progress.done == progress.total:
        typer.echo(f"  {progress.done:,} {progress.unit}, {progress.rate:,.1f} a second")


def _page_name(comparison: Comparison) -> str:
    old, new = comparison.old, comparison.new
    sample = digest_of([row.item_id for row in comparison.rows])
    return f"{old.view}-{old.name}-{old.digest[:8]}-{new.name}-{new.digest[:8]}-{sample[:8]}.html"
