"""Large embedding models (Qwen3-Embedding and its class) through vLLM's pooling, as an encoder like the other."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.engines.guard import Guard
from tasks.engines.sentence_encoder import (
    PACKAGED_MODEL,
    EncoderConfig,
    PoolingConfig,
    check_max_tokens,
    checked_packaged_folder,
)
from tasks.engines.vllm_processes import all_running, kill_all, processes_of, set_environment, why_not_started
from tasks.stage import StageError

if TYPE_CHECKING:
    from vllm import LLM

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_GIB = 2**30


class PoolingEncoder:
    """A running vLLM engine that pools; which token, and by what, the model's own files say (else the last token)."""

    def __init__(self, config: EncoderConfig) -> None:
        """Start the engine. Raises StageError if it doesn't start, or the model takes fewer than max_tokens."""
        assert config.vllm is not None
        self._config = config
        source = str(checked_packaged_folder()) if config.model == PACKAGED_MODEL else config.model
        set_environment(source, config.vllm.kv_cache_gib)
        start = time.monotonic()
        self._guard = Guard()
        try:
            with self._guard.marking():
                self._llm = _start(source, config, config.vllm)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            self._guard.close()
            raise StageError(
                f"vLLM did not start with embed.model {config.model}: {why_not_started(error)}. "
                "The stage's log has more; embed.vllm sets its memory"
            ) from error
        self._processes = processes_of(self._llm)
        self._guard.watch(self._processes)
        limit = self._llm.model_config.max_model_len
        try:
            check_max_tokens(config, limit)
        except StageError:
            self.close()
            raise
        self._most_tokens = config.max_tokens or limit
        logger.info("vLLM started with %s in %.0f s", config.model, time.monotonic() - start)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 vectors of shape (texts, width), in the order of the texts.

        Raises StageError if vLLM's process ends: its client would wait forever (docs/decisions/engine-feeding.md).
        """
        found: list[np.ndarray] = []
        # A daemon: Python would otherwise wait at its end for a thread that waits forever.
        waiting = threading.Thread(target=lambda: found.append(self._pooled(list(texts))), daemon=True)
        waiting.start()
        while waiting.is_alive() and all_running(self._processes):
            waiting.join(_LOOK_SECONDS)
        waiting.join(_LOOK_SECONDS)
        if not found:
            kill_all(self._processes)
            raise StageError(
                "vLLM failed or its process ended while it embedded; vectors so far are stored, and the stage's log "
                "has vLLM's last words. Run the stage again, with a smaller embed.chunk or gpu_memory_utilization"
            )
        return found[0]

    def close(self) -> None:
        """End the engine's processes."""
        self._llm.llm_engine.engine_core.shutdown()
        kill_all(self._processes)
        self._guard.close()

    def _pooled(self, texts: list[str]) -> np.ndarray:
        from vllm import PoolingParams

        outputs = self._llm.encode(
            texts,
            pooling_params=PoolingParams(use_activation=self._config.normalize),
            pooling_task="embed",
            tokenization_kwargs={"truncate_prompt_tokens": self._most_tokens},
            use_tqdm=False,
        )
        return np.stack([output.outputs.data.float().numpy() for output in outputs])


def _start(source: str, config: EncoderConfig, settings: PoolingConfig) -> "LLM":
    from vllm import LLM

    bytes_given = None if settings.kv_cache_gib is None else settings.kv_cache_gib * _GIB
    return LLM(
        source,
        runner="pooling",
        revision=config.revision,
        dtype=config.dtype,
        enforce_eager=settings.enforce_eager,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel_size=settings.tensor_parallel_size,
        kv_cache_memory_bytes=bytes_given,
    )
