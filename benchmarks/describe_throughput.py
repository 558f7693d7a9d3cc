"""Describe's items a second beside one bare `LLM.chat` call over the same requests, on one running engine.

    python benchmarks/describe_throughput.py --items 1000 --rounds 2 --out FOLDER

Both sides answer the same caption and summary requests of sample-shop items, other items each round; the bare call gets
its pictures decoded and its prompts rendered, the stage reads, plans, decodes, renders, checks and commits. Caches are
emptied before each side, sides alternate in which goes first, start-up is left out.
CPU seconds, of this process and the engine's, tell the two apart also on a machine that others use.
With `--one-by-one N`, also `transformers` `generate` at batch 1 over N requests.
"""

import argparse
import dataclasses
import json
import logging
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import psutil

import sample_shop.tiny_vlm
from sample_shop.catalog import CatalogConfig, list_items, picture_bytes
from storage.digests import digest_of_text
from storage.pictures import PictureStore
from storage.schemas import ITEMS
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage, asked_views
from tasks.describe_rows import RequestMaker, rows_of, with_items
from tasks.engines.offline import OfflineConfig, OfflineEngine, _messages
from tasks.engines.protocol import Request
from tasks.item_text import limiter_for

Cost = tuple[float, float]  # seconds, CPU seconds

CHECKPOINT = Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"


class KeptEngine(OfflineEngine):
    """An engine that the stage may close without ending it, so that both sides use the same one."""

    def close(self) -> None:
        pass


def main() -> None:
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO)
    config = DescribeConfig(
        model=str(CHECKPOINT),
        engine=OfflineConfig(dtype=arguments.dtype, max_model_len=512, enforce_eager=True, kv_cache_gib=1),
    )
    shutil.rmtree(arguments.out, ignore_errors=True)
    engine = KeptEngine(config.model, None, {}, config.engine, pictures=True)  # type: ignore[arg-type]
    found: dict[str, list[Cost]] = {"bare": [], "describe": []}
    _run_bare(engine, _requests(_filled(arguments.out / "warm", 64), config))
    for round_number in range(arguments.rounds):
        store = _filled(arguments.out / str(round_number), arguments.items, round_number * arguments.items)
        requests = _requests(store, config)
        sides = [lambda: _run_bare(engine, requests), lambda: _run_stage(engine, config, store)]  # noqa: B023
        order = list(zip(found, sides, strict=True))
        for side, run in order if round_number % 2 == 0 else reversed(order):
            _empty_caches(engine)
            with _measured(engine, found[side]):
                run()
        print(round_number, {side: [round(part, 2) for part in costs[-1]] for side, costs in found.items()}, flush=True)
    bare, describe = (_mean(costs) for costs in found.values())
    shares = [alone[0] / whole[0] for alone, whole in zip(*found.values(), strict=True)]
    result: dict[str, Any] = {
        "bare": round(len(requests) / bare[0], 2),
        "describe": round(len(requests) / describe[0], 2),
        "share": round(bare[0] / describe[0], 3),
        "share_median_of_rounds": round(statistics.median(shares), 3),
        "share_by_cpu_seconds": round(bare[1] / describe[1], 3),
    }
    OfflineEngine.close(engine)
    if arguments.one_by_one:
        result["one_by_one"] = round(_one_by_one(requests[: arguments.one_by_one], arguments.dtype), 2)
    print(json.dumps({"requests": len(requests), "requests_per_second": result}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one-by-one", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of all sides' weights")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _run_stage(engine: "KeptEngine", config: DescribeConfig, store: Store) -> None:
    stage = DescribeStage(config, store, Path(store.url).parent, start=lambda _: engine)
    plan = stage.plan()
    outcome = stage.run(plan, "benchmark", lambda progress: None)
    assert outcome.counts["done"] == plan.to_do


def _filled(folder: Path, items: int, first: int = 0) -> Store:
    store = Store(folder / "store")
    pictures = PictureStore(store)
    schema = store.table(ITEMS).empty().schema
    rows = []
    for item in list_items(first, items, CatalogConfig(), seed=5):
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
    made = [maker(row) for row in rows_of(with_items(store, work))]
    return [request for request in made if isinstance(request, Request)]


def _empty_caches(engine: OfflineEngine) -> None:
    engine._llm.reset_mm_cache()
    engine._llm.reset_prefix_cache()


def _run_bare(engine: OfflineEngine, requests: list[Request]) -> None:
    """One call as anybody would write it: pictures without a name for vLLM's caches, its own decoding."""
    from vllm import SamplingParams

    messages = [_messages(dataclasses.replace(request, picture_digest=None)) for request in requests]
    sampling = [SamplingParams(**request.sampling.model_dump()) for request in requests]
    answers = engine._llm.chat(messages, sampling, use_tqdm=False)
    assert len(answers) == len(requests) and all(answer.outputs[0].text for answer in answers)


@contextmanager
def _measured(engine: OfflineEngine, costs: list[Cost]) -> Iterator[None]:
    """Append the block's seconds, and CPU seconds of this process and the engine's, to `costs`."""
    processes = [psutil.Process(), *engine._processes]
    start, cpu = time.monotonic(), _cpu_seconds(processes)
    yield
    costs.append((time.monotonic() - start, _cpu_seconds(processes) - cpu))


def _cpu_seconds(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _mean(costs: list[Cost]) -> Cost:
    return statistics.mean(cost[0] for cost in costs), statistics.mean(cost[1] for cost in costs)


def _one_by_one(requests: list[Request], dtype: str) -> float:
    """Return requests a second of `transformers`, one request at a time."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=getattr(torch, dtype)).eval()
    start = time.monotonic()
    for request in requests:
        content: list[dict[str, str]] = [{"type": "text", "text": request.user}]
        pictures = None if request.picture is None else [request.picture]
        content += [] if pictures is None else [{"type": "image"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=text, images=pictures, return_tensors="pt", add_special_tokens=False)
        inputs = inputs.to(model.dtype)
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=request.sampling.max_tokens, do_sample=False)
    return len(requests) / (time.monotonic() - start)


if __name__ == "__main__":
    main()
