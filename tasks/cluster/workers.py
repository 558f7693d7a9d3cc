"""Shards of a plan dealt out to Ray actors; what comes back streams to the one process that commits it.

Only that process writes to the store. So a worker that is lost loses nothing but its unfinished rows, which another one
gets, and a worker that was thought lost and goes on can double nothing.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import polars as pl

from storage.tables import StoreError
from tasks.cluster.config import ClusterConfig
from tasks.stage import StageError

logger = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0
_KNOCK_SECONDS = 10.0

Result = TypeVar("Result", covariant=True)


class Worker(Protocol[Result]):
    """Works through shards, one at a time."""

    def work(self, shard: pl.DataFrame) -> Iterator[tuple[Sequence[str], Result]]:
        """Yield what is done of a shard as it is done, with the keys of its rows."""
        ...


class HeldWorker(Generic[Result]):
    """The actor: makes its worker when the first shard comes, so that what is wrong with it is said by name."""

    def __init__(self, make: Callable[[], Worker[Result]]) -> None:
        self._make = make
        self._worker: Worker[Result] | None = None

    def work(self, shard: pl.DataFrame) -> Iterator[tuple[Sequence[str], Result]]:
        if self._worker is None:
            self._worker = self._make()
        yield from self._worker.work(shard)


@dataclass
class _Dealt:
    """A shard at a worker: what of it is not back yet."""

    actor: Any
    left: pl.DataFrame


def results_from_cluster(
    config: ClusterConfig, make: Callable[[], Worker[Result]], shards: Iterator[pl.DataFrame], key: str
) -> Iterator[Result]:
    """Yield what workers made by `make` return for `shards`, in any order; `key` names the shards' key column.

    Raises StageError if Ray is not installed or not there, if a worker says what is wrong, or if more workers are lost
    than `config.max_restarts`.
    """
    with _cluster(config):
        deal = _Deal(config, make, shards, key)
        while deal.deal_out():
            yield from deal.collect()


class _Deal(Generic[Result]):
    """Which worker has which shard."""

    def __init__(
        self, config: ClusterConfig, make: Callable[[], Worker[Result]], shards: Iterator[pl.DataFrame], key: str
    ) -> None:
        import ray

        self._actor_class: Any = ray.remote(num_cpus=config.cpus, num_gpus=config.gpus)(HeldWorker)
        self._make = make
        self._shards = shards
        self._key = key
        self._restarts_left = config.max_restarts
        self._returned: deque[pl.DataFrame] = deque()  # what lost workers left undone
        self._idle: list[Any] = []
        self._unstarted = config.workers
        self._under_way: dict[Any, _Dealt] = {}  # by the stream of results

    def deal_out(self) -> bool:
        """Give each free worker a shard, starting workers as needed; return whether anything is under way."""
        while self._idle or self._unstarted:
            shard = self._returned.popleft() if self._returned else next(self._shards, None)
            if shard is None:
                break
            actor = self._idle.pop() if self._idle else self._start()
            stream = actor.work.options(num_returns="streaming").remote(shard)
            self._under_way[stream] = _Dealt(actor, shard)
        return bool(self._under_way)

    def collect(self) -> Iterator[Result]:
        """Yield what has come since, waiting a moment for the first."""
        import ray
        from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayTaskError

        ready: list[Any]  # streams; Ray's types know of single results only
        ready, _ = ray.wait(list(self._under_way), num_returns=1, timeout=_WAIT_SECONDS, fetch_local=False)
        for stream in ready:
            dealt = self._under_way[stream]
            try:
                keys, result = ray.get(next(stream))
            except StopIteration:
                self._idle.append(self._under_way.pop(stream).actor)
            except RayTaskError as error:
                raise _as_said(error) from error
            except (RayActorError, OutOfMemoryError, ObjectLostError) as error:  # the last: its node is gone
                self._replace(self._under_way.pop(stream), error)
            else:
                dealt.left = dealt.left.filter(~pl.col(self._key).is_in(list(keys)))
                yield result

    def _start(self) -> Any:
        self._unstarted -= 1
        return self._actor_class.remote(self._make)

    def _replace(self, dealt: _Dealt, error: Exception) -> None:
        import ray

        logger.warning("a worker was lost, %d rows of its shard go to another one: %s", dealt.left.height, error)
        if self._restarts_left == 0:
            raise StageError(
                f"more workers were lost than cluster.max_restarts allows ({error}). What was done is stored; look at "
                "Ray's logs for the cause, then run the stage again"
            ) from error
        ray.kill(dealt.actor)  # it may live, and hold the GPU that the next one needs: only a result of its was lost
        self._restarts_left -= 1
        self._unstarted += 1
        if dealt.left.height:
            self._returned.append(dealt.left)


@contextmanager
def _cluster(config: ClusterConfig) -> Iterator[None]:
    """Join the cluster (or make a local one), and leave it, its workers ended."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise StageError("Ray is not installed: install the project's extra `cluster`, or take cluster out") from error
    try:
        _knock(config.address)
        ray.init(config.address, include_dashboard=False if config.address == "local" else None)
    except OSError as error:
        raise StageError(
            f"no Ray cluster at {config.address}: {error}. Start one (`ray start --head`), or give its address"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT (Ray itself would try for minutes); other addresses pass."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()


def _as_said(error: Exception) -> Exception:
    """Return what a worker raised: a stage's or a store's own words, else the error with the worker's traceback."""
    cause = getattr(error, "cause", None)
    return StageError(str(cause)) if isinstance(cause, StageError | StoreError) else error
