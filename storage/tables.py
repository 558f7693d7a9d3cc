"""The store: one Delta Lake table for every schema, in a local folder or under an S3-compatible URL.

Appends are atomic commits, so a killed writer leaves nothing half-visible. Reads go through polars, lazily: ask for the
columns you need, and go through what doesn't fit by `parts`. (deltalake's own pyarrow reader is not used: see
docs/decisions/store-reader.md.)
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileType

from storage.references import TableRef
from storage.schemas import TABLES, TableSchema

logger = logging.getLogger(__name__)

# A merge holds what it touches of the table; above this it goes to temporary files (docs/decisions/ingest-scale.md).
_MERGE_BYTES = 256 * 2**20

_PART_BYTES, _PART_ROWS = 64 * 2**20, 500_000  # of files read at a time; rows in memory are some times as large

_KEYS_AT_ONCE = 1000  # in a condition; tens of thousands overflow the stack of what reads it, and the process dies

_WRITING_HOURS = 24  # no writer is longer at one commit

# What Delta Lake remembers by default.
_LOG_HOURS = {"delta.deletedFileRetentionDuration": 7 * 24, "delta.logRetentionDuration": 30 * 24}

# A folder's name goes through URLs and patterns; what comes back as it went in is no trouble, such as blanks.
_UNFIT_IN_FOLDERS = re.compile(r"[\[\]\\\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")

_SCHEMES = ("s3://", "s3a://")  # of others tables could be kept, pictures not


class StoreError(Exception):
    """A store that can't be read or written; the message names the table and the remedy."""


class SchemaError(StoreError):
    """Rows that don't fit their table."""


class Store:
    """All tables under one root. Cheap to make: a table is created when it is first written.

    `url` is a local folder or an `s3://` URL; `storage_options` go to the object store as they are (such as
    `AWS_ENDPOINT_URL`). Secrets belong in the environment, which the object store reads itself.
    """

    def __init__(self, url: str | Path, storage_options: Mapping[str, str] | None = None) -> None:
        text = str(url)
        if is_url(text) and not text.startswith(_SCHEMES):
            raise StoreError(f"store.url {text}: give a folder, or a URL that begins with one of {', '.join(_SCHEMES)}")
        self.is_local = not text.startswith(_SCHEMES)
        self.url = str(Path(text).absolute()) if self.is_local else text.rstrip("/")
        if self.is_local and (unfit := _UNFIT_IN_FOLDERS.search(self.url)):
            raise StoreError(
                f"store.url {self.url}: holds {unfit[0]!r}, which stands for something else in Delta Lake's paths; "
                "name another folder"
            )
        self.storage_options = dict(storage_options or {})
        if not self.is_local and _is_plain_http(self.storage_options):
            self.storage_options.setdefault("AWS_ALLOW_HTTP", "true")  # who names such an endpoint means it
        self._tables = {schema.name: Table(self, schema) for schema in TABLES}

    def table(self, schema: TableSchema) -> "Table":
        return self._tables[schema.name]

    def references(self, *schemas: TableSchema) -> dict[str, TableRef]:
        """Return the present version of each table that exists, by name."""
        refs = {schema.name: self.table(schema).reference() for schema in schemas}
        return {name: ref for name, ref in refs.items() if ref is not None}


