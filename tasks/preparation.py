"""Work made ready ahead of an engine by threads, in order, never more than a bounded number of pieces."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

Row = TypeVar("Row")
Ready = TypeVar("Ready")


class Preparation(Generic[Row, Ready]):
    """Takes rows from an iterator as they are needed and has `workers` threads make each ready.

    At most `ahead` rows are under way or waiting to be taken: that bounds the decoded pictures in memory. Several
    threads may take.
    """

    def __init__(self, rows: Iterator[Row], prepare: Callable[[Row], Ready], workers: int, ahead: int) -> None:
        self._rows = rows
        self._prepare = prepare
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
        self._waiting: deque[Future[Ready]] = deque()
        self._more = True
        self._lock = threading.Lock()

    def take(self, timeout_seconds: float) -> Ready | None:
        """Return the next piece; None if there is none left, or it is not ready in time."""
        with self._lock:
            self._fill()
            if not self._waiting:
                return None
            first = self._waiting[0]
        if not first.done():
            wait([first], timeout_seconds)
        with self._lock:
            if not self._waiting or not self._waiting[0].done():  # another thread may have taken the one waited for
                return None
            first = self._waiting.popleft()
        return first.result()

    @property
    def exhausted(self) -> bool:
        """Whether all rows have been taken."""
        with self._lock:
            self._fill()
            return not self._waiting

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while self._more and len(self._waiting) < self._ahead:
            row = next(self._rows, None)
            if row is None:
                self._more = False
            else:
                self._waiting.append(self._pool.submit(self._prepare, row))
