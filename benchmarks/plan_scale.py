"""What planning describe and embed costs on a large catalog with nothing to do, and reading all their texts.

    python benchmarks/plan_scale.py --items 1000000 --folder FOLDER

The first call makes the store (items without pictures, described, cut into one segment each, embedded) and plans.
Then the texts are read as the stages read what they have to do, here all of it.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

import sample_shop.tiny_vlm
from storage.digests import digest_of_text
from storage.schemas import EMBEDDINGS, GENERATIONS, ITEMS, SEGMENTS, TEXT_DIGEST, TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage, asked_views
from tasks.describe_rows import with_items
from tasks.embed import EmbedConfig, EmbedStage, with_texts
from tasks.generation_keys import wanted_generations
from tasks.segment_keys import wanted_segments

DESCRIBE = DescribeConfig(model=str(Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"))
EMBED = EmbedConfig()
SLICE = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    store = Store(arguments.folder)
    if not store.table(EMBEDDINGS).exists():
        _fill(store, arguments.items)
    work = arguments.folder / "work"
    for stage in (DescribeStage(DESCRIBE, store, work), EmbedStage(EMBED, DESCRIBE, store, work)):
        with _measured(f"plan of {stage.name}"):
            print(stage.plan().sentence())
    asked = wanted_generations(store.table(ITEMS).scan(), asked_views(DESCRIBE)).with_columns(suspect=False, attempts=0)
    texts = pl.concat(
        store.table(table).read(TEXT_DIGEST).with_columns(source=pl.lit(source))
        for table, source in ((GENERATIONS, "text"), (SEGMENTS, "segment"))
    )
    for name, frames in (("describe", with_items(store, asked)), ("embed", with_texts(store, texts, EMBED.chunk))):
        with _measured(f"texts of {name}"):
            print(f"{sum(frame.height for frame in frames):,} rows")


@contextmanager
def _measured(what: str) -> Iterator[None]:
    start, cpu = time.monotonic(), time.process_time()
    yield
    costs = {"seconds": round(time.monotonic() - start, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"what": what, **costs, "peak_mib": peak}))


def _fill(store: Store, items: int) -> None:
    for first in range(0, items, SLICE):
        numbers = pl.DataFrame({"item_id": [f"item-{i}" for i in range(first, min(items, first + SLICE))]})
        texts = numbers.with_columns(
            title="Title of " + pl.col("item_id"), description="Words about " + pl.col("item_id")
        )
        digests = [_digests(texts[name]).alias(f"{name}_digest") for name in ("title", "description")]
        _append(store, ITEMS, texts.with_columns(*digests, active=True))
    answers = wanted_generations(store.table(ITEMS).scan(), asked_views(DESCRIBE))
    cut = wanted_segments(store.table(ITEMS).scan(), EMBED.segments).with_columns(position=0, kind=pl.lit("title"))
    for table, rows in ((GENERATIONS, answers.with_columns(status=pl.lit("ok"), attempts=1)), (SEGMENTS, cut)):
        for part in rows.iter_slices(SLICE):
            named = part.with_columns(text=pl.lit(f"{table.name} ") + pl.col("item_id"))
            digested = named.with_columns(_digests(named["text"]).alias("text_digest"))
            _append(store, table, digested)
            vectors = digested.select("text_digest", encoder_digest=pl.lit(EMBED.encoder_digest), vector=[0.5] * 4)
            _append(store, EMBEDDINGS, vectors)


def _digests(texts: pl.Series) -> pl.Series:
    return pl.Series([digest_of_text(text) for text in texts])


def _append(store: Store, table: TableSchema, rows: pl.DataFrame) -> None:
    schema = store.table(table).empty().schema
    columns = [pl.col(name) if name in rows.columns else pl.lit(None).alias(name) for name in schema]
    store.table(table).append(rows.select(columns).cast(schema))


if __name__ == "__main__":
    main()
