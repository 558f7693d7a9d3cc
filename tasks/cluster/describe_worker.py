"""Describe on a worker: the same requests through the same engine loop as on one machine."""

import time
from collections.abc import Iterator, Mapping
from functools import partial

import polars as pl

from storage.tables import Store
from tasks.describe import DescribeConfig, has_pictures, prepared, start_apart
from tasks.engines.protocol import Completion
from tasks.generation import Generation
from tasks.generation_keys import AskedView

_SEND_SECONDS = 0.5  # completions travel together for so long


class DescribeWorker:
    """An engine, started with the first shard and kept for the next ones."""

    def __init__(
        self, config: DescribeConfig, views: Mapping[str, AskedView], url: str, storage_options: Mapping[str, str]
    ) -> None:
        self._config = config
        self._views = views
        self._store = Store(url, storage_options)
        # In a process of its own, so that an actor that is killed leaves no engine behind.
        start = partial(start_apart, config, has_pictures(view.prompt for view in views.values()))
        self._generation = Generation(start, config.max_restarts)

    def work(self, shard: pl.DataFrame) -> Iterator[tuple[list[str], list[Completion]]]:
        preparation = prepared(self._config, self._views, self._store, shard.iter_rows(named=True))
        waiting: list[Completion] = []
        last_sent = time.monotonic()
        try:
            for completions in self._generation.answers(preparation):
                waiting += completions
                if waiting and time.monotonic() - last_sent >= _SEND_SECONDS:
                    yield [completion.key for completion in waiting], waiting
                    waiting, last_sent = [], time.monotonic()
            if waiting:
                yield [completion.key for completion in waiting], waiting
        finally:
            preparation.close()
