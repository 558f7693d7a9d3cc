"""An engine in a process of its own, one a GPU: each sees its own devices, and renders its requests on its own cores.

The process talks through a pipe. When the pipe closes, whoever started it has ended, however it ended, and the engine
ends with it.
"""

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Literal

from tasks.engines.protocol import Completion, Engine, EngineDied, Request
from tasks.stage import StageError

_LOOK_SECONDS = 0.02  # how long the process waits for answers before it looks for new requests
_CLOSE_SECONDS = 20.0  # how long it may take to end by itself

Kind = Literal["ready", "completions", "died", "refused"]
Message = tuple[Kind, int | list[Completion] | tuple[str, str]]


class ProcessEngine:
    """The near end of an engine in another process."""

    def __init__(self, start: Callable[[], Engine], environment: Mapping[str, str], silent_seconds: float) -> None:
        """Start a process that sets `environment`, then calls `start` (a function of some module, or a partial of one).

        Longer silence than `silent_seconds`, with requests under way, counts as a hang. Raises StageError if `start`
        does, or the process ends.
        """
        spawning = multiprocessing.get_context("spawn")  # a fork of a process with threads can deadlock
        self._pipe, far_end = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(far_end, start, dict(environment)), name="engine")
        self._process.start()
        far_end.close()
        self._silent_seconds = silent_seconds
        self._under_way = 0
        self._last_sign = time.monotonic()
        try:
            kind, content = self._receive()
        except EngineDied as death:
            self.close()
            raise StageError(f"the engine's process did not start: {death}; the stage's log has its words") from death
        if kind == "refused":
            self.close()
            raise StageError(str(content))
        assert isinstance(content, int)
        self._most = content

    @property
    def room(self) -> int:
        return self._most - self._under_way

    def submit(self, request: Request) -> None:
        if self._under_way == 0:
            self._last_sign = time.monotonic()
        self._under_way += 1
        try:
            self._pipe.send(request)
        except OSError as error:
            raise self._death() from error

    def completions(self, timeout_seconds: float) -> Sequence[Completion]:
        found: list[Completion] = []
        while self._pipe.poll(0 if found else timeout_seconds):
            kind, content = self._receive()
            if kind == "died":
                assert isinstance(content, tuple)
                raise EngineDied(*content)
            assert isinstance(content, list)
            found += content
        now = time.monotonic()
        if found:
            self._last_sign = now
            self._under_way -= len(found)
        elif self._under_way and now - self._last_sign > self._silent_seconds:
            raise EngineDied("engine_hung", f"no sign of the engine's process for {now - self._last_sign:.0f} s")
        return found

    def close(self) -> None:
        self._pipe.close()  # the process's sign to end
        self._process.join(_CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Message:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error

    def _death(self) -> EngineDied:
        self._process.join(1.0)
        return EngineDied("engine_died", f"the engine's process ended with exit status {self._process.exitcode}")


def _serve(pipe: Connection, start: Callable[[], Engine], environment: Mapping[str, str]) -> None:
    """Run an engine for the near end until that closes the pipe, or the engine dies."""
    os.environ.update(environment)
    with suppress(OSError):  # the near end is gone: nobody to tell
        try:
            engine = start()
        except StageError as error:
            pipe.send(("refused", str(error)))
            return
        try:
            pipe.send(("ready", engine.room))
            _exchange(pipe, engine)
        except EngineDied as death:
            pipe.send(("died", (death.kind, str(death))))
        finally:
            engine.close()


def _exchange(pipe: Connection, engine: Engine) -> None:
    # A thread of its own reads, so that the two ends never wait for each other to read.
    inbox: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(pipe, inbox), daemon=True).start()
    most = engine.room
    while True:
        while engine.room == most or not inbox.empty():
            request = inbox.get()
            if request is None:
                return
            engine.submit(request)
        if completions := engine.completions(_LOOK_SECONDS):
            pipe.send(("completions", list(completions)))


def _read(pipe: Connection, inbox: "queue.SimpleQueue[Request | None]") -> None:
    with suppress(EOFError, OSError):
        while True:
            inbox.put(pipe.recv())
    inbox.put(None)
