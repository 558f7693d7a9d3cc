"""Ingest killed with SIGKILL at random moments, again and again, ends with the tables of an undisturbed run."""

import io
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
from PIL import Image

from storage.schemas import PICTURES
from storage.tables import Store

KILLS = 4

RUN = """
import sys
from pathlib import Path
from storage.tables import Store
from tasks.ingest import events
from tasks.ingest.config import IngestConfig
from tasks.ingest.stage import IngestStage
from tasks.stage import run_stage

events.EVENT_ROWS = 25
delivery, store, work = (Path(argument) for argument in sys.argv[1:])
config = IngestConfig(
    catalog=delivery / "catalog.jsonl", interactions=delivery / "interactions.csv", commit_rows=8, max_reject_share=1
)
print("ready", flush=True)
run_stage(IngestStage(config, Store(store), work), lambda progress: None)
"""


def start(shop, store: Path) -> subprocess.Popen:
    work = store.with_name(f"{store.name}-work")
    command = [sys.executable, "-c", RUN, str(shop.delivery), str(store), str(work)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def deliver(shop, generation: int) -> None:
    """100 items with pictures (some torn), 200 events; each generation changes, adds and drops some."""
    rows: list[dict | str] = []
    for number in range(generation * 10, 100 + generation * 5):
        name = f"{number}.png"
        stream = io.BytesIO()
        Image.new("RGB", (16, 16), (number, generation if number % 9 == 0 else 0, 0)).save(stream, "PNG")
        content = stream.getvalue()
        (shop.delivery / name).write_bytes(content[:-20] if number % 7 == 0 else content)
        title = f"item {number}" + (" again" if number % 4 == generation else "")
        rows.append("{broken" if number % 11 == 0 else {"item_id": number, "title": title, "image": name})
    shop.catalog(*rows)
    events = range(generation * 50, 200 + generation * 50)
    shop.events(*(f"u{number % 9},{number % 110},{1_700_000_000 + number}" for number in events))


def kill_midway(process: subprocess.Popen, store: Path, chooser: random.Random) -> bool:
    """Kill the run a moment after a random one of its next commits (or before the first); False: it was done before."""
    target = commits(store) + chooser.randrange(5)
    while process.poll() is None and commits(store) < target:
        time.sleep(0.001)
    time.sleep(chooser.uniform(0, 0.03))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def commits(store: Path) -> int:
    return sum(1 for _ in store.glob("*/_delta_log/*.json"))


def pictures_of(store: Store) -> pl.DataFrame:
    return store.table(PICTURES).read("source", "image_digest", "image_reference", "reason").sort("source")


def test_a_run_that_is_killed_loses_and_doubles_nothing(shop, contents):
    calm, hunted = shop.root / "calm", shop.root / "hunted"
    chooser = random.Random(5)
    killed = 0
    for generation in range(2):
        deliver(shop, generation)
        finish(start(shop, calm))
        for _ in range(KILLS // 2):
            killed += kill_midway(start(shop, hunted), hunted, chooser)
        finish(start(shop, hunted))
        expected, found = contents(Store(calm)), contents(Store(hunted))
        assert expected["items"].height > 80
        assert expected["rejects"].height > 10
        for name, frame in expected.items():
            assert frame.equals(found[name]), name
        assert pictures_of(Store(calm)).equals(pictures_of(Store(hunted)))
    assert killed >= KILLS // 2
