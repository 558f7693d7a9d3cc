"""Which files a delivery is made of, and how each is to be read."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from tasks.ingest.config import CatalogColumns, EventColumns, IngestConfig
from tasks.stage import StageError

_EXTENSIONS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_CATALOG_NAMES = ("catalog", "items")
_EVENT_NAMES = ("interactions", "events")

Adapt = Callable[[dict[str, object]], dict[str, object]]


@dataclass(frozen=True)
class SourceFile:
    """One delivered file. `header` names the columns of a file that has no header line; `quoted` is CSV's quoting."""

    path: Path
    name: str  # as rejects name it
    format: str  # jsonl, csv or parquet
    encoding: str = "utf-8"
    delimiter: str = ","
    quoted: bool = True
    header: tuple[str, ...] | None = None
    adapt: Adapt | None = None  # a layout's own way to make a row's values plain
    max_line_bytes: int = 2**24


@dataclass(frozen=True)
class Delivery:
    """The files of a delivery and what their columns mean."""

    catalog: tuple[SourceFile, ...]
    interactions: tuple[SourceFile, ...]
    columns: CatalogColumns
    event_columns: EventColumns

    @property
    def files(self) -> tuple[SourceFile, ...]:
        return self.catalog + self.interactions


def plain_delivery(config: IngestConfig) -> Delivery:
    """Return the delivery whose files the config names, or that lie in its folder as catalog.* and interactions.*."""
    catalog, interactions = config.catalog, config.interactions
    if config.folder is not None:
        catalog = _named(config.folder, _CATALOG_NAMES)
        interactions = _named(config.folder, _EVENT_NAMES)
    return Delivery(*source_files(catalog, interactions, config), config.columns, config.event_columns)


def source_files(
    catalog: Iterable[Path], interactions: Iterable[Path], config: IngestConfig
) -> tuple[tuple[SourceFile, ...], tuple[SourceFile, ...]]:
    """Return how to read the files of both kinds. Raises StageError for an extension that says nothing."""
    items, events = list(catalog), list(interactions)
    names = _names(items + events)

    def source_of(path: Path, file_format: str) -> SourceFile:
        return SourceFile(
            path=path,
            name=names[path],
            format=file_format if file_format != "auto" else _format_of(path),
            encoding=config.encoding,
            delimiter=config.delimiter or ("\t" if ".tsv" in path.suffixes else ","),
            quoted=config.quoting,
            max_line_bytes=config.max_line_bytes,
        )

    return (
        tuple(source_of(path, config.catalog_format) for path in items),
        tuple(source_of(path, config.interactions_format) for path in events),
    )


def layout_columns(
    config: IngestConfig, columns: CatalogColumns, event_columns: EventColumns
) -> tuple[CatalogColumns, EventColumns]:
    """Return a layout's own columns, less those that the config ignores. Raises StageError where it names others."""
    refuse_decided(config.layout, "ingest.columns", config.columns, columns.model_dump(exclude={"ignore"}))
    refuse_decided(config.layout, "ingest.event_columns", config.event_columns, event_columns.model_dump())
    return columns.model_copy(update={"ignore": (*columns.ignore, *config.columns.ignore)}), event_columns


def refuse_decided(layout: str, place: str, section: BaseModel, decided: Mapping[str, object]) -> None:
    """Raise StageError where a section of the config sets what its layout decides, and otherwise than the layout."""
    given = sorted(
        name for name in section.model_fields_set & decided.keys() if getattr(section, name) != decided[name]
    )
    if given:
        raise StageError(
            f"{', '.join(f'{place}.{name}' for name in given)}: layout {layout} decides this itself; take the setting "
            "out, or, for files of your own, set ingest.layout: plain"
        )


def files_in(folder: Path, pattern: str) -> list[Path]:
    """Return the folder's files that match a glob, in order of their names. Raises StageError if there is no folder."""
    if not folder.is_dir():
        raise StageError(f"{folder} is no folder; ingest.folder must name the folder that holds the delivery")
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def _named(folder: Path, names: Iterable[str]) -> tuple[Path, ...]:
    found = [
        path
        for path in files_in(folder, "*")
        if path.name.removesuffix(".gz").rpartition(".")[0] in names and _extension(path) in _EXTENSIONS
    ]
    if len(found) != 1:
        wanted = " or ".join(f"{name}.{{jsonl,csv,parquet}}" for name in names)
        listed = ", ".join(path.name for path in found) or "none"
        raise StageError(f"{folder} must hold one file {wanted}; found {listed}. Or name the files one by one")
    return tuple(found)


def _names(paths: list[Path]) -> Mapping[Path, str]:
    """Return the names by which rejects call the files: the file's own, with its folders where that is not enough."""
    plain = [path.name for path in paths]
    if len(set(plain)) == len(set(paths)):
        return {path: _readable(path.name) for path in paths}
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return {path: _readable(os.path.relpath(path.absolute(), root)) for path in paths}


def _readable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


def _format_of(path: Path) -> str:
    extension = _extension(path)
    if extension not in _EXTENSIONS:
        raise StageError(
            f"{path}: the extension {extension!r} tells no format; rename it to .jsonl, .csv, .tsv or .parquet "
            "(.gz may follow the first three), or set ingest.catalog_format or ingest.interactions_format"
        )
    return _EXTENSIONS[extension]


def _extension(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()
