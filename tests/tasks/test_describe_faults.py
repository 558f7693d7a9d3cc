"""500 items, 20 of which fail, one by killing the engine and one by hanging it; the stage killed three times.

Once with a stand-in, in seconds; once, among the operations, with vLLM and the tiny model: it refuses what is too long
by itself, and one item's words kill its processes, another's stop them.

Run as a script, it describes: with the stand-in (`STORE MODEL PROMPTS FOLDER SECONDS`) or vLLM (`vllm STORE FOLDER`).
"""

import io
import json
import os
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
import pytest
from PIL import Image

import sample_shop.tiny_vlm
from storage.digests import digest_of_text
from storage.pictures import PictureStore
from storage.schemas import GENERATIONS, ITEMS
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage
from tasks.engines.guard import carries
from tasks.engines.offline import OfflineConfig, OfflineEngine
from tasks.engines.protocol import Completion, Engine, EngineDied, Request
from tasks.stage import run_stage

ITEMS_ASKED = 500
CHECKPOINT = Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"
# What goes wrong with whom, and the kind that its row must say. 20 in all.
FAULTS: dict[str, tuple[int, str]] = {
    "kills": (1, "engine_died"),
    "hangs": (1, "engine_hung"),
    "too long": (5, "request_refused"),
    "no quotient": (5, "prompt_error"),
    "damaged": (4, "picture_"),
    "gone": (4, "picture_missing"),
}
PROMPTS = {
    "read": "name: read\nview: text\nuser: '{{ title }} {{ 1 // attributes.get(\"Divisor\", 1) | int }}'\n"
    "limits: {title_tokens: 2000}\nsampling: {max_tokens: 8}\n",
    "look": "name: look\nview: image\nuser: 'Look at {{ title }}'\nsampling: {max_tokens: 8}\n",
}


class FaultyEngine:
    """Answers; refuses, dies or hangs where the user turn says so."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._queue: deque[Request] = deque()

    @property
    def room(self) -> int:
        return 16 - len(self._queue)

    def submit(self, request: Request) -> None:
        self._queue.append(request)

    def completions(self, timeout_seconds: float) -> Sequence[Completion]:
        time.sleep(self._seconds)
        for word, kind in (("kills", "engine_died"), ("hangs", "engine_hung")):
            if any(word in request.user for request in self._queue):
                raise EngineDied(kind, f"item {word} was asked")
        request = self._queue.popleft()
        if "too long" in request.user:
            return [Completion(request.key, error_kind="request_refused", error_detail="too long for the model")]
        return [Completion(request.key, f"about {request.user}", "stop", 5, 3)]

    def close(self) -> None:
        pass


class FaultyVllm(OfflineEngine):
    """vLLM, whose processes a request's words kill or stop."""

    def submit(self, request: Request) -> None:
        super().submit(request)
        for process in self._processes:
            if "kills" in request.user:
                process.kill()
            elif "hangs" in request.user:
                process.suspend()


def faulty_vllm(config: DescribeConfig) -> Engine:
    assert isinstance(config.engine, OfflineConfig)
    return FaultyVllm(config.model, None, {}, config.engine, pictures=True)


