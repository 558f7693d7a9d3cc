"""vLLM's offline engine, fed and drained continuously: no barrier, and no waiting for the slowest.

vLLM runs the model in processes of its own. One thread here renders requests into its queue and takes answers out of
it, step by step, so that the next requests are made ready while the model works. The thread also shields the stage:
when the model's process is killed, vLLM 0.32's synchronous client waits for it forever, and so it does when the model
hangs (docs/decisions/engine-feeding.md). The stage's own thread sees both from outside, ends the processes and reports
EngineDied.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tasks.engines.guard import Guard
from tasks.engines.protocol import Completion, EngineDied, Request
from tasks.engines.vllm_processes import all_running, kill_all, processes_of, set_environment, why_not_started
from tasks.stage import StageError

if TYPE_CHECKING:
    from vllm import LLM, CompletionOutput, PoolingRequestOutput, RequestOutput, SamplingParams

logger = logging.getLogger(__name__)

# What vLLM raises for a request it can't take: too long, a picture its processor refuses, a schema it can't hold to.
_REFUSALS = (ValueError, TypeError, KeyError, IndexError, NotImplementedError, RuntimeError, OSError)
_GIB = 2**30
_PAUSE_SECONDS = 0.005  # how long the feeder waits for requests before it looks for answers
_LOOK_SECONDS = 0.2  # between two looks at vLLM's processes
_RENDERED_BETWEEN_STEPS = 16  # with one, the queue before the model runs dry: a third more steps for the same answers
_MOST_IN_FLIGHT = 1024  # 3 GB of pictures of a million pixels


class OfflineConfig(BaseModel):
    """vLLM's offline engine. Only `dtype` bears on the answers; the rest is room and speed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["offline"] = "offline"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="weights' type; auto: the model's own"
    )
    max_model_len: int | None = Field(None, ge=16, description="longest prompt and answer in tokens; None: the model's")
    max_num_seqs: int | None = Field(None, ge=1, description="requests in one step; None: vLLM's choice")
    enforce_eager: bool = Field(False, description="no compilation: a faster start, slower steps on GPUs")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="share of the GPU's memory the engine may take")
    kv_cache_gib: int | None = Field(None, ge=1, description="cache size in GiB; None: what memory allows")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share the model")
    devices: tuple[str, ...] = Field(
        (),
        description="an engine for each, in a process of its own: what it sees as CUDA_VISIBLE_DEVICES, such as "
        "[0, 1], or ['0,1', '2,3'] with tensor_parallel_size 2; none: one engine, that sees all",
    )
    in_flight: int | None = Field(
        None,
        ge=1,
        description="requests handed to an engine ahead; bounds the pictures in memory. None: twice what it works on "
        "in a step, but no more than 1024. Filled up again when a step and a quarter of it are left",
    )
    hang_seconds: float = Field(300.0, gt=0, description="no answer for so long, with requests under way: it hangs")

    @field_validator("devices", mode="before")
    @classmethod
    def _as_texts(cls, devices: Any) -> Any:
        return [str(device) for device in devices] if isinstance(devices, list | tuple) else devices


