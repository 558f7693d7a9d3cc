"""vLLM itself, with the tiny model: one engine and one server for the module; the engine is killed at the end."""

import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

import sample_shop.tiny_vlm
from sample_shop.catalog import CatalogConfig, list_items, picture_bytes
from tasks.engines.endpoint import EndpointConfig, EndpointEngine
from tasks.engines.offline import OfflineConfig, OfflineEngine
from tasks.engines.protocol import Completion, Engine, EngineDied, Request
from tasks.item_text import TextLimiter, rendered_turns
from tasks.prompt_files import Sampling, load_prompt

CHECKPOINT = Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"
CONFIG = OfflineConfig(
    dtype="float32", max_model_len=512, enforce_eager=True, kv_cache_gib=1, max_num_seqs=8, in_flight=16
)
KEY = "a-key-that-is-never-logged"
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}


@pytest.fixture(scope="module")
def engine() -> Iterator[OfflineEngine]:
    running = OfflineEngine(str(CHECKPOINT), None, {}, CONFIG, pictures=True)
    yield running
    running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real vLLM server, as `vllm serve` runs it; it wants a key.

    (The `vllm` command itself asks for the version of a package `vllm`, and the CPU build is called otherwise.)
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(CHECKPOINT)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512"]
    command += ["--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(2**30), "--api-key", KEY]
    # As docs/prompts.md says: with free white space in JSON a weak model writes nothing else.
    command += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    command += ["--disable-uvicorn-access-log"]
    log = (tmp_path_factory.mktemp("server") / "log.txt").open("w")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    running = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", running, log.name)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def _wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", log: str) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert server.poll() is None, Path(log).read_text()[-2000:]
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(f"the server did not start: {Path(log).read_text()[-2000:]}")


def ask(engine: Engine, *requests: Request) -> dict[str, Completion]:
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


def test_a_full_engine_takes_requests_again_once_little_more_than_a_step_of_them_is_left(engine: OfflineEngine) -> None:
    for i in range(16):
        engine.submit(request(f"b{i}", f"Summarise the product description: bowl number {i}."))
    assert engine.room == 0
    left = 16
    deadline = time.monotonic() + 120
    while left and time.monotonic() < deadline:
        left -= len(engine.completions(0.5))
        assert engine.room == (16 - left if left < 10 else 0)  # eight in a step, and a quarter more
    assert left == 0


def test_an_answer_is_held_to_its_schema(engine: OfflineEngine) -> None:
    found = ask(engine, request("j", "Which colour has the product?", "red", COLOUR))
    assert json.loads(found["j"].text or "")["colour"] in ("red", "blue")


def test_a_server_gives_the_answers_of_the_engine_for_the_default_prompts(
    engine: OfflineEngine, server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TINY_KEY", KEY)
    # The engine knows pictures by their digest and decodes whole answers, also one that is cut off; the server doesn't.
    requests = [*default_requests(6), Request("cut", None, "Summarise: a blue mug.", None, Sampling(max_tokens=3))]
    settings = EndpointConfig(url=server, api_key_variable="TINY_KEY", concurrency=4)
    with caplog.at_level(logging.DEBUG):
        endpoint = EndpointEngine("tiny", settings)
        answers = ask(endpoint, *requests, request("long", "much too long for the model " * 200))
        (held,) = ask(endpoint, request("j", "Which colour has the product?", "red", COLOUR)).values()
        endpoint.close()
    refused = answers.pop("long")
    assert refused.error_kind == "http_400" and "512" in (refused.error_detail or "")
    # The same text, finish reason, and numbers of tokens, for pictures and texts.
    assert answers == ask(engine, *requests)
    assert answers.pop("cut").finish_reason == "length"
    assert all(answer.finish_reason == "stop" and answer.text for answer in answers.values())
    assert json.loads(held.text or "")["colour"] in ("red", "blue")
    assert KEY not in caplog.text and KEY not in str(refused)


def test_a_server_refuses_who_has_no_key(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINY_KEY", raising=False)
    endpoint = EndpointEngine("tiny", EndpointConfig(url=server, api_key_variable="TINY_KEY"))
    assert ask(endpoint, request("a", "Mug?"))["a"].error_kind == "http_401"
    endpoint.close()


def default_requests(items: int) -> list[Request]:
    """What the default prompts ask about sample-shop items, cut by the limits of a server's unknown tokenizer."""
    limiter, requests = TextLimiter(None), []
    for item in list_items(0, items, CatalogConfig(), seed=5):
        for prompt in map(load_prompt, ("caption", "summary")):
            picture = None
            if prompt.needs_picture and item.picture_seed is not None:
                picture = Image.open(io.BytesIO(picture_bytes(item))).convert("RGB")
            if picture is None and prompt.needs_picture:
                continue
            system, user = rendered_turns(prompt, {"title": item.title, "description": item.description}, limiter)
            key = f"{prompt.name} {item.item_id}"
            digest = None if picture is None else item.item_id
            requests.append(Request(key, system, user, picture, prompt.sampling, picture_digest=digest))
    return requests


def test_a_hung_engine_then_a_killed_one_is_noticed_and_its_processes_are_ended(
    engine: OfflineEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = engine._processes
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    engine.submit(request("h", "Are you there?"))
    with monkeypatch.context() as impatient, pytest.raises(EngineDied) as hung:
        # Only here: a first step of pictures on a busy machine takes longer, and so may the end of a killed process.
        impatient.setattr(engine, "_config", CONFIG.model_copy(update={"hang_seconds": 2}))
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
