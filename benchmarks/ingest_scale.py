"""Ingests a made catalog and measures it: seconds and peak resident memory of each step, each in its own process.

    python benchmarks/ingest_scale.py --items 1000000 --events 100000 --folder FOLDER

Steps: ingest (plan and run), plan with nothing to do, the same without its note of the last delivery (so the files are
read), plan and run with one item in a thousand changed, and the describe stage's plan. Results: ingest_scale.md.
"""

import argparse
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from storage.schemas import ITEMS
from storage.tables import Store
from tasks.ingest.config import IngestConfig
from tasks.ingest.stage import IngestStage
from tasks.stage import Progress, run_stage

STEPS = ("ingest", "plan_nothing_to_do", "plan_without_note", "plan_changed", "ingest_changed", "describe_plan")
WORDS = (
    "sturdy linen oak brass quiet summer ceramic woven harbour kettle lantern copper drawer pocket velvet anchor "
    "meadow walnut ribbon canvas pepper saddle marble feather garden travel kitchen winter cotton silver"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True, help="made and removed again")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        _measure(arguments.step, arguments.folder)
    else:
        _run_all(arguments.items, arguments.events, arguments.folder)


def _run_all(items: int, events: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    try:
        catalog = folder / "catalog.jsonl"
        write_catalog(catalog, items, changed_every=0)
        write_events(folder / "interactions.csv", items, events)
        print(
            f"{platform.machine()}, {os.cpu_count()} cores; {items:,} items ({catalog.stat().st_size / 1e6:,.0f} MB), ",
            end="",
        )
        print(f"{events:,} events; Python {platform.python_version()}")
        print("| step | seconds | CPU seconds | peak resident MiB | what |\n| --- | --- | --- | --- | --- |")
        for step in STEPS:
            if step == "plan_changed":
                write_catalog(catalog, items, changed_every=1000)
            command = [sys.executable, __file__, "--folder", str(folder), "--step", step]
            answer = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."}
            )
            result = json.loads(answer.stdout.splitlines()[-1])
            figures = f"{result['seconds']:.1f} | {result['cpu']:.1f} | {result['mib']:,.0f}"
            print(f"| {step} | {figures} | {result['what']} |", flush=True)
    finally:
        shutil.rmtree(folder)


def write_catalog(path: Path, items: int, changed_every: int) -> None:
    """Write a catalog of about 450 bytes an item, without pictures; the same arguments give the same bytes."""
    chooser = random.Random(0)
    known_words = WORDS.split()
    with path.open("w", encoding="utf-8") as stream:
        for number in range(items):
            words = chooser.choices(known_words, k=40)
            if changed_every and number % changed_every == 0:
                words[0] = "changed"
            row = {
                "item_id": f"item-{number:07d}",
                "title": " ".join(words[:6]),
                "description": " ".join(words[6:34]).capitalize() + f". Number {number}.",
                "brand": words[34],
                "materials": words[35:37],
                "weight_grams": number % 5000,
            }
            stream.write(json.dumps(row) + "\n")


def write_events(path: Path, items: int, events: int) -> None:
    chooser = random.Random(1)
    with path.open("w", encoding="utf-8") as stream:
        stream.write("user_id,item_id,timestamp\n")
        for number in range(events):
            item = chooser.randrange(items)
            stream.write(
                f"user-{chooser.randrange(max(events // 20, 1)):06d},item-{item:07d},{1_700_000_000 + number}\n"
            )


def _measure(step: str, folder: Path) -> None:
    config = IngestConfig(catalog=(folder / "catalog.jsonl",), interactions=(folder / "interactions.csv",))
    store = Store(folder / "store")
    stage = IngestStage(config, store, folder / "work")
    if step == "plan_without_note":
        (folder / "work" / "ingest_memo.json").unlink()
    start = time.monotonic()
    if step == "describe_plan":
        what = _describe_plan(store, folder)
    elif step.startswith("ingest"):
        what = str(dict(run_stage(stage, _silent).counts))
    else:
        what = stage.plan().sentence()
    seconds = time.monotonic() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu, mib = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mib": mib, "what": what, "items": store.table(ITEMS).count()}))


def _describe_plan(store: Store, folder: Path) -> str:
    """Text views only: the made catalog has no pictures. An endpoint, so that no model is needed."""
    from tasks.describe import DescribeConfig, DescribeStage
    from tasks.engines.endpoint import EndpointConfig

    engine = EndpointConfig(url="http://localhost:9/v1")
    config = DescribeConfig(model="none", revision="1", prompts=("caption", "summary"), engine=engine)
    return DescribeStage(config, store, folder / "work").plan().sentence()


def _silent(_: Progress) -> None:
    """Progress is not shown: it would be timed, too."""


if __name__ == "__main__":
    main()
