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
from collections.abc import Collection, Iterator, Mapping
from typing import BinaryIO, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingest.delivery import SourceFile
from tasks.ingest.refusals import Refusal
from tasks.stage import StageError

Row = tuple[int, dict[str, object]]  # 1-based line or row number, values by column
_Record = tuple[int, list[str] | None]  # the number of its first line, its cells; None: its quote doesn't close

_PEEK_ROWS = 1000  # of which one at least has what every row has
_IN_EVERY_ROW = (".item_id", ".user_id", ".timestamp")
_MOST_NAMES = 100  # of columns in a message
_PARQUET_ROWS = 20_000
_PARQUET_ROWS_WITH_BYTES = 128
_MAX_DEPTH = 32  # of JSON; what makes texts of values recurs
_UTF8_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_OTHER_FORMATS = {  # by how their files begin
    b"PAR1": "is Parquet; rename it to .parquet, or set ingest.catalog_format or ingest.interactions_format",
    b"PK\x03\x04": "is a ZIP archive, or a spreadsheet; unpack it, or export it as CSV",
}
_UNCLOSED = "a quote opens a cell here that no quote before a delimiter or a line's end closes;"
_QUOTING = "write it twice and quote the cell, or, for a file without quoting, set ingest.quoting: false"
_DELIMITERS = (",", ";", "\t", "|")

# UnicodeDecodeError: an encoding of more than a byte a character, whose lines can't be told before it is decoded.
_DAMAGE = (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error, pa.ArrowException, pl.exceptions.PolarsError)

# NaN and Infinity are no JSON, but many writers emit them; both mean "no value" here.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


def read_rows(source: SourceFile, needed: Mapping[str, str], only: tuple[str, ...] = ()) -> Iterator[Row | Refusal]:
    """Yield a file's rows, in order.

    `needed` gives the columns that must be there by their config key; `only` limits what is read of a Parquet file.
    Raises StageError for a file that is not there, is damaged, or lacks a needed column: at once where a header or a
    schema names the columns; of JSON Lines after 1,000 rows for what every row has, such as ids, else at the end, whose
    last row may be the first to have one.
    """
    for row in _guarded(source, needed, only):
        if source.adapt is not None and not isinstance(row, Refusal):
            row = (row[0], source.adapt(row[1]))
        yield row


def _guarded(source: SourceFile, needed: Mapping[str, str], only: tuple[str, ...]) -> Iterator[Row | Refusal]:
    number = 0
    try:
        for row in _rows(source, needed, only):
            number = row[0] if not isinstance(row, Refusal) else row.row or number
            yield row
    except FileNotFoundError as error:
        raise StageError(
            f"{source.path}: no such file; check ingest.catalog, ingest.interactions, ingest.folder"
        ) from error
    except IsADirectoryError as error:
        raise StageError(f"{source.path} is a folder; name its files, or set ingest.folder instead") from error
    except _DAMAGE as error:
        said = str(error).rstrip(".")
        raise StageError(
            f"{source.path}, after row {number}: can't be read as {source.format}: {said}. Deliver the file again"
        ) from error


def _rows(source: SourceFile, needed: Mapping[str, str], only: tuple[str, ...]) -> Iterator[Row | Refusal]:
    if source.format == "parquet":
        return _parquet_rows(source, needed, only)
    return _json_rows(source, needed) if source.format == "jsonl" else _csv_rows(source, needed)


def _require_columns(source: SourceFile, found: Collection[str], needed: Mapping[str, str]) -> None:
    for key, column in needed.items():
        if found and column not in found:
            if other := _other_delimiter(source, found, column):
                raise StageError(
                    f"{source.path}: no column {column!r}, as its header is not split at {source.delimiter!r} but at "
                    f"{other!r}: set ingest.delimiter: {json.dumps(other)}"
                )
            raise StageError(
                f"{source.path}: no column {column!r}; it has {', '.join(map(repr, found))}. "
                f"Set ingest.{key} to the column that holds it"
            )


def _other_delimiter(source: SourceFile, found: Collection[str], column: str) -> str | None:
    """Return the delimiter at which a CSV header holds the column, or, of a single cell, falls apart at all."""
    if source.format != "csv":
        return None
    for other in _DELIMITERS:
        names = [part.strip(' "') for name in found for part in name.split(other)]
        if other != source.delimiter and (column in names or len(found) == 1 < len(names)):
            return other
    return None


def _utf16(line: bytes) -> str | None:
    """Return which UTF-16 a file's first line is in, by its mark or by the zeros of plain letters; None: not in any."""
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if line.count(0) * 3 < len(line):
        return None
    return "utf-16-be" if line.startswith(b"\x00") else "utf-16-le"


# JSON Lines


def _json_rows(source: SourceFile, needed: Mapping[str, str]) -> Iterator[Row | Refusal]:
    missing = dict(needed)
    found: dict[str, None] = {}
    readable = 0
    with _open(source) as stream:
        for number, line in enumerate(_lines(stream, source.max_line_bytes), start=1):
            if number == 1:
                line = _without_bom(source, line)
            if len(line) > source.max_line_bytes:
                detail = f"the line has more than {source.max_line_bytes:,} bytes (ingest.max_line_bytes)"
                yield Refusal(source.name, number, None, None, "line_too_long", detail)
            elif not line.isspace():
                row = _json_row(source, number, line)
                if missing and not isinstance(row, Refusal):
                    readable += 1
                    missing = {key: column for key, column in missing.items() if column not in row[1]}
                    found.update(dict.fromkeys(itertools.islice(row[1], _MOST_NAMES - len(found))))
                    if readable == _PEEK_ROWS:
                        of_every_row = {key: missing[key] for key in missing if key.endswith(_IN_EVERY_ROW)}
                        _require_columns(source, found, of_every_row)
                yield row
    _require_columns(source, found, missing)


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
    if line.count(b"[") + line.count(b"{") > _MAX_DEPTH and _is_deep(values):
        detail = f"lists and objects within each other over {_MAX_DEPTH} deep; write them flatter, or leave them out"
        return Refusal(source.name, number, None, None, "nested_too_deep", detail)
    return number, values


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        parts = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = list(itertools.chain.from_iterable(parts))
    return any(isinstance(one, dict | list) for one in level)


