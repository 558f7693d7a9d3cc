"""Commands that compare models, and that run experiments: `compare` and `experiment`."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.embedded_server import OUR_LOGGERS
from flows.options import ConfigOption, SetOption, check_writable
from tasks.config import PipelineConfig, load_config

if TYPE_CHECKING:
    from tasks.evaluation.selection import Evaluations


def compare(
    config: ConfigOption,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="What to compare, the first being what the others are tested against. A variant of the config or a "
            "baseline (all its seeds), VARIANT/SEED (one model), or the first characters of the key of a model or of "
            "an evaluation, also of an earlier night. Default: all variants and baselines of the config.",
        ),
    ] = None,
    settings: SetOption = None,
    metric: Annotated[str, typer.Option(help="What the tests and intervals are of: hr, ndcg or mrr @ K.")] = "ndcg@10",
    slices: Annotated[bool, typer.Option("--slices", help="Also by slice.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As Markdown.")] = False,
    everything: Annotated[bool, typer.Option("--list", help="List what can be compared, with keys.")] = False,
) -> None:
    """Compare models: mean ± deviation over seeds, 95 % intervals, paired tests against the first.

    p-values are Holm's. Only evaluations of the same test users, targets and items are compared; others are refused.
    """
    from tasks.evaluation.tables import metric_tables, slice_table

    evaluations = _evaluations(load_config(config, settings or []))
    if everything:
        tables = [evaluations.listing()]
    else:
        results = evaluations.results_of(runs or [], by_slice=slices)
        if not results.variants:
            typer.echo("no metrics yet: run evaluate")
            return
        _check_metric(metric, results.metrics("full", "hr", "ndcg", "mrr"))
        tables = [*metric_tables(results, metric), *([slice_table(results, metric)] if slices else [])]
    typer.echo("\n\n".join(table.markdown() if markdown else table.plain() for table in tables))


def _evaluations(config: PipelineConfig) -> "Evaluations":
    from tasks.evaluate import candidates
    from tasks.evaluation.selection import Evaluations

    keys, folder = config.open_dataset().keys, config.work_folder
    return Evaluations(config.open_store(), folder, list(candidates(config.evaluate, config.train, keys, folder)))


def _check_metric(metric: str, known: list[str]) -> None:
    if metric not in known:
        raise typer.BadParameter(f"{metric} was not evaluated; there are {', '.join(known)}", param_hint="--metric")


def experiment(
    config: Annotated[Path, typer.Option("--config", "-c", help="The experiment's YAML file.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the tables; default: beside the first pipeline's models.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained, and do nothing.")] = False,
) -> None:
    """Train and evaluate a grid of backbones, ablations and seeds; write its table as Markdown and LaTeX.

    What was trained before is not trained again: a run that was stopped goes on where it was when it is started again.
    """
    from flows.progress import ProgressLines
    from storage.folders import write_whole
    from tasks.experiments.config import load_experiment
    from tasks.experiments.grid import Grid
    from tasks.experiments.markup import to_latex, to_markdown
    from tasks.experiments.tables import experiment_table

    wanted = load_experiment(config)
    grids = [Grid.of(wanted, data) for data in wanted.data]
    for grid in grids:
        typer.echo(f"{grid.title}: {grid.plan().sentence()}")
    if plan:
        return
    folder = output or grids[0].folder / "tables" / wanted.name
    check_writable(folder / "table.md")
    logging.basicConfig(format="%(asctime)s %(message)s")
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
    for grid in grids:
        grid.run(ProgressLines(grid.title))
    table = experiment_table(wanted, grids)
    write_whole(folder / "table.md", to_markdown(table))
    write_whole(folder / "table.tex", to_latex(table, wanted.name))
    typer.echo(to_markdown(table))
    typer.echo(f"{folder / 'table.md'}\n{folder / 'table.tex'}")
