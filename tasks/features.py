"""From the store to what the model reads: a folder of item features and folders of sequences, named by digest.

A folder is made once, appears whole, and is never changed; nothing is made again while what it is built from is the
same. Text vectors stand in it once however many items share the text, and are written and read through memory maps.
"""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.sequences import Sequences
from storage.digests import digest_of, digest_of_bytes, digest_of_text
from storage.folders import whole_folder, write_whole
from storage.schemas import (
    EMBEDDINGS,
    ENCODER_DIGEST,
    GENERATIONS,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    SEGMENTS,
    TEXT_DIGEST,
    USER_ID,
    VECTOR,
)
from storage.tables import SchemaError, Store
from storage.vectors import vectors_from_frame
from tasks.answers import OK
from tasks.describe import DescribeConfig, asked_views
from tasks.embed import SOUND_VECTORS, EmbedConfig
from tasks.ingest.filters import FilterConfig, filtered_events
from tasks.semantics import current_generations, current_segments
from tasks.stage import StageError

logger = logging.getLogger(__name__)

READS = (ITEMS, INTERACTIONS, GENERATIONS, SEGMENTS, EMBEDDINGS)
EVERY_EVENT = FilterConfig(k_users=1, k_items=1, min_sequence_length=1)

_FORMAT = 1  # raise it when a folder comes to hold something else for the same store
_BATCH_ROWS = 16_384
_SNAPSHOTS = "datasets.json"


@dataclass(frozen=True)
class DatasetKeys:
    """What a store holds for training, by digest.

    Args:
        features: of the items with their texts; of the vectors through the encoder's digest.
        sequences: of the events that pass the filters.
        histories: of every event.
        users: users with a sequence that passed the filters.
        events: theirs; the store only ever adds events, and so do the filters with more of them.
        configuration: of the settings behind all that: prompts, views and their engine, encoder, segments, filters.
        encoder: of the sentence encoder; vectors of another mean something else.
        views: what the features hold, in their order.
    """

    features: str
    sequences: str
    histories: str
    items: int
    users: int
    events: int
    configuration: str
    encoder: str
    views: tuple[str, ...]

    @property
    def data(self) -> list[str]:
        """Return what names the rows that a model is trained and evaluated on."""
        return [self.features, self.sequences]


