"""Rows from JSON Lines, CSV and Parquet files, one at a time, compressed with gzip or not.

A row that can't be read is a refusal and the file goes on; a file that can't be read is a StageError.
"""

import codecs
import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingest.delivery import SourceFile
from tasks.ingest.refusals import Refusal
from tasks.stage import StageError

Row = tuple[int, dict[str, object]]  # 1-based line or row number, values by column

_PEEK_ROWS = 1000
_PARQUET_ROWS = 20_000
_PARQUET_ROWS_WITH_BYTES = 128
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")

# NaN and Infinity are no JSON, but many writers emit them; both mean "no value" here.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def read_rows(source: SourceFile, needed: Mapping[str, str], only: tuple[str, ...] = ()) -> Iterator[Row | Refusal]:
    """Yield a file's rows, in order.

    `needed` gives the columns that must be there by their config key; `only` limits what is read of a Parquet file.
    Raises StageError for a file that is not there, is damaged, or lacks a needed column.
    """
    rows = _guarded(source, only)
    first = list(itertools.islice(rows, _PEEK_ROWS))
    _require_columns(source, first, needed)
    for row in itertools.chain(first, rows):
        if source.adapt is not None and not isinstance(row, Refusal):
            row = (row[0], source.adapt(row[1]))
        yield row


def _guarded(source: SourceFile, only: tuple[str, ...]) -> Iterator[Row | Refusal]:
    number = 0
    try:
        for row in _rows(source, only):
            number = row[0] if not isinstance(row, Refusal) else row.row or number
            yield row
    except FileNotFoundError as error:
        raise StageError(
            f"{source.path}: no such file; check ingest.catalog, ingest.interactions, ingest.folder"
        ) from error
    except IsADirectoryError as error:
        raise StageError(f"{source.path} is a folder; name its files, or set ingest.folder instead") from error
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException, pl.exceptions.PolarsError) as error:
        raise StageError(
            f"{source.path}, after row {number}: can't be read as {source.format}: {error}. Deliver the file again"
        ) from error


def _rows(source: SourceFile, only: tuple[str, ...]) -> Iterator[Row | Refusal]:
    if source.format == "parquet":
        return _parquet_rows(source, only)
    return _json_rows(source) if source.format == "jsonl" else _csv_rows(source)


def _require_columns(source: SourceFile, first: list[Row | Refusal], needed: Mapping[str, str]) -> None:
    found = dict.fromkeys(column for row in first if not isinstance(row, Refusal) for column in row[1])
    for key, column in needed.items():
        if found and column not in found:
            raise StageError(
                f"{source.path}: no column {column!r}; it has {', '.join(map(repr, found))}. "
                f"Set ingest.{key} to the column that holds it"
            )


# JSON Lines


def _json_rows(source: SourceFile) -> Iterator[Row | Refusal]:
    with _open(source) as stream:
        for number, line in enumerate(_lines(stream, source.max_line_bytes), start=1):
            if number == 1:
                line = _without_bom(source, line)
            if len(line) > source.max_line_bytes:
                detail = f"the line has more than {source.max_line_bytes:,} bytes (ingest.max_line_bytes)"
                yield Refusal(source.name, number, None, None, "line_too_long", detail)
            elif not line.isspace():
                yield _json_row(source, number, line)


