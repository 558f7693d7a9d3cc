"""Ends an engine's processes when the process that started them has ended, however it ended.

vLLM's processes outlive a stage that is killed, and keep its memory. They can't be told in advance to end with it, so
a small process of its own stands by: `python -m tasks.engines.guard MARK` waits until its standard input closes, then
kills every process that has MARK in its environment, which children inherit, and those whose numbers it was given.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tasks.engines.vllm_processes import kill_all

_VARIABLE = "DMESR_ENGINE"
_END_SECONDS = 20.0


class Guard:
    """The guard of what is started while `marking`."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.engines.guard", self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # what ends our group must not end it first
        )

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Processes started inside carry the mark."""
        os.environ[_VARIABLE] = self._mark
        try:
            yield
        finally:
            del os.environ[_VARIABLE]

    def watch(self, processes: Sequence[psutil.Process]) -> None:
        """Name processes that are to end, too: those that write their titles over their environment lose the mark."""
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{process.pid}\n" for process in processes).encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """End what is left of the marked processes, and the guard."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_END_SECONDS)


def _kill_marked(mark: str) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone, or another user's
            if carries(process, mark):
                process.kill()


def carries(process: psutil.Process, mark: str) -> bool:
    """Whether the process was started with `mark` in its environment. Raises psutil.Error, or OSError."""
    block = Path(f"/proc/{process.pid}/environ")
    # psutil stops reading at an empty entry, and vLLM's processes write their titles over the first ones.
    return (
        mark.encode() in block.read_bytes()
        if block.exists()
        else any(mark in f"{k}={v}" for k, v in process.environ().items())
    )


def main() -> None:
    named: list[psutil.Process] = []  # by number and start: a number used again is another process
    for line in sys.stdin:
        with suppress(psutil.NoSuchProcess):
            named.append(psutil.Process(int(line)))
    kill_all(named)
    _kill_marked(sys.argv[1])
    _kill_marked(sys.argv[1])  # what one of them had just started


if __name__ == "__main__":
    main()
