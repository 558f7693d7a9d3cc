"""The report's sections on accuracy: the headline, tables of models, slices, training curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tasks.evaluation.measures import FULL, LIST_LENGTH, SAMPLED
from tasks.evaluation.results import FEWEST_TESTED, TESTED_METRIC, Results
from tasks.evaluation.slices import ALL
from tasks.evaluation.tables import RECALL, SHOWN
from tasks.report.figures import Bar, Line, bar_chart, line_chart
from tasks.report.sources import Sources

PLAIN_SLICES = {
    "all": "All test users",
    "items_head": "Target is a head item",
    "items_tail": "Target is a tail item",
    "items_cold": "Target has no event in training",
    "items_no_picture": "Target has no picture",
    "items_failed_view": "An answer on the target failed",
    "items_missing_view": "Target lacks a view",
    "users_head": "Head user",
    "users_tail": "Tail user",
}


@dataclass(frozen=True)
class TableCell:
    """A number as text; `best` is the highest of those it is compared with; `spread` stands smaller below it."""

    text: str
    best: bool = False
    mark: str = ""
    spread: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header; the first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[tuple[str, Sequence[TableCell]]]


def headline(results: Results, saw_test_events: Sequence[str] = ()) -> list[str]:
    """One sentence on the first variant, and one on it against each other, where tests say so.

    Before them one that names the variants trained on the test events, too.
    """
    if not results.variants or results.cell(results.variants[0], FULL, TESTED_METRIC).mean is None:
        return ["No model has been evaluated yet."]
    unfair = [name for name in saw_test_events if name in results.variants]
    warning = (
        f"{' and '.join(unfair)} trained on the test events, too (train.train.split): what is measured of it says "
        "nothing of new events, and no comparison with it holds."
    )
    first = results.variants[0]
    cell, interval = results.cell(first, FULL, TESTED_METRIC), results.interval(first)
    reach = f" (95 % interval {interval[0]:.4f} to {interval[1]:.4f})" if interval else ""
    hits = results.cell(first, FULL, "hr@10").mean
    share = f"; it puts that item among its first ten for {hits:.1%} of them" if hits is not None else ""
    lines = [
        f"{first} ranks the item that a user chose next with an NDCG@10 of {cell.mean:.4f}{reach}, "
        f"among all items, over {cell.users:,} test users{share}."
    ]
    return (
        ([warning] if unfair else []) + lines + [_against(results, first, variant) for variant in results.variants[1:]]
    )


def _against(results: Results, first: str, variant: str) -> str:
    mean, other = results.cell(first, FULL, TESTED_METRIC).mean, results.cell(variant, FULL, TESTED_METRIC).mean
    if mean is None or other is None:
        return f"{variant} has no value to compare with."
    verdict = results.verdicts.get(variant)
    change = f"{mean / other - 1:+.1%}" if other > 0 else f"{mean - other:+.4f}"
    if verdict is None or not verdict.is_significant:
        return f"Against {variant} ({other:.4f}) the difference, {change}, may be luck."
    return f"Against {variant} ({other:.4f}) that is {change} (p = {verdict.p_value:.2g})."


def model_table(results: Results, protocol: str) -> Table:
    """Variants × metrics over all test users."""
    metrics, recall = results.metrics(protocol, *SHOWN), results.metrics(protocol, RECALL)[-1:]
    rows = [
        (variant, [_metric_cell(results, variant, protocol, metric) for metric in [*metrics, *recall]])
        for variant in results.variants
    ]
    captions = {
        FULL: "Among all items, those the user had before left out",
        SAMPLED: "The chosen item among sampled unseen ones",
    }
    return Table(captions[protocol], ["Model", *(metric.upper() for metric in metrics), *_recall_header(recall)], rows)


def _recall_header(recall: Sequence[str]) -> list[str]:
    """What an approximate index found of the exact lists; nothing where the search was exact."""
    return [f"Recall@{metric.partition('@')[2]} of the index" for metric in recall]


def beyond_table(results: Results) -> Table:
    """Coverage, diversity and novelty."""
    names = {
        f"coverage@{LIST_LENGTH}": "Share of items shown to anyone",
        f"diversity@{LIST_LENGTH}": "Diversity within a list",
        f"novelty@{LIST_LENGTH}": "Novelty, bits",
    }
    rows = [
        (
            variant,
            [
                TableCell("–" if cell.mean is None else f"{cell.mean:.3f}")
                for cell in (results.cell(variant, FULL, metric) for metric in names)
            ],
        )
        for variant in results.variants
    ]
    return Table(f"What the first {LIST_LENGTH} items look like", ["Model", *names.values()], rows)


def slice_table(results: Results) -> Table:
    """Slices × variants, NDCG@10 under full ranking."""
    rows = []
    for part in results.slices:
        users = results.cell(results.variants[0], FULL, TESTED_METRIC, part).users
        numbers = [_slice_cell(results, variant, part) for variant in results.variants]
        rows.append((plain_slice(part), [TableCell(f"{users:,}"), *numbers]))
    return Table(
        f"{TESTED_METRIC.upper()} among all items, with 95 % intervals over users",
        ["Slice", "Users", *results.variants],
        rows,
    )


def _slice_cell(results: Results, variant: str, part: str) -> TableCell:
    """The mean with its interval over users below it, and the mark of a paired test where users suffice."""
    cell, interval = results.cell(variant, FULL, TESTED_METRIC, part), results.interval(variant, TESTED_METRIC, part)
    verdict = results.verdicts.get(variant) if part == ALL else results.slice_verdicts.get((part, variant))
    return TableCell(
        cell.value,
        cell.users >= FEWEST_TESTED and _is_best(results, variant, FULL, TESTED_METRIC, part),
        "" if verdict is None else verdict.mark,
        "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}",
    )


def plain_slice(name: str) -> str:
    """Return a slice's name for people."""
    if name in PLAIN_SLICES:
        return PLAIN_SLICES[name]
    low, _, high = name.removeprefix("history_").partition("_")
    if low == "over":
        return f"History of more than {high} events"
    return f"History of {low} to {high} events" if low != high else f"History of {low} events"


