"""A file of item ids, one a line: the items that a run is limited to."""

from pathlib import Path

import polars as pl

from storage.schemas import ITEM_ID
from tasks.id_files import read_item_ids
from tasks.stage import StageError

_NAMED = 10  # unknown ids named in the error; the rest are counted


def chosen(items: pl.LazyFrame, path: Path | None) -> pl.LazyFrame:
    """Return the rows of `items` whose ids stand in the file; all of them where there is no file.

    Raises StageError naming the file where it can't be read, holds no id, or holds ids that no item has.
    """
    return items if path is None else items.filter(pl.col(ITEM_ID).is_in(_known_ids(items, path)))


def _known_ids(items: pl.LazyFrame, path: Path) -> list[str]:
    lines = read_item_ids(path)
    if not lines:
        raise StageError(f"{path}: holds no item id; give one on each line")
    known = set(items.select(ITEM_ID).filter(pl.col(ITEM_ID).is_in(list(lines))).collect()[ITEM_ID])
    if unknown := [f"line {line}: {item_id}" for item_id, line in lines.items() if item_id not in known]:
        more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
        raise StageError(
            f"{path}: {len(unknown):,} of {len(lines):,} ids are of no item in the store "
            f"({'; '.join(unknown[:_NAMED])}{more}). Ids are text, exactly as delivered; ingest the items, or take "
            "the lines out"
        )
    return list(lines)
