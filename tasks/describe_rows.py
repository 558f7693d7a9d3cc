"""From the plan's rows to requests, and from completions to rows of the generations table."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
from jinja2 import TemplateError
from PIL import Image

from storage.digests import digest_of_text
from storage.picture_checks import PictureError
from storage.pictures import PictureStore, load_picture
from storage.schemas import GENERATION_KEY, GENERATIONS, ITEM_ID, ITEMS
from storage.tables import Store, sliced
from tasks.answers import FAILED, answer_status
from tasks.engines.protocol import Completion, Request
from tasks.generation_keys import AskedView
from tasks.item_text import TextLimiter, rendered_turns

_ITEM_COLUMNS = ("title", "description", "attributes", "image_reference", "image_digest")
_READ_ROWS = 4096  # rows sorted by length together
_REPLACEMENT_EVERY = 12  # commits of new rows for each replacement of old ones

# What a template can raise on one item's text, besides Jinja's own errors: it may calculate, index and call.
_TEMPLATE_FAILURES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)

PlanRow = dict[str, Any]  # generation_key, item_id, view, attempts, and the item's own columns


def with_items(store: Store, work: pl.DataFrame, rows: int = _READ_ROWS) -> Iterator[pl.DataFrame]:
    """Yield the plan's rows, each with its item's text and picture, at most `rows` at a time.

    Rows of a view that were never tried go together, those that failed before come after them, and at last those that
    an engine died on. In a frame they stand by the length of their text: requests of like size go together.
    """
    length = pl.col("description").str.len_chars().fill_null(0)
    for _, alike in work.group_by("suspect", "view", pl.col("attempts") > 0, maintain_order=True):
        found = store.table(ITEMS).lookup(alike, ITEM_ID, _ITEM_COLUMNS)
        yield from (frame.sort(length, maintain_order=True) for frame in sliced(found, rows))


def rows_of(frames: Iterable[pl.DataFrame]) -> Iterator[PlanRow]:
    for frame in frames:
        yield from frame.iter_rows(named=True)


@dataclass(frozen=True)
class RequestMaker:
    """Makes a request of a plan row. Threads share one."""

    views: Mapping[str, AskedView]
    limiter: TextLimiter
    pictures: PictureStore
    max_pixels: int

    def __call__(self, row: PlanRow) -> Request | Completion:
        """Return the request, or the failure where the template or the picture fails."""
        prompt = self.views[row["view"]].prompt
        try:
            system, user = rendered_turns(prompt, row, self.limiter)
        except _TEMPLATE_FAILURES as error:
            return _failure(row, "prompt_error", error)
        try:
            picture = self._picture(row) if prompt.needs_picture else None
        except PictureError as error:
            return _failure(row, f"picture_{error.kind}", error)
        schema = prompt.answer.json_schema
        digest = None if picture is None else row["image_digest"]
        return Request(row[GENERATION_KEY], system, user, picture, prompt.sampling, schema, digest)

    def _picture(self, row: PlanRow) -> Image.Image:
        reference = row["image_reference"]
        if reference is None:
            raise PictureError("missing", f"item {row[ITEM_ID]} has no picture any more")
        return scaled_down(load_picture(self.pictures, reference, row["image_digest"]), self.max_pixels)


def scaled_down(picture: Image.Image, max_pixels: int) -> Image.Image:
    """Return the picture with at most `max_pixels` pixels, its shape kept."""
    width, height = picture.size
    factor = (max_pixels / (width * height)) ** 0.5
    if factor >= 1:
        return picture
    size = max(1, int(width * factor)), max(1, int(height * factor))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


class AnswerWriter:
    """Turns completions into rows and commits them every few seconds."""

    def __init__(
        self,
        store: Store,
        views: Mapping[str, AskedView],
        model: str,
        run_id: str,
        commit_seconds: float,
    ) -> None:
        self._table = store.table(GENERATIONS)
        self._views = views
        self._prompt_digests = {name: view.prompt.digest for name, view in views.items()}
        self._model = model
        self._run_id = run_id
        self._commit_seconds = commit_seconds
        self._asked: dict[str, tuple[str, str, int]] = {}  # item, view, attempts before; by key, until answered
        self._new: list[dict[str, Any]] = []
        self._again: list[dict[str, Any]] = []  # answers to keys that failed before and have a row
        self._last_commit = self._last_replacement = time.monotonic()
        self.statuses: Counter[str] = Counter()
        self.error_kinds: Counter[str] = Counter()

    @property
    def done(self) -> int:
        return self.statuses.total()

    def noted(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the plan rows given, remembering whose they are until their completions come."""
        for key, item_id, view, attempts in rows.select(GENERATION_KEY, ITEM_ID, "view", "attempts").iter_rows():
            self._asked[key] = item_id, view, attempts
        return rows

    def accept(self, completions: list[Completion]) -> None:
        """Take completions; commit if it is time. Replacing rows reads the table, so that is done more seldom."""
        for completion in completions:
            row = self._row(completion)
            self.statuses[row["status"]] += 1
            if row["error_kind"]:
                self.error_kinds[row["error_kind"]] += 1
            (self._again if row["attempts"] > 1 else self._new).append(row)
        now = time.monotonic()
        if now - self._last_commit >= self._commit_seconds:
            self._append()
        if now - self._last_replacement >= _REPLACEMENT_EVERY * self._commit_seconds:
            self._replace()

    def commit(self) -> None:
        """Commit all that is finished."""
        self._append()
        self._replace()

    def _append(self) -> None:
        rows, self._new = self._new, []
        self._last_commit = time.monotonic()
        self._table.append(pl.DataFrame(rows, schema=self._table.empty().schema))

    def _replace(self) -> None:
        rows, self._again = self._again, []
        self._last_replacement = time.monotonic()
        self._table.upsert(pl.DataFrame(rows, schema=self._table.empty().schema))

    def _row(self, completion: Completion) -> dict[str, Any]:
        item_id, view_name, attempts = self._asked.pop(completion.key)
        view = self._views[view_name]
        text = None if completion.text is None else completion.text.strip()
        status = FAILED
        if text is not None:
            status = answer_status(text, completion.finish_reason, view.prompt.answer)
        return {
            GENERATION_KEY: completion.key,
            ITEM_ID: item_id,
            "view": view_name,
            "status": status,
            "text": text,
            "text_digest": None if text is None else digest_of_text(text),
            "prompt_name": view.prompt.name,
            "prompt_digest": self._prompt_digests[view_name],
            "model": self._model,
            "engine_digest": view.engine_digest,
            "finish_reason": completion.finish_reason,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "error_kind": completion.error_kind,
            "error_detail": completion.error_detail,
            "attempts": attempts + 1,
            "created_at": datetime.now(UTC),
            "run_id": self._run_id,
        }


def _failure(row: PlanRow, kind: str, error: Exception) -> Completion:
    return Completion(row[GENERATION_KEY], error_kind=kind, error_detail=f"{type(error).__name__}: {error}")