class Dataset:
    """What train, evaluate and recommend read, made from the store when it is asked for.

    Items are the active ones, and of the others those that occur in a history. A view is there if its answer is `ok`
    and embedded.
    """

    def __init__(
        self, store: Store, describe: DescribeConfig, embed: EmbedConfig, filters: FilterConfig, work_folder: Path
    ) -> None:
        self._store = store
        self._describe = describe
        self._embed = embed
        self._filters = filters
        self._work_folder = work_folder

    def as_it_is_now(self) -> "Dataset":
        """Return the same dataset, to be read anew: this one keeps the keys that it was first asked for."""
        return Dataset(self._store, self._describe, self._embed, self._filters, self._work_folder)

    @cached_property
    def keys(self) -> DatasetKeys:
        """Return the digests of what the folders hold, or would hold; remembered for the tables' versions."""
        snapshot = self._snapshot()
        path = self._work_folder / _SNAPSHOTS
        known = _remembered(path)
        if known.get("snapshot") != snapshot:
            known = {"snapshot": snapshot, **asdict(self._read_keys())}
            write_whole(path, json.dumps(known, indent=2))
        values = {name: value for name, value in known.items() if name != "snapshot"}
        return DatasetKeys(**{**values, "views": tuple(values["views"])})

    def features_folder(self) -> Path:
        """Return the folder of the ItemFeatures, made now if it isn't there; `item_facts.parquet` lies beside them."""
        folder = self._work_folder / "features" / self.keys.features
        if not folder.exists():
            check_unchanged(self._features_key, self.keys.features)
            logger.info("writing features of %d items", self.keys.items)
            with whole_folder(folder) as unfinished:
                self._write_features(unfinished)
        return folder

    def sequences_folder(self) -> Path:
        """Return the folder of the Sequences of filtered events, made now if it isn't there."""
        return self._sequences_folder(self.keys.sequences, self._filters)

    def histories_folder(self) -> Path:
        """Return the folder of the Sequences of every event, made now if it isn't there."""
        return self._sequences_folder(self.keys.histories, EVERY_EVENT)

    def _snapshot(self) -> str:
        tables = {name: (ref.table_id, ref.version) for name, ref in self._store.references(*READS).items()}
        fields = sorted(DatasetKeys.__dataclass_fields__)
        return digest_of({"fields": fields, "tables": tables, "configuration": self._configuration})

    @cached_property
    def _configuration(self) -> str:
        views = [(view.key_prefix, view.key_columns) for view in asked_views(self._describe)]
        settings = (self._embed.segments.digest, self._embed.encoder_digest, self._filters.model_dump())
        return digest_of({"format": _FORMAT, "views": views, "settings": settings})

    def _read_keys(self) -> DatasetKeys:
        filtered, every = self._read_sequences(self._filters), self._read_sequences(EVERY_EVENT)
        return DatasetKeys(
            features=self._features_key,
            sequences=sequences_digest(filtered),
            histories=sequences_digest(every),
            items=self._items.height,
            users=filtered.user_count,
            events=len(filtered.item_index),
            configuration=self._configuration,
            encoder=self._embed.encoder_digest,
            views=self._views,
        )

    @cached_property
    def _features_key(self) -> str:
        parts = [str(_FORMAT), self._embed.encoder_digest, *self._views]
        return digest_of([*parts, *_csv_digests(self._items), *_csv_digests(self._texts)])

    @property
    def _views(self) -> tuple[str, ...]:
        return tuple(view.prompt.view for view in asked_views(self._describe))

    @cached_property
    def _items(self) -> pl.DataFrame:
        """item_id, has_picture, failed_view, sorted by id: the position is the item's place everywhere."""
        seen = self._store.table(INTERACTIONS).scan().select(ITEM_ID).unique()
        stored = self._store.table(ITEMS).scan()
        gone = stored.filter(~pl.col("active")).join(seen, on=ITEM_ID, how="semi")
        items = pl.concat([stored.filter(pl.col("active")), gone])
        failed = self._generations.filter(pl.col("status").is_not_null() & (pl.col("status") != OK))
        return (
            items.select(ITEM_ID, has_picture=pl.col("image_digest").is_not_null())
            .join(failed.select(ITEM_ID).unique().with_columns(failed_view=True), on=ITEM_ID, how="left")
            .with_columns(pl.col("failed_view").fill_null(value=False))
            .sort(ITEM_ID)
            .collect()
        )

    @property
    def _generations(self) -> pl.LazyFrame:
        return current_generations(self._store, self._describe)

    @cached_property
    def _texts(self) -> pl.DataFrame:
        """item_id, view (null for a segment), position, text_digest: the texts that have a vector, sorted."""
        views = self._generations.filter(pl.col("status") == OK).select(ITEM_ID, "view", TEXT_DIGEST)
        segments = current_segments(self._store, self._embed).select(ITEM_ID, "position", TEXT_DIGEST)
        embedded = self._embeddings.select(TEXT_DIGEST).unique()
        return (
            pl.concat([views, segments], how="diagonal")
            .join(self._items.lazy().select(ITEM_ID), on=ITEM_ID, how="semi")
            .join(embedded, on=TEXT_DIGEST, how="semi")
            .select(ITEM_ID, "view", "position", TEXT_DIGEST)
            .sort(ITEM_ID, "view", "position")
            .collect()
        )

    @property
    def _embeddings(self) -> pl.LazyFrame:
        return self._store.table(EMBEDDINGS).scan().filter(pl.col(ENCODER_DIGEST) == self._embed.encoder_digest)

    def _write_features(self, folder: Path) -> None:
        rows = self._texts.select(TEXT_DIGEST).unique().sort(TEXT_DIGEST).with_row_index("row")
        items = self._items.with_row_index("item")
        texts = self._texts.join(rows, on=TEXT_DIGEST).join(items, on=ITEM_ID)
        features = ItemFeatures(
            item_ids=tuple(items[ITEM_ID].to_list()),
            views=self._views,
            vectors_UE=self._map_vectors(rows, folder / "vectors.unsaved.npy"),
            coarse_index_NV=_index_views(texts, items.height, self._views),
            segment_index_NL=_index_segments(texts, items.height),
        )
        features.save(folder)
        (folder / "vectors.unsaved.npy").unlink(missing_ok=True)
        self._items.write_parquet(folder / "item_facts.parquet")

    def _map_vectors(self, rows: pl.DataFrame, path: Path) -> np.ndarray:
        """Stream the vectors of `rows` (row, text_digest) into a memory-mapped float32 [U, E]."""
        if rows.height == 0:
            return np.zeros((0, 1), dtype=np.float32)
        mapped: np.ndarray | None = None
        for part in self._store.table(EMBEDDINGS).parts():
            of_encoder = part.filter(pl.col(ENCODER_DIGEST) == self._embed.encoder_digest)
            batch = of_encoder.join(rows.lazy(), on=TEXT_DIGEST).select("row", VECTOR).collect()
            if batch.is_empty():
                continue
            try:
                vectors = vectors_from_frame(batch)
            except SchemaError as error:
                raise self._of_other_widths() from error
            if mapped is None:
                shape = (rows.height, vectors.shape[1])
                mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            if vectors.shape[1] != mapped.shape[1]:
                raise self._of_other_widths()
            if not np.isfinite(vectors).all():
                (self._work_folder / SOUND_VECTORS).unlink(missing_ok=True)  # so that embed looks
                raise StageError(
                    "the embeddings table holds NaN or infinity; run embed, which makes those vectors anew"
                )
            mapped[batch["row"].to_numpy()] = vectors
        assert mapped is not None, "texts were kept only if they have a vector"
        return mapped

    def _of_other_widths(self) -> StageError:
        """Return what says which texts have vectors of which widths under the present encoder's digest."""
        widths = self._embeddings.select(TEXT_DIGEST, width=pl.col(VECTOR).list.len()).collect()
        texts = self._texts.join(widths, on=TEXT_DIGEST).group_by("width", pl.col("view").fill_null("segment")).len()
        counts = ", ".join(f"{view} {width} ({texts:,})" for width, view, texts in texts.sort("width", "view").rows())
        encoder = self._embed.encoder_digest
        return StageError(
            f"the embeddings table holds vectors of several widths under one encoder, {self._embed.model}, "
            f"{ENCODER_DIGEST} {encoder}; numbers a vector, by view (texts): {counts}. The model changed under its "
            "name: set embed.revision to the commit meant, or delete the rows of this digest, and run embed again"
        )

    def _sequences_folder(self, key: str, filters: FilterConfig) -> Path:
        folder = self._work_folder / "sequences" / key
        if not folder.exists():
            found = self._read_sequences(filters)
            check_unchanged(sequences_digest(found), key)
            with whole_folder(folder) as unfinished:
                found.save(unfinished)
        return folder

    def _read_sequences(self, filters: FilterConfig) -> Sequences:
        """Events of known items, each user's in time order, users by id."""
        places = self._items.select(ITEM_ID).with_row_index("item_index", offset=1)
        events = filtered_events(self._store, filters).join(places, on=ITEM_ID, how="inner", maintain_order="left")
        users = events.group_by(USER_ID, maintain_order=True).len()
        lengths = users["len"].to_numpy().astype(np.int64)
        return Sequences(
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            item_index=events["item_index"].to_numpy().astype(np.int32),
            user_ids=tuple(users[USER_ID].to_list()),
        )


