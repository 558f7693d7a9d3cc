"""Settings of the ingest stage: which files, which columns, which limits."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from storage.picture_checks import PictureLimits

FileFormat = Literal["auto", "jsonl", "csv", "parquet"]
Layout = Literal["plain", "amazon_reviews_2023", "movielens"]
TimestampUnit = Literal["auto", "s", "ms", "us", "ns", "iso", "order"]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | Path) else value


Paths = Annotated[tuple[Path, ...], BeforeValidator(_as_tuple)]


class CatalogColumns(BaseModel):
    """Which catalog column is what. Every other column is an attribute."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: str = Field(default="item_id", description="the shop's own id; text or whole number")
    title: str = Field(default="title", description="may be absent unless named here")
    description: str = Field(default="description", description="may be absent unless named here; lists are joined")
    image: str = Field(
        default="image", description="a path relative to the catalog file, a URL, or the picture's bytes (Parquet)"
    )
    ignore: tuple[str, ...] = Field(
        default=(),
        description="columns that are no attributes; name what changes daily (price, stock), or each change "
        "of it makes the item's texts stale",
    )


class EventColumns(BaseModel):
    """Which column of the interactions is what. Others are not read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: str = Field(default="user_id", description="the shop's own id of whoever acted; text or whole number")
    item_id: str = Field(default="item_id", description="an item_id of the catalog")
    timestamp: str = Field(default="timestamp", description="when; its unit is timestamp_unit")


class PictureConfig(BaseModel):
    """How pictures are taken in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: PictureLimits = PictureLimits()
    keep_in_place: bool = Field(
        default=False,
        description="leave delivered picture files where they lie, instead of copying them into the store: saves disk, "
        "but the folder must stay, and a picture that moves counts as a changed item",
    )
    fetch: bool = Field(default=False, description="fetch pictures given as URLs into the store")
    schemes: tuple[Literal["http", "https"], ...] = Field(
        default=("https", "http"), min_length=1, description="of URLs fetched"
    )
    max_redirects: int = Field(default=3, ge=0, description="redirects followed, each checked like the first address")
    seconds: float = Field(default=20.0, gt=0, description="for one picture, redirects and all")
    allow_private_addresses: bool = Field(
        default=False,
        description="fetch from private, loopback and link-local addresses too: a catalog could then make this machine "
        "ask any service of its network",
    )
    workers: int = Field(default=8, ge=1, le=256, description="pictures read, checked or fetched side by side")


class IngestConfig(BaseModel):
    """What is ingested. The catalog is a full snapshot; interactions may be all or only the new ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Layout = Field(default="plain", description="how files and columns are named: see docs/own_catalog.md")
    folder: Path | None = Field(
        default=None, description="a folder in the layout; instead of naming catalog and interactions"
    )
    catalog: Paths = Field(default=(), description="the catalog's file or files")
    interactions: Paths = Field(default=(), description="the interactions' file or files, in order")
    catalog_format: FileFormat = Field(default="auto", description="auto: by the file's extension")
    interactions_format: FileFormat = Field(default="auto", description="auto: by the file's extension")
    encoding: str = Field(default="utf-8", description="of CSV files; JSON Lines are always UTF-8")
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="of CSV files; none: a tab for .tsv, else a comma"
    )
    quoting: bool = Field(
        default=True, description="CSV cells may stand in double quotes; false: a quote is a character like others"
    )
    html: bool = Field(
        default=True,
        description="take HTML out of texts: elements, scripts, comments, entities; false: `<p>` is meant as written",
    )
    columns: CatalogColumns = CatalogColumns()
    event_columns: EventColumns = EventColumns()
    timestamp_unit: TimestampUnit = Field(
        default="auto",
        description="auto: dates (ISO 8601, 20260228), or by magnitude, one unit a file; order: the order alone counts",
    )
    pictures: PictureConfig = PictureConfig()
    max_text_chars: int = Field(
        default=100_000, ge=1, description="characters of a title, description or all attributes"
    )
    max_line_bytes: int = Field(default=2**24, ge=1, description="bytes of one JSON line or CSV field")
    max_reject_share: float = Field(
        default=0.2, ge=0, le=1, description="share of a file's rows that may be refused before the stage stops"
    )
    max_gone_share: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of active items that may be missing from a catalog before the stage stops: a half-written "
        "export must not empty the shop; 1 allows all",
    )
    commit_rows: int = Field(default=20_000, ge=1, description="items a commit; what a killed run may have to redo")

    @model_validator(mode="after")
    def _names_files(self) -> "IngestConfig":
        if self.folder is None and not self.catalog and not self.interactions:
            raise ValueError("name the files: ingest.catalog and ingest.interactions, or ingest.folder")
        if self.folder is not None and (self.catalog or self.interactions):
            raise ValueError(
                "ingest.folder stands instead of ingest.catalog and ingest.interactions: name one or the other"
            )
        return self
