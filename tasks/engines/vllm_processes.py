"""vLLM's own processes as seen from outside: what they inherit, which they are, whether they live, and their end.

Seen from outside, because vLLM 0.32's synchronous client waits forever for a process that was killed
(docs/decisions/engine-feeding.md).
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tasks.crashes import last_error, own_log

if TYPE_CHECKING:
    from vllm import LLM


def set_environment(model: str, kv_cache_gib: int | None) -> None:
    """Settings that vLLM takes from the environment only; what the user has set stays."""
    if Path(model).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all there is to load is there
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # A fork of a process with threads (polars, deltalake) can deadlock.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if kv_cache_gib is not None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)


def processes_of(llm: "LLM") -> list[psutil.Process]:
    """Return the engine's process and all that it started (on CPUs, and with several GPUs, workers)."""
    manager = vars(llm.llm_engine.engine_core)["resources"].engine_manager
    roots = [psutil.Process(process.pid) for process in manager.processes]
    return [process for root in roots for process in (root, *root.children(recursive=True))]


def why_not_started(error: Exception) -> str:
    """What an error of vLLM's start says; the last error in the log of this process where it says to look there."""
    says_nothing = "initialization failed"
    log = own_log() if says_nothing in str(error) else None
    return ((log and last_error(log, leave_out=says_nothing)) or str(error)).rstrip(".")


def all_running(processes: Sequence[psutil.Process]) -> bool:
    return all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def kill_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
