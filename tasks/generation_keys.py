"""Which answers the catalog wants, by key: planning reads digests only, and renders no prompt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from storage.digests import digest_of, digests_of_rows
from storage.schemas import GENERATION_KEY, ITEM_ID
from tasks.prompt_files import Prompt

_SLICE_ROWS = 100_000  # rows held as Python strings at a time


@dataclass(frozen=True)
class AskedView:
    """A prompt and the engine that answers it; `engine_digest` holds all of the engine that bears on this view."""

    prompt: Prompt
    engine_digest: str

    @property
    def key_prefix(self) -> str:
        return digest_of(
            {"view": self.prompt.view, "prompt": self.prompt.digest, "engine": self.engine_digest},
        )

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Return the item's digests that decide its key: of what the prompt reads, and nothing else."""
        picture = ("image_digest",) if self.prompt.needs_picture else ()
        return (*picture, *(f"{field}_digest" for field in self.prompt.item_fields))


def wanted_generations(items: pl.LazyFrame, views: Iterable[AskedView]) -> pl.DataFrame:
    """Return item_id, view, generation_key: a row for each item and view whose prompt finds what it needs.

    `items` has item_id and the digest columns, at least.
    """
    frames = [_wanted(items, view) for view in views]
    empty = pl.DataFrame(schema={ITEM_ID: pl.String, "view": pl.String, GENERATION_KEY: pl.String})
    return pl.concat([empty, *frames])


def has_what_it_needs(prompt: Prompt) -> pl.Expr:
    """Return the filter over items: image wants a picture, text any text it mentions, joint picture and description."""
    picture = pl.col("image_digest").is_not_null()
    if prompt.view == "image":
        return picture
    if prompt.view == "joint":
        return picture & pl.col("description_digest").is_not_null()
    return pl.any_horizontal(pl.col(f"{field}_digest").is_not_null() for field in prompt.item_fields)


def keys_of(rows: pl.DataFrame, prefix: str) -> pl.Series:
    """Return the digest of `prefix` and each row's texts, as a column."""
    keys = [
        pl.Series(digests_of_rows(prefix, part.iter_rows()), dtype=pl.String) for part in rows.iter_slices(_SLICE_ROWS)
    ]
    return pl.concat(keys) if keys else pl.Series([], dtype=pl.String)


def _wanted(items: pl.LazyFrame, view: AskedView) -> pl.DataFrame:
    columns: Sequence[str] = view.key_columns
    rows = items.filter(has_what_it_needs(view.prompt)).select(ITEM_ID, *columns).collect()
    return rows.select(
        pl.col(ITEM_ID),
        pl.lit(view.prompt.view).alias("view"),
        keys_of(rows.select(columns), view.key_prefix).alias(GENERATION_KEY),
    )
