"""Which evaluations a person means by a name: a variant, one of its seeds, or the key of a model or an evaluation."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from storage.schemas import METRICS
from storage.tables import Store
from tasks.evaluate import Candidate
from tasks.evaluation.kept import KeptEvaluation, experiments_folder, find_evaluation
from tasks.evaluation.measures import FULL
from tasks.evaluation.results import TESTED_METRIC, Contender, Results, present_contenders
from tasks.evaluation.slices import ALL
from tasks.stage import StageError
from tasks.text_tables import TextTable

_FEWEST_CHARACTERS = 6  # of a key, so that no variant's name is taken for one
_KEY_SHOWN = 12


class Evaluations:
    """Everything that the metrics table and the work folder hold, the present candidates first."""

    def __init__(self, store: Store, work_folder: Path, present: Sequence[Candidate]) -> None:
        self._store = store
        self._work_folder = work_folder
        self._present = list(present)
        rows = store.table(METRICS).scan().filter((pl.col("slice") == ALL) & (pl.col("protocol") == FULL))
        columns = ("evaluation_key", "variant", "model", "seed", "metric", "value", "users", "created_at")
        self._rows = rows.select(columns).collect().sort("created_at", descending=True)

    def results_of(self, names: Sequence[str], by_slice: bool = False) -> Results:
        """Return the named contenders' results, or all present ones' where none is named.

        Raises StageError for a name that means nothing, for contenders that were not tested on the same users, and,
        `by_slice`, for those whose slices hold other users.
        """
        contenders = [self._named(name) for name in names] if names else present_contenders(self._present)
        results = Results(self._store, self._work_folder, contenders)
        unknown = [contender.name for contender in contenders if contender.name not in results.variants]
        if names and unknown:
            raise StageError(f"not evaluated yet: {', '.join(unknown)}; run evaluate first")
        _check_comparable(results)
        if by_slice:
            _check_slices(results)
        return results

    def listing(self) -> TextTable:
        """Return every evaluation, the newest first: what can be named."""
        present = {candidate.key for candidate in self._present}
        shown = self._rows.filter(pl.col("metric") == TESTED_METRIC)
        rows = [
            [
                f"{row['variant']}/{row['seed']}",
                (row["model"] or "–")[:_KEY_SHOWN],
                row["evaluation_key"][:_KEY_SHOWN],
                _at(row["created_at"]),
                f"{row['users']:,}",
                "–" if row["value"] is None else f"{row['value']:.4f}",
                "present" if row["evaluation_key"] in present else self._state(row),
            ]
            for row in shown.iter_rows(named=True)
        ]
        header = ["variant/seed", "model", "evaluation", "evaluated (UTC)", "test users", TESTED_METRIC, "state"]
        return TextTable(f"{len(rows):,} evaluations, the newest first", header, rows)

    def _named(self, name: str) -> Contender:
        variant, _, seed = name.partition("/")
        keys = [c.key for c in self._present if c.variant == variant and (not seed or str(c.seed) == seed)]
        if keys:
            return Contender(name, tuple(keys))
        return self._by_key(name)

    def _by_key(self, name: str) -> Contender:
        """The newest kept evaluation whose own key, or whose model's key, begins with `name`."""
        begins = pl.col("evaluation_key").str.starts_with(name) | pl.col("model").str.starts_with(name)
        found = self._rows.filter(begins) if len(name) >= _FEWEST_CHARACTERS else self._rows.clear()
        if found.is_empty():
            known = ", ".join(dict.fromkeys(candidate.variant for candidate in self._present))
            raise StageError(
                f"no variant, model or evaluation is called {name!r}: the config's variants and baselines are {known}; "
                f"keys (at least their first {_FEWEST_CHARACTERS} characters) are listed by dmesr compare --list"
            )
        kept = [row for row in found.iter_rows(named=True) if self._kept(row) is not None]
        if not kept:
            raise StageError(f"the ranks behind evaluation {name} are gone from the work folder; run evaluate again")
        row = kept[0]
        return Contender(f"{row['variant']}/{row['seed']} {name[:_KEY_SHOWN]}", (row["evaluation_key"],))

    def _state(self, row: dict[str, object]) -> str:
        kept = self._kept(row)
        if kept is None:
            return "ranks gone"
        return "experiment" if kept.folder.is_relative_to(experiments_folder(self._work_folder)) else "earlier"

    def _kept(self, row: dict[str, object]) -> KeptEvaluation | None:
        return find_evaluation(self._work_folder, str(row["evaluation_key"]))


def _check_comparable(results: Results) -> None:
    for name, test_sets in results.test_sets.items():
        reference = results.test_sets[results.variants[0]]
        if len(test_sets | reference) > 1:
            raise StageError(
                f"{name} and {results.variants[0]} were not tested on the same users, targets and items: a difference "
                "between them says nothing of the models. Compare evaluations of the same data (dmesr compare --list)"
            )


def _check_slices(results: Results) -> None:
    for name in results.variants[1:]:
        if unlike := results.unlike_slices(name):
            raise StageError(
                f"{name} and {results.variants[0]} don't have the same test users in the slices {', '.join(unlike)}: "
                "one was evaluated with another evaluate.head_share or evaluate.history_edges, or when the store held "
                "other pictures, texts or events. Compare them without --slices, or evaluations of the same data and "
                "settings (dmesr compare --list)"
            )


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"
