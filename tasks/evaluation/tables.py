"""Results as tables for a terminal and as Markdown."""

from tasks.evaluation.measures import FULL, SAMPLED
from tasks.evaluation.results import TESTED_METRIC, Results, Verdict
from tasks.evaluation.slices import ALL
from tasks.text_tables import TextTable

PROTOCOL_NAMES = {FULL: "all items ranked", SAMPLED: "target among sampled negatives"}
SHOWN = ("hr", "ndcg", "mrr")
"""Kinds of metrics that a table of models shows."""
RECALL = "index_recall"


def metrics_text(results: Results) -> str:
    """Return the metrics over all test users as tables for a terminal, best value of each column marked."""
    if not results.variants:
        return "no metrics yet: run evaluate"
    return "\n\n".join(table.plain() for table in metric_tables(results))


def metrics_markdown(results: Results) -> str:
    """Return the same as Markdown."""
    if not results.variants:
        return "No metrics yet."
    return "\n\n".join(table.markdown() for table in metric_tables(results))


def metric_tables(results: Results, metric: str = TESTED_METRIC) -> list[TextTable]:
    """A table for each protocol, and one of the differences."""
    return [*(protocol_table(results, protocol) for protocol in results.protocols), difference_table(results, metric)]


def protocol_table(results: Results, protocol: str) -> TextTable:
    """Contenders × metrics, mean ± deviation over seeds; * is the best of its column."""
    metrics = results.metrics(protocol, *SHOWN)
    best = {metric: best_mean(results, protocol, metric) for metric in metrics}
    recall = results.metrics(protocol, RECALL)[-1:]
    rows = []
    for variant in results.variants:
        cells = [results.cell(variant, protocol, metric) for metric in metrics]
        marks = ["*" if cell.mean == best[metric] else "" for cell, metric in zip(cells, metrics, strict=True)]
        numbers = [cell.text + mark for cell, mark in zip(cells, marks, strict=True)]
        numbers += [results.cell(variant, protocol, metric).value for metric in recall]
        rows.append([_with_seeds(results, variant), *numbers])
    users = max(results.cell(variant, protocol, metrics[0]).users for variant in results.variants)
    title = f"{users:,} test users, {PROTOCOL_NAMES[protocol]}; * is the best of its column"
    return TextTable(title, ["model", *metrics, *recall], rows)


def difference_table(results: Results, metric: str = TESTED_METRIC) -> TextTable:
    """Each contender's interval, and its difference from the first with a paired test."""
    verdicts = results.judge([ALL], metric)
    rows = []
    for variant in results.variants:
        own = [results.cell(variant, FULL, metric).text, _bounds(results, variant, metric, ALL)]
        rows.append([_with_seeds(results, variant), *own, *_difference(verdicts.get((ALL, variant)))])
    first = results.variants[0]
    title = f"{metric}, all items ranked, 95 % intervals over users; paired t-test over users, p after Holm"
    return TextTable(title, ["model", metric, "interval", f"minus {first}", "interval", "p"], rows)


def slice_table(results: Results, metric: str = TESTED_METRIC) -> TextTable:
    """Slices × contenders with intervals; ▲ and ▼ where a paired test tells one from the first beyond luck."""
    verdicts = results.slice_verdicts
    rows = []
    for part in results.slices:
        cells = [results.cell(variant, FULL, metric, part) for variant in results.variants]
        texts = [
            " ".join(filter(None, (cell.value, _bounds(results, variant, metric, part), mark)))
            for variant, cell in zip(results.variants, cells, strict=True)
            for mark in [verdicts[part, variant].mark if (part, variant) in verdicts else ""]
        ]
        rows.append([part, f"{cells[0].users:,}", *texts])
    title = (
        f"{metric} by slice, all items ranked, 95 % intervals over users; "
        f"▲ ▼: ndcg@10 better or worse than {results.variants[0]}, paired t-tests, Holm over the table"
    )
    return TextTable(title, ["slice", "users", *results.variants], rows)


def best_mean(results: Results, protocol: str, metric: str) -> float | None:
    """The highest mean of a column, if it is above 0."""
    means = [results.cell(variant, protocol, metric).mean or 0.0 for variant in results.variants]
    return max(means, default=0.0) or None


def _with_seeds(results: Results, variant: str) -> str:
    seeds = results.seeds(variant)
    return variant if seeds == 1 else f"{variant} ({seeds} seeds)"


def _bounds(results: Results, variant: str, metric: str, part: str) -> str:
    interval = results.interval(variant, metric, part)
    return "" if interval is None else f"[{interval[0]:.4f}, {interval[1]:.4f}]"


def _difference(verdict: Verdict | None) -> list[str]:
    if verdict is None:
        return ["", "", ""]
    found = verdict.comparison
    return [
        f"{found.difference:+.4f}",
        f"[{found.low:+.4f}, {found.high:+.4f}]",
        f"{verdict.p_value:.2g}{verdict.mark}",
    ]
