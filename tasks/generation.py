"""Getting answers out of engines that may fail: every request ends as one completion, whatever an engine does.

Requests flow without a barrier. When an engine dies or hangs it is started again, and what it had not answered is
asked one request at a time: the one that brings it down a second time, alone, is the culprit and is recorded as failed,
and all others get their answers. (One at a time rather than by halves: a start costs more than a few hundred single
answers, see docs/decisions/engine-feeding.md.) Several engines draw from one queue; each minds its own deaths.
"""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

from tasks.engines.protocol import Completion, Engine, EngineDied, Request
from tasks.preparation import Preparation
from tasks.stage import StageError

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.2  # how long the loop sleeps, for an answer or a request, before it looks at everything else again

Row = TypeVar("Row")
Prepared = Request | Completion  # a row that could not become a request is a completion already


class Generation:
    """Requests through one engine that is started when the first comes, and again when it dies."""

    def __init__(self, start_engine: Callable[[], Engine], max_restarts: int) -> None:
        self._start_engine = start_engine
        self._restarts_left = max_restarts
        self._engine: Engine | None = None
        self._under_way: dict[str, Request] = {}
        self._suspects: deque[Request] = deque()  # were under way when an engine died
        self._deaths: Counter[str] = Counter()
        self._last_death: EngineDied | None = None

    def answers(self, preparation: Preparation[Row, Prepared]) -> Iterator[list[Completion]]:
        """Ask for everything that `preparation` gives; yield completions as they come, often none.

        The engine stays for a next call. Raises StageError if it needs more starts than allowed.
        """
        while self._under_way or self._suspects or not preparation.exhausted:
            engine = self._engine = self._engine or self._started()
            try:
                yield self._feed(engine, preparation)
                # With room, the loop waits for the next request and not for an answer: preparing sets the pace.
                hungry = engine.room > 0 and not self._suspects and not preparation.exhausted
                yield self._finished(engine, 0.0 if hungry else _WAIT_SECONDS)
            except EngineDied as death:
                self.close()
                self._last_death = death
                yield self._after(death)

    def close(self) -> None:
        """Let go of the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    def _started(self) -> Engine:
        """Start the engine; again after a death, where there is still something to ask, so often as is allowed."""
        if (death := self._last_death) is not None:
            if self._restarts_left == 0:
                raise StageError(
                    f"the engine died once more than describe.max_restarts allows ({death.kind}: {death}). Answers so "
                    "far are stored; look at the stage's log for the cause, then run the stage again"
                )
            self._restarts_left -= 1
        return self._start_engine()

    def _feed(self, engine: Engine, preparation: Preparation[Row, Prepared]) -> list[Completion]:
        """Submit what there is room for; return rows that failed before they reached the engine."""
        if self._suspects:
            if not self._under_way:
                self._submit(engine, self._suspects.popleft())
            return []
        failed: list[Completion] = []
        wait_seconds = _WAIT_SECONDS  # for the first; the others go along if they are ready
        while engine.room > 0:
            prepared = preparation.take(wait_seconds)
            wait_seconds = 0.0
            if prepared is None:
                break
            if isinstance(prepared, Completion):
                failed.append(prepared)
            else:
                self._submit(engine, prepared)
        return failed

    def _submit(self, engine: Engine, request: Request) -> None:
        # Noted first: a request that kills the engine while it is handed over is under way, too.
        self._under_way[request.key] = request
        engine.submit(request)

    def _finished(self, engine: Engine, wait_seconds: float) -> list[Completion]:
        if not self._under_way:
            return []
        completions = list(engine.completions(wait_seconds))
        for completion in completions:
            del self._under_way[completion.key]
        return completions

    def _after(self, death: EngineDied) -> list[Completion]:
        """Sort out what was under way; return the culprit's failure if it is known now."""
        lost = list(self._under_way.values())
        self._under_way.clear()
        self._deaths.update(request.key for request in lost)
        logger.warning("%s: %s; %d requests to ask again, one at a time", death.kind, death, len(lost))
        if len(lost) == 1 and self._deaths[lost[0].key] > 1:
            return [Completion(lost[0].key, error_kind=death.kind, error_detail=str(death))]
        self._suspects.extendleft(reversed(lost))
        return []


def run_generations(
    generations: Sequence[Generation],
    preparation: Preparation[Row, Prepared],
    accept: Callable[[list[Completion]], None],
) -> None:
    """Ask for everything that `preparation` gives; hand completions to `accept`, one list at a time, often empty.

    Each engine takes what it has room for, several in a thread each. What stops one of them stops all, and is raised.
    """
    if len(generations) == 1:
        _run_one(generations[0], preparation, accept)
        return
    stop, accepting = threading.Event(), threading.Lock()

    def accept_alone(completions: list[Completion]) -> None:
        if stop.is_set():
            raise _Stopped
        with accepting:
            accept(completions)

    with ThreadPoolExecutor(len(generations), thread_name_prefix="generation") as pool:
        threads = [pool.submit(_run_one, generation, preparation, accept_alone) for generation in generations]
        try:
            wait(threads, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for error in (thread.exception() for thread in threads):
        if error is not None and not isinstance(error, _Stopped):
            raise error


class _Stopped(Exception):
    """Another engine's thread failed, or the run was interrupted."""


def _run_one(
    generation: Generation, preparation: Preparation[Row, Prepared], accept: Callable[[list[Completion]], None]
) -> None:
    try:
        for completions in generation.answers(preparation):
            accept(completions)
    finally:
        generation.close()