def sliced(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Yield the frames' rows, at most `rows` at a time."""
    for frame in frames:
        yield from frame.iter_slices(rows)


def is_url(text: str) -> bool:
    """Whether a store's place is meant as a URL, if of a scheme that there is no store for, or with a slash too few."""
    return re.match(r"\w+:/", text) is not None


def _is_plain_http(options: Mapping[str, str]) -> bool:
    named = {name.upper().removeprefix("AWS_"): value for name, value in options.items()}
    endpoint = named.get("ENDPOINT_URL") or named.get("ENDPOINT") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return endpoint.startswith("http://") and "ALLOW_HTTP" not in named and "AWS_ALLOW_HTTP" not in os.environ


class _LocalDeltaTable(DeltaTable):
    """Names its files as the file system does: deltalake gives percent-encoded URLs, which polars takes for paths."""

    def file_uris(self, *args: Any, **kwargs: Any) -> list[str]:
        return [unquote(uri) for uri in super().file_uris(*args, **kwargs)]


class Table:
    """One table of a store."""

    def __init__(self, store: Store, schema: TableSchema) -> None:
        self.schema = schema
        self.location = f"{store.url}/{schema.name}"
        self._is_local = store.is_local
        self._options = store.storage_options

    def exists(self) -> bool:
        return self._open() is not None

    def reference(self) -> TableRef | None:
        """Return the table's present version, or None before its first commit."""
        table = self._open()
        if table is None:
            return None
        return TableRef(self.schema.name, self.location, str(table.metadata().id), table.version())

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Return the rows, lazily, at `version` or now; an empty frame with the table's columns if there is none.

        Columns that an earlier release's table lacks are null; those of another release are left out.
        """
        table = self._open(version)
        if table is None:
            return self.empty().lazy()
        stored = {field.name for field in table.schema().fields}
        columns = self.empty().schema.items()
        return pl.scan_delta(table).select(
            pl.col(name) if name in stored else pl.lit(None, kind).alias(name) for name, kind in columns
        )

    def read(self, *columns: str) -> pl.DataFrame:
        """Return `columns` (all if none is named) of every row, in memory."""
        frame = self.scan()
        return (frame.select(columns) if columns else frame).collect()

    def parts(self) -> Iterator[pl.LazyFrame]:
        """Yield the present rows a few files at a time, the newest files first: what is new is found early.

        For what takes its time over rows that don't fit in memory: a query over all of them runs ahead of a slow reader
        and holds what that one has not taken (polars issue 28569).
        """
        table = self._open()
        if table is None:
            return
        files = pl.DataFrame(table.get_add_actions(flatten=True))
        files = files.sort("modification_time", descending=True, maintain_order=True)
        sizes = (pl.col("size_bytes"), _PART_BYTES), (pl.col("num_records").fill_null(0), _PART_ROWS)
        part = pl.sum_horizontal((size.cum_sum() - size) // most for size, most in sizes)  # rises with either
        for _, few in files.group_by(part, maintain_order=True):
            yield pl.scan_parquet(
                [f"{self.location}/{path}" for path in few["path"]],
                schema=self.empty().schema,
                missing_columns="insert",
                extra_columns="ignore",
                glob=False,
                hive_partitioning=False,
                storage_options=self._options,
                credential_provider=None,
            )

    def lookup(self, wanted: pl.DataFrame, on: str, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the rows of `wanted` with `columns` of the row (one of them) that has the same `on`, some at a time.

        The table is read once, part by part, until all are found.
        """
        for part in self.parts():
            if wanted.is_empty():
                return
            with self._reading():
                there = part.select(on).collect().join(wanted, on=on, how="semi")
                rows = part.select(on, *columns).filter(pl.col(on).is_in(there[on].implode())).unique(on, keep="any")
                found = rows.collect()
            yield wanted.join(found, on=on, maintain_order="left")
            wanted = wanted.join(there, on=on, how="anti", maintain_order="left")

    def count(self) -> int:
        return self.scan().select(pl.len()).collect().item()

    def empty(self) -> pl.DataFrame:
        """Return no rows with this table's columns and types."""
        frame = pl.from_arrow(self.schema.arrow.empty_table())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def create(self) -> None:
        """Make the table, empty, if there is none; one made by an earlier release gets the columns added since."""
        self._write(self._ensure)

    def append(self, rows: pl.DataFrame | pa.Table, note: str = "") -> None:
        """Add rows in one atomic commit; no rows, no commit.

        Raises SchemaError if columns, types, null or repeated keys don't fit; StoreError if the store can't be written.
        """
        table = self.conform(rows)
        if table.num_rows:
            merge = partial(write_deltalake, schema_mode="merge")  # a column of another release is null
            self._write(lambda: merge(self._ensure(), table, mode="append", commit_properties=_note(note)))

    def upsert(self, rows: pl.DataFrame | pa.Table, note: str = "") -> None:
        """Replace rows that agree in the table's key and add the others, in one atomic commit; no rows, no commit.

        Raises as append does.
        """
        table = self.conform(rows)
        if table.num_rows == 0:
            return
        match = " AND ".join(f"target.{column} = source.{column}" for column in self.schema.key)
        self._write(
            lambda: (
                self._ensure()
                .merge(
                    table,
                    match,
                    source_alias="source",
                    target_alias="target",
                    streamed_exec=False,  # the rows are in memory anyway; so the table's files can be told apart by key
                    max_spill_size=_MERGE_BYTES,
                    commit_properties=_note(note),
                )
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute()
            )
        )

    def delete(self, predicate: str, note: str = "") -> int:
        """Delete the rows that an SQL `predicate` holds of, in one atomic commit; return how many there were."""
        table = self._open()
        if table is None:
            return 0
        deleted: list[int] = []
        self._write(
            lambda: deleted.append(table.delete(predicate, commit_properties=_note(note)).get("num_deleted_rows") or 0)
        )
        return deleted[0]

    def delete_keys(self, column: str, keys: Sequence[str], only: str = "TRUE", note: str = "") -> int:
        """Delete the rows with one of `keys` in `column` of which the SQL condition `only` holds; return how many.

        All rows of a key go in the same atomic commit, a thousand keys in each.
        """
        quoted = ["'" + key.replace("'", "''") + "'" for key in keys]
        parts = [", ".join(quoted[start : start + _KEYS_AT_ONCE]) for start in range(0, len(quoted), _KEYS_AT_ONCE)]
        return sum(self.delete(f"{only} AND {column} IN ({part})", note) for part in parts)

    def conform(self, rows: pl.DataFrame | pa.Table) -> pa.Table:
        """Return `rows` as an Arrow table of exactly this schema, checked.

        Raises SchemaError naming the column: one missing, one too many, one of another type, a null or repeated key.
        """
        table = rows.to_arrow() if isinstance(rows, pl.DataFrame) else rows
        given, wanted = set(table.column_names), set(self.schema.arrow.names)
        if given != wanted:
            raise SchemaError(
                f"table {self.schema.name}: columns missing {sorted(wanted - given)}, unknown {sorted(given - wanted)}"
            )
        try:
            table = table.select(self.schema.arrow.names).cast(self.schema.arrow)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
            raise SchemaError(f"table {self.schema.name}: {error}") from error
        for column in self.schema.key:
            if table[column].null_count:
                raise SchemaError(f"table {self.schema.name}: column {column} is part of the key and has nulls")
        keys = pl.DataFrame(table.select(self.schema.key)) if self.schema.key else pl.DataFrame()
        if keys.is_duplicated().any():
            repeated = keys.filter(keys.is_duplicated()).row(0, named=True)
            raise SchemaError(
                f"table {self.schema.name}: the key {repeated} stands in several rows; give each key once"
            )
        return table

    def compact(self) -> None:
        """Join small files into large ones; readers see no difference."""
        if (table := self._open()) is not None:
            self._write(table.optimize.compact)

    def small_files(self, below_bytes: int) -> int:
        """Return how many of the present version's files are smaller than `below_bytes`."""
        table = self._open()
        if table is None:
            return 0
        sizes = pl.DataFrame(table.get_add_actions(flatten=True))["size_bytes"]
        return int((sizes < below_bytes).sum())

    def remembers(self, hours: int) -> bool:
        """Whether the log knows removed files and versions for so long: one that it forgot counts as of no version."""
        table = self._open()
        return table is None or _memory_of(hours).items() <= table.metadata().configuration.items()

    def remember(self, hours: int) -> None:
        """Let the log know removed files, and versions, for so long."""
        table = self._open()
        if table is not None:
            self._write(lambda: table.alter.set_table_properties(_memory_of(hours)))

    def old_files(self, keep_hours: int) -> list[str]:
        """Return the files that no version of the last `keep_hours` hours needs.

        Without those of the last day that no version names: a killed writer left them, or one at work will commit them.
        Without any of these where the folder holds files of others, which look alike.
        """
        table = self._open()
        if table is None:
            return []
        with self._reading():
            found = {path for sweep in self._sweeps(keep_hours) for path in table.vacuum(dry_run=True, **sweep)}
            # The log names removed files after they are deleted, too.
            infos = DeltaStorageHandler(table.table_uri, self._options).get_file_info(sorted(found))
        return [info.path for info in infos if info.type == FileType.File]

    def vacuum(self, keep_hours: int) -> int:
        """Delete `old_files`; return how many."""
        table, old = self._open(), self.old_files(keep_hours)
        if table is not None and old:
            for sweep in self._sweeps(keep_hours):
                self._write(partial(table.vacuum, dry_run=False, **sweep))
        return len(old)

    def _sweeps(self, keep_hours: int) -> Iterator[dict[str, Any]]:
        """What deltalake's `vacuum` is to be called with."""
        if keep_hours < _WRITING_HOURS or self.schema.shares_folder:
            yield {"retention_hours": keep_hours, "full": False, "enforce_retention_duration": False}
        if not self.schema.shares_folder:
            hours = max(keep_hours, _WRITING_HOURS)
            yield {"retention_hours": hours, "full": True, "enforce_retention_duration": False}

    def _open(self, version: int | None = None) -> DeltaTable | None:
        kind = _LocalDeltaTable if self._is_local else DeltaTable
        with self._reading():
            try:
                return kind(self.location, version=version, storage_options=self._options)
            except TableNotFoundError:
                return None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (OSError, DeltaError) as error:
            raise StoreError(
                f"table {self.schema.name} at {self.location} can't be read: {error}. "
                "Check that the store is reachable, and its credentials and permissions"
            ) from error

    def _ensure(self) -> DeltaTable:
        if self._is_local:
            Path(self.location).mkdir(parents=True, exist_ok=True)
        table = DeltaTable.create(
            self.location,
            self.schema.arrow,
            mode="ignore",
            name=self.schema.name,
            storage_options=self._options,
        )
        stored = {field.name for field in table.schema().fields}
        added = [Field.from_arrow(field) for field in self.schema.arrow if field.name not in stored]
        if added:
            table.alter.add_columns(added)
        return table

    def _write(self, commit: Callable[[], object]) -> None:
        try:
            commit()
        except CommitFailedError as error:
            raise StoreError(
                f"table {self.schema.name} at {self.location}: another run wrote the same rows meanwhile ({error}). "
                "Run the stage again, one run at a time: what was committed stays"
            ) from error
        except (OSError, DeltaError) as error:  # deltalake reports a full disk as either, by where it noticed
            raise StoreError(
                f"table {self.schema.name} at {self.location} can't be written: {error}. "
                "Check free space and permissions, then run the stage again: what was committed stays"
            ) from error


def _memory_of(hours: int) -> dict[str, str]:
    """The properties of a table whose log knows removed files, and versions, for so long."""
    return {name: f"interval {hours} hours" for name, default in _LOG_HOURS.items() if hours > default}


def _note(note: str) -> CommitProperties | None:
    return CommitProperties(custom_metadata={"note": note}) if note else None
