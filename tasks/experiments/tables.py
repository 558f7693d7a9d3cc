"""An experiment's results in the form that the literature prints: groups of rows, best and second best, tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.evaluation.measures import FULL, SAMPLED
from tasks.evaluation.results import LEVEL, Cell, Results
from tasks.evaluation.significance import Comparison, holm
from tasks.evaluation.slices import ALL
from tasks.experiments.config import BACKBONE_TITLES, ExperimentConfig
from tasks.experiments.grid import Grid

NO_BACKBONE = "–"
_AMONG = {FULL: "ranked among all items", SAMPLED: "ranked among sampled negatives"}


@dataclass(frozen=True)
class Number:
    """A cell of the table.

    Args:
        place: 1 for the best of its group and column, 2 for the second best, else 0.
        direction: 1 where it is better than the group's first row beyond luck, -1 where it is worse, else 0.
    """

    cell: Cell
    place: int = 0
    direction: int = 0


@dataclass(frozen=True)
class Row:
    title: str
    numbers: Sequence[Number]


@dataclass(frozen=True)
class Group:
    """Rows that are compared with one another: one pipeline's data and one backbone, or the baselines."""

    data: str
    backbone: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class ExperimentTable:
    """All groups under one header.

    Args:
        notes: sentences on what the marks mean and what was measured.
    """

    caption: str
    metrics: Sequence[str]
    groups: Sequence[Group]
    notes: Sequence[str]


def experiment_table(experiment: ExperimentConfig, grids: Sequence[Grid]) -> ExperimentTable:
    """Return what the grids hold now; a cell without a result is empty."""
    found = [(grid, backbone, grid.group(backbone)) for grid in grids for backbone in experiment.backbones]
    directions = _directions(experiment, [results for _, _, results in found])
    groups: list[Group] = []
    for grid in grids:
        for place, (owner, backbone, results) in enumerate(found):
            if owner is grid:
                rows = _rows(experiment, results, directions[place])
                groups.append(Group(grid.title, BACKBONE_TITLES[backbone], rows))
        if experiment.baselines:
            groups.append(Group(grid.title, NO_BACKBONE, _baseline_rows(experiment, grid.baselines())))
    return ExperimentTable(_caption(experiment), experiment.metrics, groups, _notes(experiment, found))


def _rows(experiment: ExperimentConfig, results: Results, directions: Mapping[tuple[str, str], int]) -> list[Row]:
    cells = {
        (model.name, metric): results.cell(model.name, experiment.protocol, metric)
        for model in experiment.models
        for metric in experiment.metrics
    }
    places = {
        metric: _places([cells[model.name, metric].mean for model in experiment.models])
        for metric in experiment.metrics
    }
    return [
        Row(
            model.title or model.name,
            [
                Number(cells[model.name, metric], places[metric][row], directions.get((model.name, metric), 0))
                for metric in experiment.metrics
            ],
        )
        for row, model in enumerate(experiment.models)
    ]


def _baseline_rows(experiment: ExperimentConfig, results: Results) -> list[Row]:
    return [
        Row(name, [Number(results.cell(name, experiment.protocol, metric)) for metric in experiment.metrics])
        for name in experiment.baselines
    ]


def _places(means: Sequence[float | None]) -> list[int]:
    """1 for the highest value, 2 for the next lower one, 0 for the others; ties share a place, one row has none."""
    values = sorted({mean for mean in means if mean is not None}, reverse=True)[:2]
    if sum(mean is not None for mean in means) < 2:
        return [0] * len(means)
    return [values.index(mean) + 1 if mean in values else 0 for mean in means]


def _directions(experiment: ExperimentConfig, groups: Sequence[Results]) -> list[dict[tuple[str, str], int]]:
    """For each group, which (model, metric) differs from the group's first row; Holm over the whole table."""
    compared: list[tuple[int, str, str, Comparison]] = []
    for place, results in enumerate(groups):
        for metric in experiment.metrics if experiment.protocol == FULL else ():
            for (_, name), comparison in results.differences([ALL], metric).items():
                compared.append((place, name, metric, comparison))
    adjusted = holm([comparison.p_value for *_, comparison in compared])
    found: list[dict[tuple[str, str], int]] = [{} for _ in groups]
    for (place, name, metric, comparison), p_value in zip(compared, adjusted, strict=True):
        if p_value < LEVEL:
            found[place][name, metric] = 1 if comparison.difference > 0 else -1
    return found


def _caption(experiment: ExperimentConfig) -> str:
    if experiment.title:
        return experiment.title
    what = "Items held out of training" if experiment.cold_items else "Each user's last event"
    return f"{what}, {_AMONG[experiment.protocol]}."


def _notes(experiment: ExperimentConfig, found: Sequence[tuple[Grid, str, Results]]) -> list[str]:
    first, seeds = experiment.models[0], len(experiment.seeds)
    notes = [f"Mean ± standard deviation over {seeds} seeds." if seeds > 1 else "One seed."]
    if len(experiment.models) > 1:
        notes.append("Bold is the best of a group of rows, underlined the second best.")
    if experiment.protocol == FULL and len(experiment.models) > 1:
        notes.append(
            f"Arrows: better or worse than {first.title or first.name} of the same group (paired t-test over users, "
            f"Holm's correction over the table, {LEVEL:.0%})."
        )
    users = {
        grid.title: results.cell(first.name, experiment.protocol, experiment.metrics[0]).users
        for grid, _, results in found
    }
    data = {
        grid.title: f"{keys.users:,} users, {keys.events:,} events, {keys.items:,} items"
        for grid, _, _ in found
        for keys in [grid.dataset.keys]
    }
    notes.append("Test users: " + ", ".join(f"{title} {count:,}" for title, count in users.items()) + ".")
    notes.append("Data: " + "; ".join(f"{title} {held}" for title, held in data.items()) + ".")
    if experiment.cold_items:
        notes.append(f"{experiment.cold_items.share:.0%} of the items with events are held out.")
    return notes + _recall_notes(experiment, found)


def _recall_notes(experiment: ExperimentConfig, found: Sequence[tuple[Grid, str, Results]]) -> list[str]:
    if experiment.index.is_exact:
        return []
    metric = f"index_recall@{experiment.ks()[-1]}"
    recalls = [results.cell(name, FULL, metric).mean for _, _, results in found for name in results.variants]
    lowest = min((recall for recall in recalls if recall is not None), default=None)
    said = "not measured" if lowest is None else f"{lowest:.4f} or more"
    return [f"Searched approximately ({experiment.index.kind}); recall@{experiment.ks()[-1]} against exact: {said}."]
