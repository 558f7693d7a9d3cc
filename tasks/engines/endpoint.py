"""Any OpenAI-compatible server (a `vllm serve` elsewhere), asked by a bounded number of threads."""

import base64
import io
import logging
import os
import queue
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal

import httpx
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from tasks.engines.protocol import Completion, Request

logger = logging.getLogger(__name__)

_TRY_AGAIN = frozenset({408, 409, 425, 429, *range(500, 600)})
_UNFINISHED = ("abort", "error")  # the server ended it, for reasons of its own


class EndpointConfig(BaseModel):
    """A server that answers OpenAI's chat completions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["endpoint"] = "endpoint"
    url: str = Field(pattern=r"^https?://", description="base address, such as http://localhost:8000/v1")
    api_key_variable: str = Field("OPENAI_API_KEY", description="environment variable that holds the key; never logged")
    concurrency: int = Field(32, ge=1, description="requests under way at a time")
    timeout_seconds: float = Field(120.0, gt=0, description="longest wait for one answer")
    retries: int = Field(5, ge=0, description="tries after the first, for overload, server errors and lost connections")
    first_wait_seconds: float = Field(0.5, gt=0, description="longest wait before the first retry; doubles each time")
    longest_wait_seconds: float = Field(60.0, gt=0, description="cap of the waits, the server's Retry-After included")


class EndpointEngine:
    """A server elsewhere. It can't die under us: what it fails at, after the retries, is a failed completion."""

    def __init__(self, model: str, config: EndpointConfig) -> None:
        self._model = model
        self._config = config
        self._outbox: queue.Queue[Completion] = queue.Queue()
        self._under_way = 0
        self._closing = threading.Event()
        key = os.environ.get(config.api_key_variable)
        self._client = httpx.Client(
            base_url=config.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=config.timeout_seconds,
            limits=httpx.Limits(max_connections=config.concurrency),
        )
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="endpoint")

    @property
    def room(self) -> int:
        return 2 * self._config.concurrency - self._under_way

    def submit(self, request: Request) -> None:
        self._under_way += 1
        self._pool.submit(self._answer, request)

    def completions(self, timeout_seconds: float) -> Sequence[Completion]:
        found: list[Completion] = []
        with suppress(queue.Empty):
            found.append(self._outbox.get(timeout=timeout_seconds))
            while True:
                found.append(self._outbox.get_nowait())
        self._under_way -= len(found)
        return found

    def close(self) -> None:
        self._closing.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _answer(self, request: Request) -> None:
        try:
            completion = self._ask(request)
        except Exception as error:  # whatever it is: without a completion the run would wait for ever
            logger.debug("request %s failed", request.key, exc_info=True)
            completion = Completion(
                request.key, error_kind=_kind(error), error_detail=f"{type(error).__name__}: {error}"
            )
        self._outbox.put(completion)

    def _ask(self, request: Request) -> Completion:
        body = _body(self._model, request)
        for attempt in range(self._config.retries + 1):
            last = attempt == self._config.retries or self._closing.is_set()
            try:
                response = self._client.post("/chat/completions", json=body)
            except httpx.TransportError:
                if last:
                    raise
                self._closing.wait(self._wait_seconds(attempt, None))
                continue
            if response.status_code not in _TRY_AGAIN or last:
                return _completion(request.key, response)
            self._closing.wait(self._wait_seconds(attempt, response.headers.get("Retry-After")))
        raise AssertionError("the last try returns or raises")

    def _wait_seconds(self, attempt: int, retry_after: str | None) -> float:
        """Return the wait before the next try: what the server asks for, else "full jitter" exponential back-off."""
        longest = self._config.longest_wait_seconds
        with suppress(ValueError, TypeError):
            asked = float(retry_after or "") * random.uniform(1.0, 1.2)
            return min(longest, max(asked, random.uniform(0, self._config.first_wait_seconds)))
        return random.uniform(0, min(longest, self._config.first_wait_seconds * 2**attempt))


def _body(model: str, request: Request) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": request.user}]
    if request.picture is not None:
        content.append({"type": "image_url", "image_url": {"url": _data_url(request.picture)}})
    system = [] if request.system is None else [{"role": "system", "content": request.system}]
    sampling = request.sampling.model_dump(exclude_defaults=True) | {
        "temperature": request.sampling.temperature,
        "max_tokens": request.sampling.max_tokens,
    }
    body = {"model": model, "messages": [*system, {"role": "user", "content": content}], **sampling}
    if request.json_schema is not None:
        form = {"name": "answer", "schema": dict(request.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _completion(key: str, response: httpx.Response) -> Completion:
    said = f"HTTP {response.status_code}: {response.text[:500]}"
    if not response.is_success:
        return Completion(key, error_kind=f"http_{response.status_code}", error_detail=said)
    try:
        answer = response.json()
        choice, usage = answer["choices"][0], answer.get("usage")
        text, finish_reason = _text(choice["message"]["content"]), choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no chat completion ({error}); {said}") from error
    if finish_reason in _UNFINISHED:
        return Completion(key, error_kind="request_failed", error_detail=f"the server ended it: {finish_reason}")
    tokens = (_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
    return Completion(key, text, finish_reason and str(finish_reason), *tokens)


def _text(content: object) -> str:
    """The answer's text, of several parts together; half a character becomes a question mark."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str | None):
        raise TypeError(f"the content is {type(content).__name__}, not text")
    return (content or "").encode("utf-8", "replace").decode()


def _count(usage: object, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None


def _kind(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "timeout"
    return "connection" if isinstance(error, httpx.TransportError) else "bad_response"
