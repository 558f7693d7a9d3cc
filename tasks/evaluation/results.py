"""Results, ready to be shown: what the metrics table and the kept ranks hold for some models and baselines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl

from storage.schemas import METRICS
from storage.tables import Store
from tasks.evaluate import Candidate, EvaluateConfig, candidates
from tasks.evaluation.kept import KeptEvaluation, find_evaluation
from tasks.evaluation.measures import FULL, PER_USER, SAMPLED
from tasks.evaluation.significance import Comparison, confidence_interval, holm, paired_t_test
from tasks.evaluation.slices import ALL
from tasks.features import DatasetKeys
from tasks.train import TrainStageConfig

TESTED_METRIC = "ndcg@10"
LEVEL = 0.05
FEWEST_TESTED = 30
"""Users that a slice needs for a test: with fewer, the mean of so skewed a metric is far from normal."""


@dataclass(frozen=True)
class Contender:
    """A row of a table: a variant with all its seeds, one model, a baseline; known by its evaluations' keys."""

    name: str
    keys: tuple[str, ...]


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
    """A contender against the reference, on one metric; the p-value is Holm's over all verdicts of the family."""

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


def present_contenders(candidates: Iterable[Candidate]) -> list[Contender]:
    """Return one contender for each variant and baseline, in their order."""
    ordered = groupby(candidates, key=lambda candidate: candidate.variant)
    return [Contender(variant, tuple(candidate.key for candidate in group)) for variant, group in ordered]