def _without_bom(source: SourceFile, line: bytes) -> bytes:
    if utf16 := _utf16(line):
        raise StageError(f"{source.path} is UTF-16; JSON Lines must be UTF-8: convert it (iconv -f {utf16} -t UTF-8)")
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


def _csv_rows(source: SourceFile, needed: Mapping[str, str]) -> Iterator[Row | Refusal]:
    csv.field_size_limit(source.max_line_bytes)  # a setting of the whole process: Python has no other
    with _open(source) as stream:
        split = _split_quoted if source.quoted else _split_plainly
        yield from _csv_records(source, split(_text_lines(source, stream), source.delimiter), needed)


def _csv_records(source: SourceFile, records: Iterator[_Record], needed: Mapping[str, str]) -> Iterator[Row | Refusal]:
    header = source.header
    for number, cells in records:
        if cells == []:
            continue
        if header is None:
            header = _header(source, number, cells)
            _require_columns(source, header, needed)
        elif cells is None:
            yield Refusal(source.name, number, None, None, "unclosed_quote", f"{_UNCLOSED} {_QUOTING}")
        elif len(cells) != len(header):
            detail = (
                f"{len(cells)} cells, but {len(header)} columns; quote cells that hold the delimiter or line breaks"
            )
            yield Refusal(source.name, number, None, None, "wrong_number_of_cells", detail)
        else:
            values: dict[str, object] = dict(zip(header, cells, strict=True))
            yield number, values


def _header(source: SourceFile, number: int, cells: list[str] | None) -> tuple[str, ...]:
    if cells is None:
        raise StageError(f"{source.path}, line {number}, the header: {_UNCLOSED} {_QUOTING}")
    names = tuple(name.strip() for name in cells)
    if len(set(names)) < len(names):
        raise StageError(f"{source.path}: the header names a column twice: {', '.join(names)}. Rename one")
    return names


def _split_quoted(lines: Iterator[str], delimiter: str) -> Iterator[_Record]:
    """Cells of CSV with quotes; a record of several lines must be as RFC 4180 has it.

    A quote that opens a cell and isn't meant to would make one cell of all lines up to the next quote. So where that
    one doesn't end the cell, the first line is given up, and reading goes on with the second.
    """
    again: list[str] = []  # lines to be read once more, the next one last
    taken: list[str] = []  # lines of the record being read

    def next_lines() -> Iterator[str]:
        while (line := again.pop() if again else next(lines, None)) is not None:
            taken.append(line)
            yield line

    reader, number = csv.reader(next_lines(), delimiter=delimiter, strict=True), 1
    while True:
        try:
            cells = next(reader, None)
            if cells is None:
                return
        except csv.Error:
            cells = _split_loosely(taken[0], delimiter) if len(taken) == 1 else None
            again.extend(reversed(taken[1:]))
            del taken[1:]
            reader = csv.reader(next_lines(), delimiter=delimiter, strict=True)
        yield number, cells
        number += len(taken)
        taken.clear()


def _split_loosely(line: str, delimiter: str) -> list[str] | None:
    """Cells of one line whose quotes are not as they should be, such as `5" pipe`; None where one stays open."""
    reader = csv.reader([line, ""], delimiter=delimiter)
    cells = next(reader)
    return cells if reader.line_num == 1 else None


def _split_plainly(lines: Iterator[str], delimiter: str) -> Iterator[_Record]:
    for number, line in enumerate(lines, start=1):
        text = line.rstrip("\r\n")
        yield number, text.split(delimiter) if text else []


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
        if number == 1 and (utf16 := _utf16(line)):
            raise StageError(f"{source.path} is UTF-16, not {source.encoding}; set ingest.encoding: {utf16}")
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


# Parquet


def _parquet_rows(source: SourceFile, needed: Mapping[str, str], only: tuple[str, ...]) -> Iterator[Row]:
    with pq.ParquetFile(source.path) as file:
        names = file.schema_arrow.names
        _require_columns(source, names, needed)
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
    """Open a file, through gzip where its name ends so or its bytes begin so: downloads lose their `.gz`.

    Raises StageError where its bytes begin as those of a format that is no text.
    """
    with source.path.open("rb") as plain:
        zipped = source.path.suffix == ".gz" or plain.read(len(_GZIP)) == _GZIP
    open_bytes = gzip.open if zipped else open
    with open_bytes(source.path, "rb") as stream:
        begins = stream.read(4)
    if begins in _OTHER_FORMATS:
        inside = "unpack it (gzip -d): what it holds " if zipped else "it "
        raise StageError(f"{source.path}: can't be read as {source.format}: {inside}{_OTHER_FORMATS[begins]}")
    return cast(BinaryIO, open_bytes(source.path, "rb"))
