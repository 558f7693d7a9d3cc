"""An engine in a process of its own; here one that asks the answering server, as the real one would ask vLLM."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tasks.engines.endpoint import EndpointConfig, EndpointEngine
from tasks.engines.own_process import ProcessEngine
from tasks.engines.protocol import Completion, EngineDied, Request
from tasks.prompt_files import Sampling, load_prompt
from tasks.stage import StageError


def request(user: str) -> Request:
    return Request(user, None, user, None, Sampling())


def wait_for(engine: ProcessEngine, number: int, seconds: float = 30.0) -> dict[str, Completion]:
    found: dict[str, Completion] = {}
    deadline = time.monotonic() + seconds
    while len(found) < number and time.monotonic() < deadline:
        found |= {completion.key: completion for completion in engine.completions(0.1)}
    return found


@pytest.fixture(scope="module")
def engine(answering_server) -> Iterator[ProcessEngine]:
    config = EndpointConfig(url=answering_server.url, api_key_variable="CUDA_VISIBLE_DEVICES", concurrency=4)
    running = ProcessEngine(partial(EndpointEngine, "m", config), {"CUDA_VISIBLE_DEVICES": "3"}, silent_seconds=120)
    yield running
    running.close()


def test_it_answers_from_its_own_process_with_its_own_environment(engine: ProcessEngine, answering_server) -> None:
    assert engine.room == 8  # twice the requests under way
    for i in range(8):
        engine.submit(request(f"mug {i}"))
    assert engine.room == 0
    assert {key: answer.text for key, answer in wait_for(engine, 8).items()} == {
        f"mug {i}": f"about mug {i}" for i in range(8)
    }
    assert engine.room == 8
    assert answering_server.keys == {"Bearer 3"}
    assert os.environ.get("CUDA_VISIBLE_DEVICES") != "3"


def test_a_process_that_stands_still_hangs_and_one_that_ended_died(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_silent_seconds", 1)
    pid = engine._process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    engine.submit(request("are you there"))
    with pytest.raises(EngineDied) as hung:
        wait_for(engine, 1)
    assert hung.value.kind == "engine_hung"
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineDied) as died:
        wait_for(engine, 1)
    assert died.value.kind == "engine_died" and "-9" in str(died.value)


def test_an_engine_that_does_not_start_says_why() -> None:
    with pytest.raises(StageError, match="no prompt nowhere"):
        ProcessEngine(partial(load_prompt, "nowhere"), {}, silent_seconds=60)  # type: ignore[arg-type]
    with pytest.raises(StageError, match=r"did not start: .*exit status 7"):
        ProcessEngine(partial(os._exit, 7), {}, silent_seconds=60)
