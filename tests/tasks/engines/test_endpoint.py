"""The endpoint engine against a server that fails on command."""

import base64
import io
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from tasks.engines.endpoint import EndpointConfig, EndpointEngine
from tasks.engines.protocol import Completion, Request
from tasks.prompt_files import Sampling

ODD_ANSWERS: dict[str, tuple[object, object, object]] = {
    "parts": ([{"type": "text", "text": "A red "}, {"type": "text", "text": "mug."}], "stop", {}),
    "half": ("A mug \ud83d", "stop", [1, 2]),
    "nothing": (None, None, {"prompt_tokens": "4"}),
    "number": (7, "stop", None),
    "aborted": ("A red", "abort", None),
}


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        user = body["messages"][-1]["content"][0]["text"]
        with self.server.lock:
            self.server.asked[user] += 1
            times = self.server.asked[user]
            self.server.bodies.append(body)
            self.server.keys.append(self.headers["Authorization"])
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        time.sleep(0.02)
        with self.server.lock:
            self.server.under_way -= 1
        if "busy" in user and times <= 2:
            return self._send(429, {"error": "busy"}, {"Retry-After": "0.05"})
        if "bad" in user:
            return self._send(400, {"error": "too long"})
        if "down" in user:
            return self._send(503, {"error": "down"})
        if "odd" in user:
            return self._send(200, {"answer": "in another form"})
        if "slow" in user:
            time.sleep(1.5)
        content, finish_reason, usage = ODD_ANSWERS.get(
            user, (f"about {user}", "stop", {"prompt_tokens": 4, "completion_tokens": 2})
        )
        choice = {"message": {"content": content}, "finish_reason": finish_reason}
        self._send(200, {"choices": [choice], "usage": usage})

    def _send(self, status: int, body: dict, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    running = _Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


def ask(server_port: int, *users: str, picture: Image.Image | None = None, **settings: object) -> dict[str, Completion]:
    values = {"url": f"http://127.0.0.1:{server_port}/v1", "retries": 3, "first_wait_seconds": 0.05, **settings}
    engine = EndpointEngine("a-model", EndpointConfig.model_validate(values))
    for user in users:
        engine.submit(Request(user, None, user, picture, Sampling(max_tokens=9)))
    found: dict[str, Completion] = {}
    deadline = time.monotonic() + 20
    while len(found) < len(users) and time.monotonic() < deadline:
        found |= {completion.key: completion for completion in engine.completions(0.2)}
    engine.close()
    return found


def test_every_request_ends_as_one_completion_of_the_right_kind(server: _Server) -> None:
    users = ("a", "b", "busy", "bad", "down", "odd", "slow")
    found = ask(server.server_port, *users, timeout_seconds=0.5, retries=2)
    assert found["a"] == Completion("a", "about a", "stop", 4, 2)
    assert found["busy"].text == "about busy"
    kinds = {user: completion.error_kind for user, completion in found.items() if completion.error_kind}
    assert kinds == {"bad": "http_400", "down": "http_503", "odd": "bad_response", "slow": "timeout"}
    # The first try, and two more where trying again can help.
    assert {user: server.asked[user] for user in ("busy", "bad", "down", "slow")} == {
        "busy": 3, "bad": 1, "down": 3, "slow": 3,
    }  # fmt: skip


def test_an_odd_answer_is_taken_or_is_a_failure_and_costs_no_other(server: _Server) -> None:
    found = ask(server.server_port, *ODD_ANSWERS, "a")
    assert found["parts"].text == "A red mug."
    assert found["half"] == Completion("half", "A mug ?", "stop")
    assert found["nothing"] == Completion("nothing", "")
    assert (found["number"].error_kind, found["aborted"].error_kind) == ("bad_response", "request_failed")
    assert "HTTP 200" in (found["number"].error_detail or "")
    assert found["a"].text == "about a"


def test_no_more_than_the_allowed_requests_are_under_way(server: _Server) -> None:
    found = ask(server.server_port, *(f"{i}" for i in range(30)), concurrency=4)
    assert len(found) == 30
    assert server.most_under_way <= 4


def test_the_picture_follows_the_instruction_and_arrives_unharmed(server: _Server) -> None:
    ask(server.server_port, "look", picture=Image.new("RGB", (3, 2), (10, 20, 30)))
    text, picture = server.bodies[0]["messages"][0]["content"]
    assert text == {"type": "text", "text": "look"}
    content = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(content)).getpixel((2, 1)) == (10, 20, 30)
    assert (server.bodies[0]["max_tokens"], server.bodies[0]["temperature"]) == (9, 0.0)


def test_the_key_comes_from_the_environment_and_is_never_logged(
    server: _Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SHOP_KEY", "very-secret")
    with caplog.at_level(logging.DEBUG):
        found = ask(server.server_port, "a", "bad", api_key_variable="SHOP_KEY")
    assert set(server.keys) == {"Bearer very-secret"}
    assert "very-secret" not in caplog.text
    assert "very-secret" not in str(found)


def test_a_server_that_is_not_there_is_a_failed_connection() -> None:
    found = ask(9, "a", retries=1)
    assert found["a"].error_kind == "connection"
