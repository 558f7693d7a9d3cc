"""Embed on a worker: the same batches through the same encoder as on one machine."""

from collections.abc import Callable, Iterator

import polars as pl

from storage.schemas import TEXT_DIGEST
from tasks.embed import EmbedConfig, Encoded, Encoder, encoded


class EmbedWorker:
    """An encoder, loaded with the first shard and kept for the next ones."""

    def __init__(self, config: EmbedConfig, load: Callable[[EmbedConfig], Encoder]) -> None:
        self._config = config
        self._encoder = load(config)

    def work(self, shard: pl.DataFrame) -> Iterator[tuple[list[str], Encoded]]:
        for batch, vectors_ND in encoded(self._config, self._encoder, [shard]):
            yield batch[TEXT_DIGEST].to_list(), (batch, vectors_ND)
