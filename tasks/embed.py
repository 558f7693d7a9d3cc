"""Embed: a vector for every distinct text, the model's answers and the items' own segments alike."""

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from storage.digests import digest_of, digest_of_text
from storage.folders import write_whole
from storage.schemas import (
    EMBEDDINGS,
    ENCODER_DIGEST,
    GENERATION_KEY,
    GENERATIONS,
    ITEM_ID,
    ITEMS,
    SEGMENT_KEY,
    SEGMENTS,
    TEXT_DIGEST,
    VECTOR,
    TableSchema,
)
from storage.tables import Store, sliced
from storage.vectors import vectors_to_arrow
from tasks.answers import OK
from tasks.cluster.config import ClusterConfig
from tasks.describe import DescribeConfig, asked_views
from tasks.engines.sentence_encoder import EncoderConfig, SentenceEncoder
from tasks.generation_keys import wanted_generations
from tasks.item_choice import chosen
from tasks.segment_keys import wanted_segments
from tasks.segments import SegmentConfig, segments_of
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate

logger = logging.getLogger(__name__)

SOUND_VECTORS = "sound_vectors.json"
"""A note in the work folder: these vectors were looked through, and none holds NaN or infinity."""

NO_SEGMENT = "none"  # kind of the row that says: this text holds no segment (it is blank)
_CUT_ROWS = 20_000  # items a commit
_REPORT_SECONDS = 1.0


class EmbedConfig(EncoderConfig):
    """The encoder, how the items' own text is cut, and how the work is paced."""

    segments: SegmentConfig = SegmentConfig()
    chunk: int = Field(8192, ge=1, description="texts sorted by length together")
    commit_seconds: float = Field(5.0, gt=0, description="vectors are committed so often: what a kill can cost")
    items: Path | None = Field(None, description="file of item ids, one a line: embed their texts only; None: all")
    cluster: ClusterConfig | None = Field(None, description="a Ray cluster to work on; None: this machine alone")


class Encoder(Protocol):
    """Turns texts into vectors of one width."""

    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


def load_encoder(config: EmbedConfig) -> Encoder:
    """Load the configured encoder. Raises StageError if it isn't there, or isn't what it should be."""
    if config.vllm is None:
        return SentenceEncoder(config)
    from tasks.engines.pooling_encoder import PoolingEncoder

    return PoolingEncoder(config)


Encoded = tuple[pl.DataFrame, np.ndarray]  # text_digest, source of a batch; its vectors, float32 (texts, width)


