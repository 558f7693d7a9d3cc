"""The present results: what the metrics table and the ranks hold for the present models, ready to be shown."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from dmesr_model.metrics import ndcg_at_k
from storage.schemas import METRICS
from storage.tables import Store
from tasks.evaluate import Candidate, EvaluateConfig, candidates, ranks_folder
from tasks.evaluation.measures import FULL, SAMPLED
from tasks.evaluation.significance import Comparison, confidence_interval, holm, paired_t_test
from tasks.evaluation.slices import ALL
from tasks.features import DatasetKeys
from tasks.train import TrainStageConfig

TESTED_METRIC = "ndcg@10"
LEVEL = 0.05
PROTOCOL_NAMES = {FULL: "all items ranked", SAMPLED: "target among sampled negatives"}


@dataclass(frozen=True)
class Cell:
    """One number of a table: mean over seeds, standard deviation over them (None for one seed)."""

    mean: float | None
    deviation: float | None
    users: int

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.value, self.spread) if part)

    @property
    def value(self) -> str:
        return "–" if self.mean is None else f"{self.mean:.4f}"

    @property
    def spread(self) -> str:
        return "" if self.mean is None or self.deviation is None else f"± {self.deviation:.4f}"


@dataclass(frozen=True)
class Verdict:
    """A variant against the reference, on NDCG@10 over all test users; the p-value is Holm's over all verdicts."""

    variant: str
    comparison: Comparison
    p_value: float

    @property
    def is_significant(self) -> bool:
        return self.p_value < LEVEL

    @property
    def mark(self) -> str:
        """▼ worse than the reference, ▲ better, nothing where it may be luck."""
        if not self.is_significant:
            return ""
        return "▲" if self.comparison.difference > 0 else "▼"


