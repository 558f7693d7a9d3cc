"""Describe's items a second beside one bare `LLM.chat` call over the same requests, on one running engine.

    python benchmarks/describe_throughput.py --items 1000 --rounds 2 --out FOLDER

Both sides answer the same caption and summary requests of sample-shop items; the bare call gets its pictures
decoded and its prompts rendered. Caches are emptied before each side, sides alternate, start-up is left out.
With `--one-by-one N`, also `transformers` `generate` at batch 1 over N requests.
"""

import argparse
import json
import logging
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import polars as pl

import sample_shop.tiny_vlm
from sample_shop.catalog import CatalogConfig, list_items, picture_bytes
from storage.digests import digest_of_text
from storage.pictures import PictureStore
from storage.schemas import ITEMS
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage, asked_views
from tasks.describe_rows import RequestMaker, rows_with_items
from tasks.engines.offline import OfflineConfig, OfflineEngine, _messages, _sampling
from tasks.engines.protocol import Request
from tasks.item_text import limiter_for

CHECKPOINT = Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"


class KeptEngine(OfflineEngine):
    """An engine that the stage may close without ending it, so that both sides use the same one."""

    def close(self) -> None:
        pass


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO)
    config = DescribeConfig(
        model=str(CHECKPOINT), engine=OfflineConfig(max_model_len=512, enforce_eager=True, kv_cache_gib=1)
    )
    shutil.rmtree(arguments.out, ignore_errors=True)
    engine = KeptEngine(config.model, None, {}, config.engine, pictures=True)  # type: ignore[arg-type]
    found: dict[str, list[float]] = {"bare": [], "describe": []}
    _run_describe(_filled(arguments.out / "warm", 64), config, engine)
    for round_number in range(arguments.rounds):
        store = _filled(arguments.out / str(round_number), arguments.items)
        requests = _requests(store, config)
        _empty_caches(engine)
        found["bare"].append(_run_bare(engine, requests))
        _empty_caches(engine)
        found["describe"].append(_run_describe(store, config, engine))
        print(round_number, {side: round(len(requests) / seconds[-1], 1) for side, seconds in found.items()})
    result: dict[str, Any] = {side: round(len(requests) / statistics.mean(times), 2) for side, times in found.items()}
    result["share"] = round(result["describe"] / result["bare"], 3)
    OfflineEngine.close(engine)
    if arguments.one_by_one:
        result["one_by_one"] = round(_one_by_one(requests[: arguments.one_by_one]), 2)
    print(json.dumps({"requests": len(requests), "requests_per_second": result}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one-by-one", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _filled(folder: Path, items: int) -> Store:
    store = Store(folder / "store")
    pictures = PictureStore(store)
    schema = store.table(ITEMS).empty().schema
    rows = []
    for item in list_items(0, items, CatalogConfig(), seed=5):
        texts = {"title": item.title, "description": item.description}
        digests = {f"{name}_digest": None if text is None else digest_of_text(text) for name, text in texts.items()}
        reference, digest = (None, None) if item.picture_seed is None else pictures.save(picture_bytes(item))
        row = {"item_id": item.item_id, "active": True, "image_reference": reference, "image_digest": digest}
        rows.append({name: {**row, **texts, **digests}.get(name) for name in schema})
    store.table(ITEMS).append(pl.DataFrame(rows, schema=schema))
    return store


def _requests(store: Store, config: DescribeConfig) -> list[Request]:
    """Return what the stage would ask, pictures decoded, in the stage's order."""
    views = {str(view.prompt.view): view for view in asked_views(config)}
    maker = RequestMaker(views, limiter_for(config.model, None), PictureStore(store), config.max_pixels)
    work = DescribeStage(config, store, Path(store.url).parent).plan().work
    made = [maker(row) for row in rows_with_items(store, work)]
    return [request for request in made if isinstance(request, Request)]


def _empty_caches(engine: OfflineEngine) -> None:
    engine._llm.reset_mm_cache()
    engine._llm.reset_prefix_cache()


def _run_bare(engine: OfflineEngine, requests: list[Request]) -> float:
    start = time.monotonic()
    answers = engine._llm.chat([_messages(r) for r in requests], [_sampling(r) for r in requests], use_tqdm=False)
    assert len(answers) == len(requests)
    return time.monotonic() - start


def _run_describe(store: Store, config: DescribeConfig, engine: OfflineEngine) -> float:
    stage = DescribeStage(config, store, Path(store.url).parent, start=lambda _: engine)
    plan = stage.plan()
    start = time.monotonic()
    outcome = stage.run(plan, "benchmark", lambda progress: None)
    assert outcome.counts["done"] == plan.to_do
    print(dict(outcome.counts))
    return time.monotonic() - start


def _one_by_one(requests: list[Request]) -> float:
    """Return requests a second of `transformers`, one request at a time."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.bfloat16).eval()
    start = time.monotonic()
    for request in requests:
        content: list[dict[str, str]] = [{"type": "text", "text": request.user}]
        pictures = None if request.picture is None else [request.picture]
        content += [] if pictures is None else [{"type": "image"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False)
        inputs = inputs.to(torch.bfloat16)
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=request.sampling.max_tokens, do_sample=False)
    return len(requests) / (time.monotonic() - start)


if __name__ == "__main__":
    main()