class EmbedStage:
    """Cuts new own texts into segments, then embeds each text that has no vector under this encoder yet."""

    name: ClassVar[str] = "embed"
    reads: ClassVar[tuple[TableSchema, ...]] = (ITEMS, GENERATIONS)
    writes: ClassVar[tuple[TableSchema, ...]] = (SEGMENTS, EMBEDDINGS)
    isolated: ClassVar[bool] = True

    def __init__(
        self,
        config: EmbedConfig,
        describe: DescribeConfig,
        store: Store,
        work_folder: Path,
        load: Callable[[EmbedConfig], Encoder] = load_encoder,
    ) -> None:
        self.config = config
        self.describe = describe
        self.store = store
        self.work_folder = work_folder
        self._load = load

    @property
    def config_digest(self) -> str:
        views = {view.prompt.view: view.key_prefix for view in asked_views(self.describe)}
        segments = self.config.segments.digest
        return digest_of({"encoder": self.config.encoder_digest, "segments": segments, "views": views})

    def plan(self) -> Plan:
        """Count texts without a vector. A text not cut yet counts as one; how many segments it holds shows when it is.

        `work` has the own texts to cut: segment_key, item_id. The texts to embed are looked up again once they are cut.
        """
        own = wanted_segments(self._items(), self.config.segments)
        uncut, wanted = self._uncut(own), self._wanted_texts(own)
        missing = self._missing(wanted)
        to_do = uncut.height + missing.height
        rate = last_rate(self.store, self.name)
        cutting = (f"{uncut.height:,} of them items to cut into segments first",) if uncut.height else ()
        return Plan(
            self.name,
            "texts",
            new=to_do,
            up_to_date=wanted.height - missing.height,
            seconds=to_do / rate if rate else None,
            notes=(*cutting, *self.config.unpinned),
            work=uncut,
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        """Cut, then embed, committing as it goes."""
        self._drop_unsound()
        cut = self._cut(plan.work, run_id)
        own = wanted_segments(self._items(), self.config.segments)
        missing = self._missing(self._wanted_texts(own))
        counts: Counter[str] = Counter()
        if missing.height:
            start = time.monotonic()
            for source, vectors in self._embed(missing, run_id, report):
                counts[source] += vectors
            logger.info("embedded %d texts in %.1f s", missing.height, time.monotonic() - start)
        return Outcome({"done": missing.height, "cut": cut, **counts})

    def _items(self) -> pl.LazyFrame:
        return chosen(self.store.table(ITEMS).scan(), self.config.items)

    def _uncut(self, own: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of `own` (item_id, segment_key) whose text is not cut yet, one a key."""
        first = self.store.table(SEGMENTS).scan().filter(pl.col("position") == 0).select(SEGMENT_KEY)
        uncut = own.lazy().join(first, on=SEGMENT_KEY, how="anti", maintain_order="left")
        return uncut.unique(SEGMENT_KEY, keep="first", maintain_order=True).collect()

    def _wanted_texts(self, own: pl.DataFrame) -> pl.DataFrame:
        """Return text_digest, source of each distinct text: usable answers first, then the segments of `own`."""
        answers = self.store.table(GENERATIONS).scan().filter(pl.col("status") == OK)
        wanted = wanted_generations(self._items(), asked_views(self.describe)).lazy()
        views = wanted.join(answers.select(GENERATION_KEY, TEXT_DIGEST), on=GENERATION_KEY, how="inner")
        cut = self.store.table(SEGMENTS).scan().filter(pl.col(TEXT_DIGEST).is_not_null())
        segments = cut.join(own.lazy(), on=SEGMENT_KEY, how="semi")
        texts = pl.concat(
            [
                views.select(TEXT_DIGEST, pl.col("view").alias("source")),
                segments.select(TEXT_DIGEST, pl.lit("segment").alias("source")),
            ]
        )
        return texts.unique(TEXT_DIGEST, keep="first", maintain_order=True).collect()

    def _missing(self, wanted: pl.DataFrame) -> pl.DataFrame:
        sound = self._vectors().filter(~pl.col(TEXT_DIGEST).is_in(self._unsound().implode()))
        return (
            wanted.lazy().join(sound.select(TEXT_DIGEST), on=TEXT_DIGEST, how="anti", maintain_order="left").collect()
        )

    def _vectors(self) -> pl.LazyFrame:
        return self.store.table(EMBEDDINGS).scan().filter(pl.col(ENCODER_DIGEST) == self.config.encoder_digest)

    def _unsound(self) -> pl.Series:
        """Return text_digest of the vectors with NaN or infinity.

        Earlier versions stored such ones. Reading all vectors takes long, so where there are none is noted for good.
        """
        reference, note = self.store.table(EMBEDDINGS).reference(), self.work_folder / SOUND_VECTORS
        sound = json.dumps([reference and reference.table_id, self.config.encoder_digest])
        if note.exists() and note.read_text() == sound:
            return pl.Series(dtype=pl.String)
        is_sound = pl.col(VECTOR).list.eval(pl.element().is_finite()).list.all().fill_null(value=False)
        unsound = self._vectors().filter(~is_sound).select(TEXT_DIGEST).collect()[TEXT_DIGEST]
        if unsound.is_empty():
            write_whole(note, sound)
        return unsound

    def _drop_unsound(self) -> None:
        """Delete them, and the features made of them, whose names would stay the same."""
        from tasks.evaluation.kept import experiments_folder

        unsound = self._unsound()
        if unsound.is_empty():
            return
        for folder in (self.work_folder, experiments_folder(self.work_folder)):
            shutil.rmtree(folder / "features", ignore_errors=True)
        of_encoder = f"{ENCODER_DIGEST} = '{self.config.encoder_digest}'"
        self.store.table(EMBEDDINGS).delete_keys(TEXT_DIGEST, unsound.to_list(), only=of_encoder, note="not finite")

    def _cut(self, work: pl.DataFrame, run_id: str) -> int:
        """Write the segments of each own text in `work`; a text's segments are in one commit."""
        columns = ("title", "description", "attributes")
        for texts in sliced(self.store.table(ITEMS).lookup(work, ITEM_ID, columns), _CUT_ROWS):
            rows = [
                row
                for key, *own in texts.select(SEGMENT_KEY, *columns).iter_rows()
                for row in _segment_rows(key, own, self.config.segments)
            ]
            frame = pl.DataFrame(rows, schema=[SEGMENT_KEY, "position", "kind", "text", TEXT_DIGEST], orient="row")
            self.store.table(SEGMENTS).append(
                frame.with_columns(_now().alias("created_at"), pl.lit(run_id).alias("run_id"))
            )
        return work.height

    def _embed(self, missing: pl.DataFrame, run_id: str, report: ReportProgress) -> Iterator[tuple[str, int]]:
        """Embed the missing texts; yield source and number of vectors after each commit."""
        encoder_digest = self.config.encoder_digest
        start = last_report = last_commit = time.monotonic()
        done, waiting = 0, []
        for batch, vectors_ND in self._encoded(missing):
            waiting.append(_embedding_rows(batch, vectors_ND, self.config.model, encoder_digest, run_id))
            done += batch.height
            now = time.monotonic()
            if now - last_report >= _REPORT_SECONDS or done == missing.height:
                report(Progress(done, missing.height, "texts", done / (now - start)))
                last_report = now
            if now - last_commit >= self.config.commit_seconds:
                yield from self._commit(waiting)
                waiting, last_commit = [], now
        if waiting:
            yield from self._commit(waiting)

    def _encoded(self, missing: pl.DataFrame) -> Iterator[Encoded]:
        cluster = self.config.cluster
        if cluster is None:
            chunks = with_texts(self.store, missing, self.config.chunk)
            yield from encoded(self.config, self._load(self.config), chunks)
            return
        from tasks.cluster.embed_worker import EmbedWorker
        from tasks.cluster.workers import results_from_cluster

        shards = with_texts(self.store, missing, cluster.shard)
        yield from results_from_cluster(cluster, partial(EmbedWorker, self.config, self._load), shards, TEXT_DIGEST)

    def _commit(self, waiting: list[pa.Table]) -> Iterator[tuple[str, int]]:
        rows = pa.concat_tables(waiting)
        self.store.table(EMBEDDINGS).append(rows)
        yield from Counter(rows["source"].to_pylist()).items()


def encoded(config: EmbedConfig, encoder: Encoder, chunks: Iterable[pl.DataFrame]) -> Iterator[Encoded]:
    """Yield the texts of chunks (text_digest, source, text) in batches, each with its vectors, one a row.

    Batches hold texts of like length.

    Raises StageError naming the text where a vector isn't finite: once stored, it would stand for the text for good.
    """
    for batch in _batches(config, chunks):
        vectors_ND = encoder.encode(batch["text"].to_list())
        if not (sound := np.isfinite(vectors_ND).all(axis=1)).all():
            bad = batch.filter(pl.Series(~sound)).row(0, named=True)
            raise StageError(
                f"embed: {config.model} gave NaN or infinity for the text {bad['text'][:80]!r} "
                f"({TEXT_DIGEST} {bad[TEXT_DIGEST]}); nothing of its batch is kept. "
                "Try embed.dtype: float32, or another model"
            )
        yield batch.drop("text"), vectors_ND


def with_texts(store: Store, missing: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    """Yield text_digest, source, text of the missing texts, at most `rows` at a time."""
    is_segment = pl.col("source") == "segment"
    for schema, of_table in ((GENERATIONS, missing.filter(~is_segment)), (SEGMENTS, missing.filter(is_segment))):
        yield from sliced(store.table(schema).lookup(of_table, TEXT_DIGEST, ("text",)), rows)


def _batches(config: EmbedConfig, chunks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    # vLLM makes batches itself, and would wait at the end of each of ours.
    rows = config.batch if config.vllm is None else config.chunk
    for chunk in chunks:
        yield from chunk.sort(pl.col("text").str.len_bytes(), TEXT_DIGEST).iter_slices(rows)


def _segment_rows(
    key: str, own: Sequence[str | None], config: SegmentConfig
) -> list[tuple[str, int, str, str | None, str | None]]:
    title, description, attributes = own
    segments = segments_of(title, description, attributes, config)
    if not segments:
        return [(key, 0, NO_SEGMENT, None, None)]
    return [(key, i, piece.kind, piece.text, digest_of_text(piece.text)) for i, piece in enumerate(segments)]


def _embedding_rows(
    batch: pl.DataFrame, vectors_ND: np.ndarray, encoder: str, encoder_digest: str, run_id: str
) -> pa.Table:
    rows = batch.select(
        TEXT_DIGEST,
        pl.lit(encoder_digest).alias(ENCODER_DIGEST),
        pl.lit(encoder).alias("encoder"),
        "source",
        _now().alias("created_at"),
        pl.lit(run_id).alias("run_id"),
    )
    return rows.to_arrow().append_column(VECTOR, vectors_to_arrow(vectors_ND))


def _now() -> pl.Expr:
    return pl.lit(datetime.now(UTC)).cast(pl.Datetime("us", "UTC"))
