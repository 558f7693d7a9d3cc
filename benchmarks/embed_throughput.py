"""Embed's texts a second beside one bare `SentenceTransformer.encode` over the same distinct texts.

    python benchmarks/embed_throughput.py --items 1000 --rounds 2 --out FOLDER

Texts are the segments of sample-shop items. The model is loaded once; sides alternate; cutting is left out.
"""

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

import polars as pl

import sample_shop.tiny_vlm
from sample_shop.catalog import CatalogConfig, list_items
from storage.digests import digest_of_text
from storage.schemas import EMBEDDINGS, ITEMS, SEGMENTS
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig, EmbedStage
from tasks.engines.sentence_encoder import SentenceEncoder

DESCRIBE = DescribeConfig(model=str(Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=EmbedConfig().batch)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = EmbedConfig.model_validate({"dtype": arguments.dtype, "batch": arguments.batch})
    shutil.rmtree(arguments.out, ignore_errors=True)
    encoder = SentenceEncoder(config)
    encoder.encode(["warm up"])
    found: dict[str, list[float]] = {"bare": [], "embed": []}
    for round_number in range(arguments.rounds):
        store = _filled(arguments.out / str(round_number), arguments.items)
        found["embed"].append(_run_embed(store, config, encoder))
        texts = store.table(SEGMENTS).read("text")["text"].unique(maintain_order=True).to_list()
        assert store.table(EMBEDDINGS).count() == len(texts)
        start = time.monotonic()
        encoder._model.encode(texts, batch_size=config.batch, normalize_embeddings=True, show_progress_bar=False)
        found["bare"].append(time.monotonic() - start)
        print(round_number, {side: round(len(texts) / seconds[-1], 1) for side, seconds in found.items()})
    result = {side: round(len(texts) / statistics.mean(seconds), 1) for side, seconds in found.items()}
    print(json.dumps({"texts": len(texts), **result, "share": round(result["embed"] / result["bare"], 3)}))


def _filled(folder: Path, items: int) -> Store:
    store = Store(folder / "store")
    schema = store.table(ITEMS).empty().schema
    rows = []
    for item in list_items(0, items, CatalogConfig(), seed=5):
        texts = {"title": item.title, "description": item.description}
        digests = {f"{name}_digest": None if text is None else digest_of_text(text) for name, text in texts.items()}
        rows.append({name: {"item_id": item.item_id, **texts, **digests}.get(name) for name in schema})
    store.table(ITEMS).append(pl.DataFrame(rows, schema=schema))
    return store


def _run_embed(store: Store, config: EmbedConfig, encoder: SentenceEncoder) -> float:
    stage = EmbedStage(config, DESCRIBE, store, Path(store.url).parent, load=lambda _: encoder)
    stage._cut(stage.plan().work, "benchmark")
    plan = stage.plan()
    start = time.monotonic()
    stage.run(plan, "benchmark", lambda progress: None)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