class OfflineEngine:
    """One running vLLM engine. The stage's thread calls it; a thread of its own talks to vLLM."""

    def __init__(
        self, model: str, revision: str | None, processor: Mapping[str, Any], config: OfflineConfig, pictures: bool
    ) -> None:
        """Start the engine; 30 s on two cores, minutes for large models. `pictures`: whether any view has one.

        Raises StageError if it doesn't start.
        """
        self._config = config
        self._inbox: queue.Queue[Request | None] = queue.Queue()
        self._outbox: queue.Queue[list[Completion] | EngineDied] = queue.Queue()  # a list a step: one wake-up each
        self._under_way = 0
        self._last_sign = self._last_look = time.monotonic()
        set_environment(model, config.kv_cache_gib)
        start = time.monotonic()
        self._guard = Guard()
        try:
            with self._guard.marking():
                self._llm = _start(model, revision, processor, config, pictures)
        except _REFUSALS as error:
            self._guard.close()
            raise StageError(
                f"vLLM did not start with {model}: {why_not_started(error)}. The stage's log has more; "
                "describe.engine sets its memory, length and types"
            ) from error
        _warn_of_slow_dtype(self._llm)
        self._tokenizer = self._llm.get_tokenizer()
        self._processes = processes_of(self._llm)
        self._guard.watch(self._processes)
        at_once = self._llm.llm_engine.vllm_config.scheduler_config.max_num_seqs
        self._in_flight = config.in_flight or min(2 * at_once, _MOST_IN_FLIGHT)
        self._refill_below = min(at_once + at_once // 4, self._in_flight)
        self._filling = True
        logger.info("vLLM started with %s in %.0f s", model, time.monotonic() - start)
        self._thread = threading.Thread(target=self._work, name="vllm-feeder", daemon=True)
        self._thread.start()

    @property
    def room(self) -> int:
        return self._in_flight - self._under_way if self._filling else 0

    def submit(self, request: Request) -> None:
        if self._under_way == 0:
            self._last_sign = time.monotonic()
        self._under_way += 1
        self._filling = self._under_way < self._in_flight
        self._inbox.put(request)

    def completions(self, timeout_seconds: float) -> Sequence[Completion]:
        found: list[Completion] = []
        with suppress(queue.Empty):
            self._take(self._outbox.get(timeout_seconds > 0, timeout_seconds), found)
            while True:
                self._take(self._outbox.get_nowait(), found)
        if not found and self._under_way and time.monotonic() - self._last_look >= _LOOK_SECONDS:
            self._check_alive()
        return found

    def close(self) -> None:
        self._inbox.put(None)
        if self._under_way:
            kill_all(self._processes)  # the thread may wait for an answer that won't come; it is left behind
        else:
            self._thread.join()
            self._llm.llm_engine.engine_core.shutdown()
            kill_all(self._processes)
        self._guard.close()

    def _take(self, result: "list[Completion] | EngineDied", found: list[Completion]) -> None:
        if isinstance(result, EngineDied):
            raise result
        self._last_sign = time.monotonic()
        self._under_way -= len(result)
        # In bursts: where rendering shares a core with vLLM's scheduler, a few requests delay a step as much as many.
        self._filling = self._filling or self._under_way < self._refill_below
        found += result

    def _check_alive(self) -> None:
        self._last_look = time.monotonic()
        silent = time.monotonic() - self._last_sign
        if not all_running(self._processes):
            raise EngineDied("engine_died", "a process of vLLM ended by itself; its last lines are in the stage's log")
        if silent > self._config.hang_seconds:
            raise EngineDied("engine_hung", f"no answer for {silent:.0f} s with {self._under_way} requests under way")

    def _work(self) -> None:
        """Feed and step until told to stop. Runs in the feeder thread.

        vLLM's `step` waits for the model's next tokens. The model goes on without it, but nothing is rendered
        meanwhile, and the model works on the few requests it has; so it is called for what has arrived only.
        """
        keys: dict[str, str] = {}
        pending: deque[Request] = deque()
        arrived: queue.Queue[Any] = vars(self._llm.llm_engine.engine_core)["outputs_queue"]
        wait_seconds: float | None = None
        try:
            while self._receive(pending, wait_seconds):
                for _ in range(min(len(pending), _RENDERED_BETWEEN_STEPS)):
                    self._enqueue(pending.popleft(), keys)
                while keys and not arrived.empty():
                    outputs = self._llm.llm_engine.step()
                    if outputs:
                        self._outbox.put([self._completion(keys.pop(output.request_id), output) for output in outputs])
                wait_seconds = (0.0 if pending else _PAUSE_SECONDS) if keys or pending else None
        except Exception as error:
            self._outbox.put(EngineDied("engine_died", f"{type(error).__name__}: {error}"))
            if not _is_death(error):
                raise

    def _receive(self, pending: deque[Request], wait_seconds: float | None) -> bool:
        """Move new requests to `pending`, waiting so long for the first (None: until one comes).

        Return False once told to stop.
        """
        with suppress(queue.Empty):
            request = self._inbox.get(wait_seconds != 0, wait_seconds)
            while request is not None:
                pending.append(request)
                request = self._inbox.get_nowait()
            return False
        return True

    def _enqueue(self, request: Request, keys: dict[str, str]) -> None:
        from vllm.exceptions import VLLMClientError

        try:
            ids = self._llm.enqueue_chat(_messages(request), _sampling(request), use_tqdm=False)
        except (VLLMClientError, *_REFUSALS) as error:
            detail = f"{type(error).__name__}: {error}"
            self._outbox.put([Completion(request.key, error_kind="request_refused", error_detail=detail)])
        else:
            keys[ids[0].rsplit("-", 1)[0]] = request.key

    def _completion(self, key: str, output: "RequestOutput | PoolingRequestOutput[Any]") -> Completion:
        assert isinstance(output.outputs, list), "the engine was started to generate"
        answer = output.outputs[0]
        if answer.finish_reason in ("error", "abort"):
            return Completion(key, error_kind="request_failed", error_detail=f"vLLM ended it: {answer.finish_reason}")
        prompt_tokens = len(output.prompt_token_ids or ())
        return Completion(key, self._text(answer), answer.finish_reason, prompt_tokens, len(answer.token_ids))

    def _text(self, answer: "CompletionOutput") -> str:
        """Decode a finished answer as a whole: vLLM decodes token by token, for streams, beside the model's next step.

        The token that ended an answer by itself is no part of its text.
        """
        said = answer.token_ids[:-1] if answer.finish_reason == "stop" else answer.token_ids
        tokens = self._tokenizer.convert_ids_to_tokens(list(said), skip_special_tokens=True)
        # None: an id that a padded vocabulary has and the tokenizer doesn't.
        return self._tokenizer.convert_tokens_to_string([token for token in tokens if token is not None])


def _start(
    model: str, revision: str | None, processor: Mapping[str, Any], config: OfflineConfig, pictures: bool
) -> "LLM":
    from vllm import LLM

    chosen: dict[str, Any] = {"max_model_len": config.max_model_len, "max_num_seqs": config.max_num_seqs}
    if config.kv_cache_gib is not None:
        chosen["kv_cache_memory_bytes"] = config.kv_cache_gib * _GIB
    return LLM(
        model,
        revision=revision,
        dtype=config.dtype,
        enforce_eager=config.enforce_eager,
        gpu_memory_utilization=config.gpu_memory_utilization,
        tensor_parallel_size=config.tensor_parallel_size,
        limit_mm_per_prompt={"image": int(pictures)},
        mm_processor_kwargs=dict(processor) or None,
        # Free white space in JSON lets a weak model write nothing else until it is cut off.
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
        **{name: value for name, value in chosen.items() if value is not None},
    )


def _warn_of_slow_dtype(llm: "LLM") -> None:
    """Say so where the processor has no instructions for the weights' type.

    Not changed behind the user's back: float32 takes twice the memory, and the type is a part of an answer's key.
    """
    import torch
    from vllm.platforms import CpuArchEnum, current_platform

    dtype = llm.llm_engine.vllm_config.model_config.dtype
    x86 = current_platform.is_cpu() and current_platform.get_cpu_architecture() == CpuArchEnum.X86
    if x86 and dtype in (torch.bfloat16, torch.float16) and not torch.cpu._is_avx512_supported():
        logger.warning(
            "This processor has no AVX-512, and computes %s slowly: describe.engine.dtype float32 answers several "
            "times as fast, in twice the memory",
            str(dtype).removeprefix("torch."),
        )


def _messages(request: Request) -> list[Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": request.user}]
    if request.picture is not None:
        # After the instruction: the prompts of a view then share their beginning, and the engine its cache of it.
        picture = {"type": "image_pil", "image_pil": request.picture}
        # Its name in vLLM's caches, which hash the pixels of a picture without one.
        content.append(picture if request.picture_digest is None else {**picture, "uuid": request.picture_digest})
    system = [] if request.system is None else [{"role": "system", "content": request.system}]
    return [*system, {"role": "user", "content": content}]


def _sampling(request: Request) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    schema = request.json_schema
    return SamplingParams(
        **request.sampling.model_dump(),
        detokenize=False,  # see OfflineEngine._text
        structured_outputs=None if schema is None else StructuredOutputsParams(json=dict(schema)),
    )


def _is_death(error: Exception) -> bool:
    from vllm.v1.engine.exceptions import EngineDeadError

    return isinstance(error, EngineDeadError)