def _remembered(path: Path) -> dict[str, Any]:
    """What a file of keys holds; nothing where a crash left it empty or torn, as it can be found out anew."""
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _index_views(texts: pl.DataFrame, items: int, views: tuple[str, ...]) -> np.ndarray:
    """int32 [N, V]: the row of each view's vector, or ABSENT."""
    index_NV = np.full((items, len(views)), ABSENT, dtype=np.int32)
    for place, view in enumerate(views):
        of_view = texts.filter(pl.col("view") == view)
        index_NV[of_view["item"].to_numpy(), place] = of_view["row"].to_numpy()
    return index_NV


def _index_segments(texts: pl.DataFrame, items: int) -> np.ndarray:
    """int32 [N, L]: the rows of the item's segments in reading order, then ABSENT."""
    segments = texts.filter(pl.col("view").is_null())
    longest = 0 if segments.is_empty() else int(segments.select(pl.col("position").max()).item()) + 1
    index_NL = np.full((items, longest), ABSENT, dtype=np.int32)
    index_NL[segments["item"].to_numpy(), segments["position"].to_numpy()] = segments["row"].to_numpy()
    return index_NL


def _csv_digests(frame: pl.DataFrame) -> Iterator[str]:
    """One digest for each slice of the rows."""
    yield from (digest_of_text(part.write_csv(include_header=False)) for part in frame.iter_slices(_BATCH_ROWS))


def sequences_digest(sequences: Sequences) -> str:
    """Return the digest of who did what in which order."""
    parts = (sequences.offsets.tobytes(), sequences.item_index.tobytes())
    users = digest_of_text("\n".join(f"{len(user)}:{user}" for user in sequences.user_ids))
    return digest_of([_FORMAT, users, *(digest_of_bytes(part) for part in parts)])


def check_unchanged(found: str, key: str) -> None:
    """Raise StageError where what the store holds is no longer what was named `key`."""
    if found != key:
        raise StageError("the store changed while it was read; nothing was written: run it again")


def open_features(folder: Path) -> tuple[ItemFeatures, pl.DataFrame]:
    """Return what `features_folder` holds: the features, and item_id, has_picture, failed_view of each item."""
    return ItemFeatures.open(folder), pl.read_parquet(folder / "item_facts.parquet")