def fill(store: Store) -> None:
    """Half the items have a title, half a picture; every 25th has a fault."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    pictures, faults = PictureStore(store), [name for name, (number, _) in FAULTS.items() for _ in range(number)]
    schema, rows = store.table(ITEMS).empty().schema, []
    for i in range(ITEMS_ASKED):
        fault = faults[i // 25] if i % 25 == 0 else ""
        looks = fault in ("damaged", "gone") or (not fault and i % 2 == 1)
        title = f"mug {i} {fault}" + " very" * (600 if fault == "too long" else 0)
        attributes = json.dumps({"Divisor": "0" if fault == "no quotient" else "1"})
        row: dict[str, object] = {"item_id": f"{i:03} {fault}".strip(), "active": True}
        texts = {"title": title, "attributes": attributes} if not looks else {"title": None, "attributes": None}
        row |= texts | {
            f"{name}_digest": None if text is None else digest_of_text(text) for name, text in texts.items()
        }
        if looks:
            picture = buffer.getvalue() + str(i).encode()  # bytes after the end of a PNG change only its digest
            saved = pictures.save(picture[:60] + str(i).encode() if fault == "damaged" else picture)
            row["image_reference"], row["image_digest"] = ("pictures/none", f"{i}") if fault == "gone" else saved
        rows.append({name: row.get(name) for name in schema})
    store.table(ITEMS).append(pl.DataFrame(rows, schema=schema))


def write_prompts(folder: Path) -> tuple[str, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in PROMPTS.items():
        (folder / f"{name}.yaml").write_text(text)
    return tuple(str(folder / f"{name}.yaml") for name in PROMPTS)


def check(store: Store) -> None:
    """480 answers, each once; 20 rows that say why."""
    rows = store.table(GENERATIONS).read("item_id", "status", "error_kind", "error_detail")
    assert rows.height == ITEMS_ASKED and rows["item_id"].is_unique().all()
    failed = rows.filter(pl.col("status") == "failed")
    assert failed.height == 20 and failed["error_detail"].str.len_chars().min() > 0
    for fault, (number, kind) in FAULTS.items():
        kinds = failed.filter(pl.col("item_id").str.ends_with(fault))["error_kind"].to_list()
        assert len(kinds) == number and all(found.startswith(kind) for found in kinds), (fault, kinds)


def kill_three_times(store: Store, start: Callable[[], "subprocess.Popen[bytes]"], seconds: float) -> None:
    """Start the stage and SIGKILL it, when it has committed so many rows; three times."""
    for rows in (40, 160, 300):
        child = start()
        deadline = time.monotonic() + seconds
        while store.table(GENERATIONS).count() < rows and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert child.poll() is None, "killed in the middle of its work, and not after it"
        child.kill()
        child.wait()


def test_480_answers_each_once_and_20_rows_that_say_why(model_folder: Path, tmp_path: Path) -> None:
    store, prompts = Store(tmp_path / "store"), write_prompts(tmp_path)
    fill(store)
    command = [sys.executable, __file__, store.url, str(model_folder), str(tmp_path), str(tmp_path / "work")]
    kill_three_times(store, lambda: subprocess.Popen([*command, "0.01"]), 60)
    left = stand_in_stage(store, str(model_folder), prompts, tmp_path / "work", 0.0)
    assert 0 < left.plan().new < 250
    run_stage(left, lambda progress: None)
    check(store)
    assert Counter(store.table(GENERATIONS).read("attempts")["attempts"]).keys() <= {1, 2, 3, 4}


def stand_in_stage(store: Store, model: str, prompts: tuple[str, ...], folder: Path, seconds: float) -> DescribeStage:
    config = DescribeConfig(model=model, prompts=prompts, commit_seconds=0.1, max_attempts=9)
    return DescribeStage(config, store, folder, start=lambda _: FaultyEngine(seconds))


def describe_with_vllm(url: str, prompts: tuple[str, ...], folder: Path) -> None:
    """Describe with the real engine, in this process."""
    engine = OfflineConfig(
        dtype="float32", max_model_len=512, enforce_eager=True, kv_cache_gib=1, in_flight=16, hang_seconds=10
    )
    config = DescribeConfig(model=str(CHECKPOINT), prompts=prompts, engine=engine, commit_seconds=0.2, max_attempts=9)
    run_stage(DescribeStage(config, Store(url), folder, start=faulty_vllm), lambda progress: None)


@pytest.mark.operations
def test_480_answers_each_once_and_20_rows_that_say_why_with_vllm(tmp_path: Path) -> None:
    store, prompts = Store(tmp_path / "store"), write_prompts(tmp_path)
    fill(store)
    command = [sys.executable, __file__, "vllm", store.url, str(tmp_path)]
    kill_three_times(store, lambda: subprocess.Popen(command, env=os.environ | {"FAULTS_OF": str(tmp_path)}), 400)
    describe_with_vllm(store.url, prompts, tmp_path / "work")
    check(store)
    assert not [process.pid for process in psutil.process_iter() if is_engine_for(process, tmp_path)]


def is_engine_for(process: psutil.Process, folder: Path) -> bool:
    """Whether it is a process of vLLM that a stage of this test has started."""
    with suppress(psutil.Error, OSError):
        return carries(process, f"FAULTS_OF={folder}")
    return False


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["vllm", url, folder]:
            describe_with_vllm(url, write_prompts(Path(folder)), Path(folder) / "work")
        case [url, model, prompt_folder, folder, seconds]:
            names = tuple(str(Path(prompt_folder) / f"{name}.yaml") for name in PROMPTS)
            stage = stand_in_stage(Store(url), model, names, Path(folder), float(seconds))
            run_stage(stage, lambda progress: None)