class Results:
    """Of contenders, where they have been evaluated. The first is the reference of all tests."""

    def __init__(self, store: Store, work_folder: Path, contenders: Sequence[Contender]) -> None:
        self._gains: dict[tuple[str, str], np.ndarray | None] = {}
        names = [(contender.name, key) for contender in contenders for key in contender.keys]
        wanted = pl.DataFrame(names, schema={"contender": pl.String, "evaluation_key": pl.String}, orient="row")
        # In the table's order: sums of another order differ in their last digit, and metrics would change places.
        scan = store.table(METRICS).scan()
        rows = scan.join(wanted.lazy(), on="evaluation_key", how="inner", maintain_order="left")
        columns = ("contender", "evaluation_key", "protocol", "slice", "metric", "seed", "value", "users")
        self.rows = rows.select(columns).collect()
        found = set(self.rows["contender"])
        self._kept = {
            contender.name: _kept_evaluations(work_folder, contender)
            for contender in contenders
            if contender.name in found
        }

    @classmethod
    def present(
        cls, store: Store, config: EvaluateConfig, train: TrainStageConfig, keys: DatasetKeys, work_folder: Path
    ) -> "Results":
        """Of the models and baselines that the configs name, on the present data; of no other model."""
        return cls(store, work_folder, present_contenders(candidates(config, train, keys, work_folder)))

    @property
    def variants(self) -> list[str]:
        """Names of those that have results, in their order."""
        return list(self._kept)

    @cached_property
    def slices(self) -> list[str]:
        return list(dict.fromkeys(self.rows["slice"]))

    @cached_property
    def protocols(self) -> list[str]:
        return [protocol for protocol in (FULL, SAMPLED) if protocol in set(self.rows["protocol"])]

    @cached_property
    def test_sets(self) -> dict[str, set[str]]:
        """The test sets that each contender was evaluated on: one, the same for all, if they can be compared."""
        return {name: {kept.test_set for kept in self._kept[name]} for name in self.variants}

    def unlike_slices(self, variant: str) -> list[str]:
        """Slices whose test users aren't the same in all evaluations of the variant's and of the first's.

        That is where settings of slices differ, or what decides them: pictures, views, training events.
        """
        masks = [kept.slices for name in (self.variants[0], variant) for kept in self._kept[name]]
        parts = dict.fromkeys(part for one in masks for part in one)
        return [
            part
            for part in parts
            if not all(part in one and np.array_equal(one[part], masks[0][part]) for one in masks)
        ]

    def metrics(self, protocol: str, *kinds: str) -> list[str]:
        """Metrics over all test users, of these kinds (such as hr) if any is named."""
        rows = self.rows.filter((pl.col("protocol") == protocol) & (pl.col("slice") == ALL))
        return [name for name in dict.fromkeys(rows["metric"]) if not kinds or name.partition("@")[0] in kinds]

    def seeds(self, variant: str) -> int:
        return self.rows.filter(pl.col("contender") == variant)["evaluation_key"].n_unique()

    def cell(self, variant: str, protocol: str, metric: str, part: str = ALL) -> Cell:
        return self._cells.get((variant, protocol, part, metric), Cell(None, None, 0))

    @cached_property
    def _cells(self) -> dict[tuple[str, str, str, str], Cell]:
        grouped = self.rows.group_by("contender", "protocol", "slice", "metric").agg(
            pl.col("value").mean().alias("mean"), pl.col("value").std().alias("deviation"), pl.col("users").max()
        )
        return {(row[0], row[1], row[2], row[3]): Cell(row[4], row[5], row[6]) for row in grouped.iter_rows()}

    def user_gains(self, variant: str, metric: str = TESTED_METRIC, part: str = ALL) -> np.ndarray | None:
        """The metric of each test user in the slice under full ranking, averaged over seeds, [H].

        None where the ranks are gone.
        """
        gains = self._all_gains(variant, metric)
        mask = self._kept[variant][0].slices.get(part) if self._kept[variant] else None
        return None if gains is None or mask is None else gains[mask]

    def _all_gains(self, variant: str, metric: str) -> np.ndarray | None:
        if (variant, metric) not in self._gains:
            kind, _, k = metric.partition("@")
            ranks = [kept.ranks(FULL) for kept in self._kept[variant]]
            gains = [PER_USER[kind](one, int(k)) for one in ranks if one is not None]
            self._gains[variant, metric] = np.mean(gains, axis=0) if gains else None
        return self._gains[variant, metric]

    def interval(self, variant: str, metric: str = TESTED_METRIC, part: str = ALL) -> tuple[float, float] | None:
        """95 % over users; None with fewer than two of them."""
        gains = self.user_gains(variant, metric, part)
        return None if gains is None else confidence_interval(gains)

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Every other contender against the first on NDCG@10, by name; Holm over all of them."""
        return {variant: verdict for (_, variant), verdict in self.judge([ALL]).items()}

    @cached_property
    def slice_verdicts(self) -> dict[tuple[str, str], Verdict]:
        """The same in each slice with users enough, by (slice, name); Holm over all slices and contenders."""
        return self.judge([part for part in self.slices if part != ALL], fewest=FEWEST_TESTED)

    def judge(
        self, parts: Sequence[str], metric: str = TESTED_METRIC, fewest: int = 2
    ) -> dict[tuple[str, str], Verdict]:
        """Every other contender against the first in slices of at least `fewest` users, as one family of tests."""
        found = self.differences(parts, metric, fewest)
        adjusted = holm([comparison.p_value for comparison in found.values()])
        return {
            place: Verdict(place[1], comparison, p_value)
            for (place, comparison), p_value in zip(found.items(), adjusted, strict=True)
        }

    def differences(
        self, parts: Sequence[str], metric: str = TESTED_METRIC, fewest: int = 2
    ) -> dict[tuple[str, str], Comparison]:
        """The same, each test on its own, by (slice, name)."""
        found: dict[tuple[str, str], Comparison] = {}
        for part in parts:
            reference = self.user_gains(self.variants[0], metric, part) if self.variants else None
            if reference is None or len(reference) < fewest:
                continue
            for variant in self.variants[1:]:
                gains = self.user_gains(variant, metric, part)
                comparison = None if gains is None else paired_t_test(reference, gains)
                if comparison is not None:
                    found[part, variant] = comparison
        return found


def _kept_evaluations(work_folder: Path, contender: Contender) -> list[KeptEvaluation]:
    found = (find_evaluation(work_folder, key) for key in contender.keys)
    return [evaluation for evaluation in found if evaluation is not None]
