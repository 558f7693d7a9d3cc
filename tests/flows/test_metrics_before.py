"""The artifact `metrics`: the pipeline's evaluation before, whatever else the table holds."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from flows import findings
from storage.schemas import METRICS
from storage.tables import Store
from tasks.evaluation.kept import evaluation_folder, experiments_folder
from tasks.evaluation.results import Contender, Results

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def put(store: Store, hour: int, run: str, key: str, variant: str, value: float, seed: int = 0) -> None:
    row = {"evaluation_key": key, "variant": variant, "seed": seed, "value": value, "users": 10, "run_id": run}
    row |= {"protocol": "full", "slice": "all", "metric": "ndcg@10", "created_at": FIRST + timedelta(hours=hour)}
    table = store.table(METRICS)
    schema = table.empty().schema
    table.append(pl.DataFrame([{name: row.get(name) for name in schema}], schema=schema))


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The rows of the artifact's last table: model, metric, before, now, change."""
    store = Store(tmp_path / "store")
    contenders = [Contender("dmesr", ("dmesr-now", "dmesr-now-1")), Contender("popularity", ("popularity-now",))]

    def told() -> list[list[str]]:
        monkeypatch.setattr(findings, "present_results", lambda _: Results(store, tmp_path, contenders))
        config = SimpleNamespace(open_store=lambda: store, work_folder=tmp_path)
        _, _, below = findings.metrics(config, None).partition("**Against the evaluation before**")
        return [line.strip("| ").split(" | ") for line in below.splitlines() if "ndcg@10" in line]

    return store, told


def test_an_experiments_baseline_is_not_the_evaluation_before(tmp_path: Path, changes) -> None:
    store, told = changes
    put(store, 0, "evaluate-1", "popularity-before", "popularity", 0.1)
    put(store, 1, "experiment_evaluate-1", "popularity-of-experiment", "popularity", 0.9)
    evaluation_folder(experiments_folder(tmp_path), "popularity-of-experiment").mkdir(parents=True)
    put(store, 2, "evaluate-2", "popularity-now", "popularity", 0.3)
    assert told() == [["popularity", "ndcg@10", "0.1000", "0.3000", "+0.2000"]]


def test_each_model_is_compared_with_the_last_run_that_evaluated_it(changes) -> None:
    store, told = changes
    put(store, 0, "evaluate-1", "dmesr-0", "dmesr", 0.1)
    put(store, 1, "evaluate-1", "dmesr-1", "dmesr", 0.2, seed=1)
    put(store, 1, "evaluate-1", "other", "other", 0.9)
    put(store, 2, "evaluate-2", "dmesr-0-again", "dmesr", 0.4)
    put(store, 3, "evaluate-2", "dmesr-that-serves", "dmesr", 0.0)  # judged against, after the one asked for
    put(store, 3, "evaluate-2", "popularity-now", "popularity", 0.2)
    put(store, 4, "evaluate-3", "dmesr-now", "dmesr", 0.5)
    put(store, 4, "evaluate-3", "dmesr-now-1", "dmesr", 0.3, seed=1)
    put(store, 5, "evaluate-3", "dmesr-0-serves", "dmesr", 0.0)
    # (0.5 + 0.3) / 2 now, (0.4 + 0.2) / 2 before; popularity's evaluation still stands
    assert told() == [["dmesr", "ndcg@10", "0.3000", "0.4000", "+0.1000"]]