class Results:
    """Of the models and baselines that the configs name, where they have been evaluated."""

    def __init__(
        self, store: Store, config: EvaluateConfig, train: TrainStageConfig, keys: DatasetKeys, work_folder: Path
    ) -> None:
        self._config = config
        self._work_folder = work_folder
        self._candidates = list(candidates(config, train, keys, work_folder))
        wanted = pl.DataFrame({"evaluation_key": [candidate.key for candidate in self._candidates]})
        rows = store.table(METRICS).scan().join(wanted.lazy(), on="evaluation_key", how="semi")
        self.rows = rows.select("variant", "protocol", "slice", "metric", "seed", "value", "users").collect()

    @cached_property
    def variants(self) -> list[str]:
        """Those that have results, in the order of the config; the first is the reference of all tests."""
        found = set(self.rows["variant"])
        names = dict.fromkeys(candidate.variant for candidate in self._candidates)
        return [name for name in names if name in found]

    @cached_property
    def slices(self) -> list[str]:
        return list(dict.fromkeys(self.rows["slice"]))

    @cached_property
    def protocols(self) -> list[str]:
        return [protocol for protocol in (FULL, SAMPLED) if protocol in set(self.rows["protocol"])]

    def metrics(self, protocol: str) -> list[str]:
        rows = self.rows.filter((pl.col("protocol") == protocol) & (pl.col("slice") == ALL))
        return list(dict.fromkeys(rows["metric"]))

    def seeds(self, variant: str) -> int:
        return self.rows.filter(pl.col("variant") == variant)["seed"].n_unique()

    def cell(self, variant: str, protocol: str, metric: str, part: str = ALL) -> Cell:
        rows = self._cells.get((variant, protocol, part, metric))
        return Cell(None, None, 0) if rows is None else rows

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str, str], Cell]:
        grouped = self.rows.group_by("variant", "protocol", "slice", "metric").agg(
            pl.col("value").mean().alias("mean"), pl.col("value").std().alias("deviation"), pl.col("users").max()
        )
        return {(row[0], row[1], row[2], row[3]): Cell(row[4], row[5], row[6]) for row in grouped.iter_rows()}

    def user_gains(self, variant: str, protocol: str = FULL) -> np.ndarray | None:
        """NDCG@10 of each test user, averaged over seeds, [H]; None where the ranks are gone."""
        paths = [self._ranks(candidate, protocol) for candidate in self._candidates if candidate.variant == variant]
        gains = [ndcg_at_k(np.load(path, allow_pickle=False), 10) for path in paths if path.exists()]
        return np.mean(gains, axis=0) if gains else None

    def interval(self, variant: str) -> tuple[float, float] | None:
        gains = self.user_gains(variant)
        return None if gains is None else confidence_interval(gains)

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Every other variant against the first, by name."""
        reference = self.user_gains(self.variants[0]) if self.variants else None
        found = {}
        for variant in self.variants[1:]:
            gains = self.user_gains(variant)
            comparison = None if reference is None or gains is None else paired_t_test(reference, gains)
            if comparison is not None:
                found[variant] = comparison
        adjusted = holm([comparison.p_value for comparison in found.values()])
        return {
            variant: Verdict(variant, comparison, p_value)
            for (variant, comparison), p_value in zip(found.items(), adjusted, strict=True)
        }

    def _ranks(self, candidate: Candidate, protocol: str) -> Path:
        return ranks_folder(self._work_folder, candidate) / f"{protocol}.npy"


def metrics_text(results: Results) -> str:
    """Return the metrics over all test users as a table for a terminal, best value of each column marked."""
    if not results.variants:
        return "no metrics yet: run evaluate"
    parts = [_protocol_text(results, protocol) for protocol in results.protocols]
    return "\n\n".join([*parts, *_verdict_lines(results)])


def metrics_markdown(results: Results) -> str:
    """Return the same as Markdown."""
    if not results.variants:
        return "No metrics yet."
    tables = []
    for protocol in results.protocols:
        header, *rows = _rows(results, protocol)
        lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        tables.append(f"**{_protocol_title(results, protocol)}**\n\n{table}")
    return "\n\n".join([*tables, *_verdict_lines(results)])


def _protocol_text(results: Results, protocol: str) -> str:
    rows = _rows(results, protocol)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    return "\n".join([_protocol_title(results, protocol), lines[0], "-" * len(lines[0]), *lines[1:]])


def _protocol_title(results: Results, protocol: str) -> str:
    users = max(results.cell(variant, protocol, TESTED_METRIC).users for variant in results.variants)
    return f"{users:,} test users, {PROTOCOL_NAMES[protocol]}"


def _rows(results: Results, protocol: str) -> list[list[str]]:
    metrics = [metric for metric in results.metrics(protocol) if metric.split("@")[0] in ("hr", "ndcg", "mrr")]
    best = {
        metric: max((results.cell(v, protocol, metric).mean or 0.0 for v in results.variants), default=0.0)
        for metric in metrics
    }
    rows = [["model", *metrics]]
    for variant in results.variants:
        cells = [results.cell(variant, protocol, metric) for metric in metrics]
        marks = ["*" if cell.mean == best[metric] else "" for cell, metric in zip(cells, metrics, strict=True)]
        seeds = results.seeds(variant)
        name = variant if seeds == 1 else f"{variant} ({seeds} seeds)"
        rows.append([name, *(cell.text + mark for cell, mark in zip(cells, marks, strict=True))])
    return rows


def _verdict_lines(results: Results) -> list[str]:
    lines = [
        f"{verdict.variant} against {results.variants[0]}: ndcg@10 {verdict.comparison.difference:+.4f} "
        f"[{verdict.comparison.low:+.4f}, {verdict.comparison.high:+.4f}], p = {verdict.p_value:.2g}"
        for verdict in results.verdicts.values()
    ]
    if not lines:
        return []
    return ["\n".join(["* best of its column; all items ranked; paired t-test over users, p after Holm:", *lines])]
