"""A disk that fills up while ingest runs: an error with its remedy, and the next run goes on."""

import json
import subprocess
import sys

from storage.schemas import RUNS

RUN = """
import resource, sys
from pathlib import Path
from storage.tables import Store, StoreError
from tasks.ingest.config import IngestConfig
from tasks.ingest.stage import IngestStage
from tasks.stage import run_stage

delivery, store, work = (Path(argument) for argument in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
stage = IngestStage(IngestConfig(catalog=delivery / "catalog.jsonl", commit_rows=10), Store(store), work)
try:
    run_stage(stage, lambda progress: None)
except StoreError as error:
    print(error)
"""


def test_ingest_goes_on_where_the_disk_was_full(shop, contents):
    small = [{"item_id": str(number), "title": f"item {number}"} for number in range(20)]
    large = [
        {"item_id": f"large {number}", "description": json.dumps(list(range(number, 9000)))} for number in range(9)
    ]
    shop.catalog(*small, *large)
    command = [sys.executable, "-c", RUN, str(shop.delivery), str(shop.root / "store"), str(shop.work_folder)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "table items at" in answer.stdout, answer.stderr
    assert "Check free space and permissions, then run the stage again: what was committed stays" in answer.stdout
    assert len(shop.items()) == 20
    assert [status for (status,) in shop.rows(RUNS, "status")] == ["failed"]
    shop.ingest(commit_rows=10)
    assert len(shop.items()) == 29