def accuracy_chart(results: Results) -> Markup:
    """NDCG@10 of every variant with its 95 % interval over users."""
    cells = [(variant, results.cell(variant, FULL, TESTED_METRIC)) for variant in results.variants]
    bars = [
        Bar(variant, cell.mean, results.interval(variant), place)
        for place, (variant, cell) in enumerate(cells)
        if cell.mean is not None
    ]
    said = ", ".join(f"{bar.name} {bar.value:.4f}" for bar in bars)
    return bar_chart(bars, f"NDCG@10 among all items: {said}")


def training_curves(sources: Sources) -> dict[str, Any] | None:
    """Loss and validation NDCG@10 by epoch, the models as a table, and a legend."""
    if not sources.models:
        return None
    variants = list(dict.fromkeys(model.variant for model in sources.models))
    records = [(model, model.epochs) for model in sources.models]

    def lines(field: str) -> list[Line]:
        return [
            Line(points, variants.index(model.variant))
            for model, epochs in records
            if (points := tuple((record["epoch"] + 1, record[field]) for record in epochs if record[field] is not None))
        ]

    return {
        "validation": line_chart(lines("validation_ndcg_at_10"), "epoch", "NDCG@10", "Validation NDCG@10 by epoch"),
        "loss": line_chart(lines("loss"), "epoch", "nats", "Training loss by epoch"),
        "legend": list(enumerate(variants)),
        "models": Table(
            "Trained models",
            ["Model", "Seed", "Epochs", "Best epoch", "Ended by", "Validation NDCG@10", "Parameters", "Seconds"],
            [(model.variant, _training_cells(model.seed, model.summary)) for model in sources.models],
        ),
    }


def _training_cells(seed: int, summary: dict[str, Any]) -> list[TableCell]:
    validation = summary["validation_ndcg_at_10"]
    return [
        TableCell(str(seed)),
        TableCell(str(summary["epochs"])),
        TableCell(str(summary["best_epoch"] + 1)),
        TableCell("patience" if summary["stopped_early"] else "max_epochs"),
        TableCell("–" if validation is None else f"{validation:.4f}"),
        TableCell(f"{summary['parameters']:,}"),
        TableCell(f"{summary['seconds']:.0f}"),
    ]


def _metric_cell(results: Results, variant: str, protocol: str, metric: str) -> TableCell:
    cell = results.cell(variant, protocol, metric)
    mark = _mark(results, variant) if (metric, protocol) == (TESTED_METRIC, FULL) else ""
    return TableCell(cell.value, _is_best(results, variant, protocol, metric, ALL), mark, cell.spread)


def _is_best(results: Results, variant: str, protocol: str, metric: str, part: str) -> bool:
    values = [results.cell(name, protocol, metric, part).mean for name in results.variants]
    found = [value for value in values if value is not None]
    mine = results.cell(variant, protocol, metric, part).mean
    return mine is not None and len(found) > 1 and mine == max(found) and mine > 0


def _mark(results: Results, variant: str) -> str:
    verdict = results.verdicts.get(variant)
    return "" if verdict is None else verdict.mark
