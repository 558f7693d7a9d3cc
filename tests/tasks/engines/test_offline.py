"""vLLM itself, with the tiny model: one engine for the whole module, ended at last by its processes' death."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import sample_shop.tiny_vlm
from tasks.engines.offline import OfflineConfig, OfflineEngine
from tasks.engines.protocol import Completion, EngineDied, Request
from tasks.prompt_files import Sampling

CHECKPOINT = Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"
CONFIG = OfflineConfig(max_model_len=512, enforce_eager=True, kv_cache_gib=1, in_flight=16, hang_seconds=4)
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}


@pytest.fixture(scope="module")
def engine() -> Iterator[OfflineEngine]:
    running = OfflineEngine(str(CHECKPOINT), None, {}, CONFIG, pictures=True)
    yield running
    running.close()


def ask(engine: OfflineEngine, *requests: Request) -> dict[str, Completion]:
    for request in requests:
        engine.submit(request)
    found: dict[str, Completion] = {}
    deadline = time.monotonic() + 120
    while len(found) < len(requests) and time.monotonic() < deadline:
        found |= {completion.key: completion for completion in engine.completions(0.5)}
    return found


def request(key: str, user: str, colour: str | None = None, schema: dict[str, object] | None = None) -> Request:
    picture = Image.new("RGB", (100, 80), colour) if colour else None
    return Request(key, None, user, picture, Sampling(max_tokens=24), schema)


def test_requests_of_all_views_are_answered_and_a_refused_one_costs_no_other(engine: OfflineEngine) -> None:
    pictures = [
        request(f"p{i}", "Describe the product in the picture.", colour) for i, colour in enumerate(["red"] * 6)
    ]
    texts = [request(f"t{i}", f"Summarise the product description: mug number {i}.") for i in range(6)]
    too_long = request("long", "much too long for the model " * 200)
    found = ask(engine, *texts[:3], too_long, *pictures, *texts[3:])
    refused = found.pop("long")
    assert refused.text is None and refused.error_kind == "request_refused"
    assert len(found) == 12
    assert all(completion.error_kind is None and completion.text is not None for completion in found.values())
    assert {found[f"p{i}"].text for i in range(6)} == {found["p0"].text}
    assert found["p0"].prompt_tokens is not None and found["t0"].completion_tokens is not None
    assert engine.room == CONFIG.in_flight


def test_an_answer_is_held_to_its_schema(engine: OfflineEngine) -> None:
    found = ask(engine, request("j", "Which colour has the product?", "red", COLOUR))
    assert json.loads(found["j"].text or "")["colour"] in ("red", "blue")


def test_a_hung_engine_then_a_killed_one_is_noticed_and_its_processes_are_ended(engine: OfflineEngine) -> None:
    processes = engine._processes
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    engine.submit(request("h", "Are you there?"))
    with pytest.raises(EngineDied) as hung:
        _wait(engine, 20)
    assert hung.value.kind == "engine_hung"
    for process in processes:
        process.kill()
    with pytest.raises(EngineDied) as died:
        _wait(engine, 20)
    assert died.value.kind == "engine_died"
    engine.close()
    assert not any(process.is_running() for process in processes)


def _wait(engine: OfflineEngine, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        engine.completions(0.5)