def _json_row(source: SourceFile, number: int, line: bytes) -> Row | Refusal:
    try:
        values = _DECODER.decode(line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        detail = f"byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8; JSON Lines must be UTF-8"
        return Refusal(source.name, number, None, None, "invalid_utf8", detail)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of more digits than Python takes
        return Refusal(source.name, number, None, None, "broken_json", f"{error}; write one JSON object a line")
    if not isinstance(values, dict):
        return Refusal(source.name, number, None, None, "not_an_object", "the line is JSON but no object {…}")
    return number, values


def _without_bom(source: SourceFile, line: bytes) -> bytes:
    if line.startswith(_UTF16_BOMS):
        raise StageError(f"{source.path} is UTF-16; JSON Lines must be UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
    line = line.removeprefix(_UTF8_BOM)
    if line.lstrip().startswith(b"["):
        raise StageError(f"{source.path} is one JSON array; it must be JSON Lines, an object a line (jq -c '.[]')")
    return line


def _lines(stream: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """Yield lines; of a longer one its first max_bytes + 1 bytes, so that no line fills the memory."""
    while line := stream.readline(max_bytes + 1):
        yield line
        while len(line) > max_bytes and not line.endswith(b"\n"):
            line = stream.readline(max_bytes + 1)


# CSV


def _csv_rows(source: SourceFile) -> Iterator[Row | Refusal]:
    csv.field_size_limit(source.max_line_bytes)  # a setting of the whole process: Python has no other
    with _open(source) as stream:
        lines = _text_lines(source, stream)
        cells = csv.reader(lines, delimiter=source.delimiter) if source.quoted else _split(lines, source.delimiter)
        yield from _csv_records(source, cells)


def _csv_records(source: SourceFile, cells: Iterator[list[str]]) -> Iterator[Row | Refusal]:
    header = source.header
    number = 1
    for row in cells:
        started_at = number
        number = getattr(cells, "line_num", number) + 1
        if not row:
            continue
        if header is None:
            header = _header(source, row)
        elif len(row) != len(header):
            detail = f"{len(row)} cells, but {len(header)} columns; quote cells that hold the delimiter or line breaks"
            yield Refusal(source.name, started_at, None, None, "wrong_number_of_cells", detail)
        else:
            values: dict[str, object] = dict(zip(header, row, strict=True))
            yield started_at, values


def _header(source: SourceFile, row: list[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in row)
    if len(set(names)) < len(names):
        raise StageError(f"{source.path}: the header names a column twice: {', '.join(names)}. Rename one")
    return names


def _text_lines(source: SourceFile, stream: BinaryIO) -> Iterator[str]:
    encoding = _codec(source)
    if encoding.startswith(("utf-16", "utf-32")):
        yield from io.TextIOWrapper(stream, encoding, newline="")
        return
    for number, line in enumerate(_lines(stream, source.max_line_bytes), start=1):
        if len(line) > source.max_line_bytes:
            raise StageError(
                f"{source.path}, line {number}: over {source.max_line_bytes:,} bytes (ingest.max_line_bytes)"
            )
        try:
            yield line.decode("utf-8-sig" if number == 1 and encoding == "utf-8" else encoding)
        except UnicodeDecodeError as error:
            raise StageError(
                f"{source.path}, line {number}: byte {line[error.start]:#04x} is not {source.encoding}. "
                "For a file in Latin-1 or from Windows set ingest.encoding: latin-1 or cp1252; else export it as UTF-8"
            ) from error


def _codec(source: SourceFile) -> str:
    try:
        return codecs.lookup(source.encoding).name
    except LookupError as error:
        raise StageError(
            f"ingest.encoding: Python knows no encoding {source.encoding!r}; try utf-8 or latin-1"
        ) from error


class _split:
    """Cells of lines without quoting, with csv.reader's `line_num`."""

    def __init__(self, lines: Iterator[str], delimiter: str) -> None:
        self._lines = lines
        self._delimiter = delimiter
        self.line_num = 0

    def __iter__(self) -> "_split":
        return self

    def __next__(self) -> list[str]:
        line = next(self._lines).rstrip("\r\n")
        self.line_num += 1
        return line.split(self._delimiter) if line else []


# Parquet


def _parquet_rows(source: SourceFile, only: tuple[str, ...]) -> Iterator[Row]:
    with pq.ParquetFile(source.path) as file:
        names = file.schema_arrow.names
        columns = [name for name in names if name in only] if only else names
        has_bytes = any(_holds_bytes(field.type) for field in file.schema_arrow)
        number = 0
        for batch in file.iter_batches(_PARQUET_ROWS_WITH_BYTES if has_bytes else _PARQUET_ROWS, columns=columns):
            frame = cast(pl.DataFrame, pl.from_arrow(batch))
            for values in frame.iter_rows(named=True):
                number += 1
                yield number, values


def _holds_bytes(data_type: pa.DataType) -> bool:
    if pa.types.is_struct(data_type):
        return any(_holds_bytes(field.type) for field in data_type)
    return pa.types.is_binary(data_type) or pa.types.is_large_binary(data_type)


def _open(source: SourceFile) -> BinaryIO:
    if source.path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(source.path, "rb"))
    return source.path.open("rb")
