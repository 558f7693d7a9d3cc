"""Getting answers out of an engine that may fail: every request ends as one completion, whatever the engine does.

Requests flow without a barrier. When the engine dies or hangs it is started again, and what it had not answered is
asked one request at a time: the one that brings it down a second time, alone, is the culprit and is recorded as failed,
and all others get their answers. (One at a time rather than by halves: a start costs more than a few hundred single
answers, see docs/decisions/engine-feeding.md.)
"""

import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import TypeVar

from tasks.engines.protocol import Completion, Engine, EngineDied, Request
from tasks.preparation import Preparation
from tasks.stage import StageError

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 0.2  # how long the loop sleeps for an answer before it looks at everything else again

Row = TypeVar("Row")
Prepared = Request | Completion  # a row that could not become a request is a completion already


class Generation:
    """One run of requests through an engine that is started again when it dies."""

    def __init__(self, start_engine: Callable[[], Engine], max_restarts: int) -> None:
        self._start_engine = start_engine
        self._restarts_left = max_restarts
        self._under_way: dict[str, Request] = {}
        self._suspects: deque[Request] = deque()  # were under way when an engine died
        self._deaths: Counter[str] = Counter()

    def run(self, preparation: Preparation[Row, Prepared], accept: Callable[[list[Completion]], None]) -> None:
        """Ask for everything that `preparation` gives; hand completions to `accept`, often (also none).

        Raises StageError if the engine needs more starts than allowed.
        """
        engine = self._start_engine()
        try:
            while self._under_way or self._suspects or not preparation.exhausted:
                try:
                    accept(self._feed(engine, preparation))
                    accept(self._finished(engine))
                except EngineDied as death:
                    engine.close()
                    accept(self._after(death))
                    engine = self._start_engine()
        finally:
            engine.close()

    def _feed(self, engine: Engine, preparation: Preparation[Row, Prepared]) -> list[Completion]:
        """Submit what there is room for; return rows that failed before they reached the engine."""
        if self._suspects:
            if not self._under_way:
                self._submit(engine, self._suspects.popleft())
            return []
        failed: list[Completion] = []
        while engine.room > 0:
            prepared = preparation.take(wait=not self._under_way and not failed)
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

    def _finished(self, engine: Engine) -> list[Completion]:
        if not self._under_way:
            return []
        completions = list(engine.completions(_WAIT_SECONDS))
        for completion in completions:
            del self._under_way[completion.key]
        return completions

    def _after(self, death: EngineDied) -> list[Completion]:
        """Sort out what was under way; return the culprit's failure if it is known now."""
        lost = list(self._under_way.values())
        self._under_way.clear()
        self._deaths.update(request.key for request in lost)
        logger.warning("%s: %s; %d requests to ask again, one at a time", death.kind, death, len(lost))
        if self._restarts_left == 0:
            raise StageError(
                f"the engine died once more than describe.max_restarts allows ({death.kind}: {death}). Answers so far "
                "are stored; look at the stage's log for the cause, then run the stage again"
            )
        self._restarts_left -= 1
        if len(lost) == 1 and self._deaths[lost[0].key] > 1:
            return [Completion(lost[0].key, error_kind=death.kind, error_detail=str(death))]
        self._suspects.extendleft(reversed(lost))
        return []
