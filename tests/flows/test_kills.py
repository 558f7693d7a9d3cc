"""SIGKILL at a random moment of every stage, then the stage again: the same tables as a night left in peace.

(Describe is killed with the real engine in conftest.py, and at three more moments in tests/tasks/test_describe.py.)
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from storage.schemas import (
    EMBEDDINGS,
    INTERACTIONS,
    ITEMS,
    METRICS,
    RECOMMENDATIONS,
    REJECTS,
    RUNS,
    SEGMENTS,
    TableSchema,
)

SCRIPT = """
import sys
from pathlib import Path
from tasks.config import load_config
from tasks.isolated import run_isolated
run_isolated(load_config(Path(sys.argv[1])), sys.argv[2], lambda progress: None)
"""
WRITTEN: dict[str, tuple[TableSchema, ...]] = {
    "ingest": (ITEMS, INTERACTIONS, REJECTS),
    "embed": (SEGMENTS, EMBEDDINGS),
    "train": (),
    "evaluate": (METRICS,),
    "recommend": (RECOMMENDATIONS,),
    "report": (),
}
LEFT_TO_CHANCE = {"run_id", "created_at", "updated_at", "first_seen_at"}
SEED = int(os.environ.get("DMESR_KILL_SEED", "0"))


@pytest.fixture(scope="module")
def disturbed(after_night, tmp_path_factory: pytest.TempPathFactory):
    """The shop after its night, with only the deliveries and the model's answers left."""
    shop = after_night.copy_to(tmp_path_factory.mktemp("disturbed") / "shop")
    for folder in ("models", "features", "sequences", "ranks", "evaluations", "report", "index"):
        shutil.rmtree(shop.config.work_folder / folder, ignore_errors=True)
    for table in {schema.name for schemas in WRITTEN.values() for schema in schemas} | {RUNS.name}:
        shutil.rmtree(Path(shop.config.store.url) / table)
    return shop


def start(shop, stage: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(shop.config_file), stage])


def rows(shop, schema: TableSchema) -> pl.DataFrame:
    frame = shop.config.open_store().table(schema).read()
    return frame.select(sorted(set(frame.columns) - LEFT_TO_CHANCE))


def seconds_of(after_night, stage: str) -> float:
    runs = after_night.config.open_store().table(RUNS).read()
    return runs.filter((pl.col("stage") == stage) & (pl.col("status") == "completed"))["seconds"].max()


def same_rows(left: pl.DataFrame, right: pl.DataFrame) -> bool:
    """Whether two tables hold the same rows in any order; floats to 5 digits, vectors by their first number."""
    return sorted(map(str, comparable(left).iter_rows())) == sorted(map(str, comparable(right).iter_rows()))


def comparable(frame: pl.DataFrame) -> pl.DataFrame:
    lists = [pl.col(name).list.first() for name, kind in frame.schema.items() if kind == pl.List(pl.Float32)]
    frame = frame.with_columns(lists)
    floats = [pl.col(name).round(4) for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(floats)


@pytest.mark.parametrize("stage", list(WRITTEN))
def test_a_stage_killed_at_a_random_moment_ends_in_the_same_tables(disturbed, after_night, stage: str) -> None:
    moment = random.Random(f"{stage}-{SEED}").uniform(0.5, 3.0 + seconds_of(after_night, stage))
    victim = start(disturbed, stage)
    time.sleep(moment)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert start(disturbed, stage).wait(timeout=600) == 0
    for schema in WRITTEN[stage]:
        assert same_rows(rows(disturbed, schema), rows(after_night, schema)), f"{schema.name}, killed after {moment} s"
    counts = disturbed.config.open_store().table(RUNS).read("stage", "status").filter(pl.col("stage") == stage)
    assert "completed" in set(counts["status"])


def test_the_killed_training_ends_in_the_same_models(disturbed, after_night) -> None:
    """Their metrics were compared above."""
    models = [
        {path.parent.name for path in (shop.config.work_folder / "models").glob("*/summary.json")}
        for shop in (disturbed, after_night)
    ]
    assert models[0] == models[1]
    assert len(models[0]) == 2
