"""The file layouts of MovieLens: 100K (u.item, u.data), 1M (movies.dat, ratings.dat), latest (movies.csv, ratings.csv).

A folder with items.parquet and interactions.parquet is the plain layout. Every rating is an event.
"""

from dataclasses import replace
from pathlib import Path

from tasks.ingest.config import CatalogColumns, EventColumns, IngestConfig
from tasks.ingest.delivery import (
    Adapt,
    Delivery,
    SourceFile,
    layout_columns,
    plain_delivery,
    refuse_decided,
    source_files,
)
from tasks.stage import StageError

_GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_ITEM_100K = ("item_id", "title", "release_date", "video_release_date", "imdb_url", *_GENRES_100K)
_EVENT_100K = ("user_id", "item_id", "rating", "timestamp")
_ENCODING = "latin-1"
_DECIDED = {
    "encoding": _ENCODING,
    "delimiter": None,  # one a file
    "quoting": False,
    "catalog_format": "csv",
    "interactions_format": "csv",
}


def movielens_delivery(config: IngestConfig) -> Delivery:
    """Return the delivery in `folder`, whichever of the layouts it has. Raises StageError if it has none."""
    folder = config.folder
    if folder is None:
        raise StageError("layout movielens needs ingest.folder, the folder that the data set was unpacked into")
    if (folder / "u.item").is_file():
        return _without_header(
            config,
            _delimited(folder / "u.item", "|", _ITEM_100K, _genres_from_flags),
            _delimited(folder / "u.data", "\t", _EVENT_100K),
        )
    if (folder / "movies.dat").is_file():
        return _without_header(
            config,
            _delimited(folder / "movies.dat", "::", ("item_id", "title", "genres"), _genres_from_bars),
            _delimited(folder / "ratings.dat", "::", _EVENT_100K),
        )
    if (folder / "movies.csv").is_file():
        return _latest(folder, config)
    if (folder / "items.parquet").is_file():
        return plain_delivery(config)
    raise StageError(
        f"{folder} is no MovieLens folder: it holds neither u.item and u.data, movies.dat and ratings.dat, movies.csv "
        "and ratings.csv, nor items.parquet and interactions.parquet"
    )


def _latest(folder: Path, config: IngestConfig) -> Delivery:
    (movies,), ratings = source_files([folder / "movies.csv"], [folder / "ratings.csv"], config)
    columns, event_columns = CatalogColumns(item_id="movieId"), EventColumns(user_id="userId", item_id="movieId")
    return Delivery(
        (replace(movies, adapt=_genres_from_bars),), ratings, *layout_columns(config, columns, event_columns)
    )


def _without_header(config: IngestConfig, items: SourceFile, events: SourceFile) -> Delivery:
    refuse_decided(config.layout, "ingest", config, _DECIDED)
    columns = CatalogColumns(ignore=("video_release_date", "imdb_url"))
    catalog, interactions = (replace(file, max_line_bytes=config.max_line_bytes) for file in (items, events))
    return Delivery((catalog,), (interactions,), *layout_columns(config, columns, EventColumns()))


def _delimited(path: Path, delimiter: str, header: tuple[str, ...], adapt: Adapt | None = None) -> SourceFile:
    return SourceFile(path, path.name, "csv", _ENCODING, delimiter, quoted=False, header=header, adapt=adapt)


def _genres_from_flags(values: dict[str, object]) -> dict[str, object]:
    genres = [genre for genre in _GENRES_100K[1:] if values[genre] == "1"]
    return {name: value for name, value in values.items() if name not in _GENRES_100K} | {"genres": genres}


def _genres_from_bars(values: dict[str, object]) -> dict[str, object]:
    genres = str(values.get("genres", "")).split("|")
    return values | {"genres": [genre for genre in genres if genre != "(no genres listed)"]}
