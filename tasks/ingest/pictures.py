"""Pictures of a batch of items: found or fetched, checked, copied into the store, or refused; each looked at once.

What is known of a delivered picture stands in the `pictures` table: a file whose size and time are the same is not
read again, a URL is fetched once, the same bytes are checked once.
"""

import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from storage.digests import digest_of, digest_of_bytes
from storage.picture_checks import PictureError, check_picture
from storage.pictures import PictureStore, in_place_reference, is_in_place, reference_of
from storage.schemas import ITEMS, PICTURES
from storage.tables import Store
from tasks.ingest.catalog import ItemDraft
from tasks.ingest.config import PictureConfig
from tasks.ingest.picture_fetching import TRANSIENT, fetch_picture
from tasks.ingest.picture_paths import picture_file
from tasks.ingest.refusals import PICTURE_REASON, Refusal

_REMEDIES = {  # by kind of PictureError, where its detail doesn't say it
    "missing": "deliver it",
    "empty": "deliver it again",
    "not_a_picture": "deliver a picture",
    "truncated": "deliver it again",
    "too_many_bytes": "deliver a smaller one, or raise ingest.pictures.limits.max_bytes",
    "too_many_pixels": "deliver a smaller one, or raise ingest.pictures.limits.max_pixels",
    "too_small": "deliver a larger one",
    "bad_aspect": "crop it",
    "bad_url": "correct the URL, or allow its scheme (ingest.pictures.schemes)",
    "too_many_redirects": "give the final URL",
    TRANSIENT: "the next run tries again",
}
_CHUNK = 128  # pictures in memory at a time
_WRITE_SECONDS = 20.0  # what a killed run may have to fetch again
_COLUMNS = ("source", "stamp", "image_digest", "image_reference", "reason", "detail", "size")
_FETCHING_OFF = "fetching_off"
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # JSON can say it, UTF-8 can't


class Verdict(NamedTuple):
    """What is known of a picture: a digest and reference, or a digest (if it could be read) and why it was refused."""

    image_digest: str | None
    image_reference: str | None
    reason: str | None = None
    detail: str | None = None
    size: int | None = None  # bytes of one that was not refused


_NO_PICTURE = Verdict(None, None)
_NOT_FETCHED = Verdict("?", "?")  # the plan neither fetches nor stores: such a picture counts as another one


@dataclass(frozen=True)
class _Given:
    """A picture as delivered: its name in the `pictures` table, and where its bytes are (neither: a URL)."""

    source: str
    stamp: str | None = None
    path: Path | None = None
    content: bytes | None = field(default=None, repr=False)


class PictureIntake:
    """Turns drafts' pictures into verdicts. Without a run (a plan) nothing is fetched, decoded or written.

    `paths` counts pictures given as files; `retries` those whose fetching failed for a passing reason.
    """

    def __init__(
        self, store: Store, config: PictureConfig, column: str, folders: Mapping[str, Path], run_id: str | None
    ) -> None:
        self._table = store.table(PICTURES)
        self._store = PictureStore(store)
        self._config = config
        self._column = column  # of the catalog, that names the pictures
        self._folders = folders  # by source file: what its relative paths start from
        self._run_id = run_id
        self._dry = run_id is None
        self._written_at = time.monotonic()
        self._limits_digest = digest_of(config.limits.model_dump())
        limits = pl.col("limits_digest") == self._limits_digest
        self._known = self._table.scan().filter(limits).select(_COLUMNS).collect()
        self._learnt: list[tuple[_Given, Verdict]] = []
        self.paths = 0
        self.retries = 0

    def resolve(self, drafts: list[ItemDraft]) -> tuple[list[Verdict], list[Refusal]]:
        """Return a verdict for each draft, and refusals for those whose picture can't be used."""
        given = [self._given(draft) for draft in drafts]
        verdicts = self._look_at({one.source: one for one in given if isinstance(one, _Given)})
        found = [verdicts[one.source] if isinstance(one, _Given) else one for one in given]
        self.retries += sum(verdict.reason == TRANSIENT for verdict in found)
        pairs = zip(drafts, found, strict=True)
        refusals = (_refusal(draft, verdict, self._column) for draft, verdict in pairs)
        return found, [refusal for refusal in refusals if refusal is not None]

    def write(self) -> None:
        """Put what was learnt into the `pictures` table; while a long batch is fetched, this happens on its own."""
        self._written_at = time.monotonic()
        if not self._learnt:
            return
        shared = {"limits_digest": self._limits_digest, "created_at": datetime.now(UTC), "run_id": self._run_id}
        rows = [
            {"source": one.source, "stamp": one.stamp, **verdict._asdict(), **shared} for one, verdict in self._learnt
        ]
        frame = pl.DataFrame(rows, schema=self._table.empty().schema)
        frame = frame.unique("source", keep="last", maintain_order=True)
        self._table.upsert(frame)
        self._known = pl.concat([self._known, frame.select(_COLUMNS)], rechunk=False)
        self._learnt.clear()

    def _given(self, draft: ItemDraft) -> "_Given | Verdict":
        picture = draft.picture
        if picture is None:
            return _NO_PICTURE
        if isinstance(picture, bytes):
            return _Given(f"bytes:{digest_of_bytes(picture)}", content=picture)
        if "://" in picture:
            if _SURROGATE.search(picture):
                return Verdict(None, None, "bad_url", f"{picture[:200]!r} holds half a character; correct it")
            return _Given(picture) if self._config.fetch else Verdict(None, None, _FETCHING_OFF)
        try:
            path, stamp = picture_file(self._folders[draft.source], picture)
        except PictureError as error:
            return Verdict(None, None, error.kind, error.detail)
        self.paths += 1
        return _Given(str(path), stamp, path=path)

    def _look_at(self, given: Mapping[str, _Given]) -> dict[str, Verdict]:
        verdicts = self._remembered(given)
        unknown = [one for source, one in given.items() if source not in verdicts]
        if not unknown:
            return verdicts
        with ThreadPoolExecutor(self._config.workers) as pool:
            for start in range(0, len(unknown), _CHUNK):
                chunk = unknown[start : start + _CHUNK]
                contents = list(pool.map(self._content, chunk))
                checked = self._checked(digest_of_bytes(content) for content in contents if isinstance(content, bytes))
                judged = list(pool.map(self._judge, chunk, contents, [checked] * len(chunk)))
                verdicts.update((one.source, verdict) for one, verdict in zip(chunk, judged, strict=True))
                if not self._dry:
                    self._learnt.extend(zip(chunk, judged, strict=True))
                if time.monotonic() - self._written_at > _WRITE_SECONDS:
                    self.write()
        return verdicts

    def _remembered(self, given: Mapping[str, _Given]) -> dict[str, Verdict]:
        """Return what the `pictures` table knows and still holds: same stamp, kept alike and there, no retry due."""
        if not given or not self._known.height:
            return {}
        verdicts: dict[str, Verdict] = {}
        for source, stamp, *verdict in self._known.filter(pl.col("source").is_in(list(given))).iter_rows():
            one, known = given[source], Verdict(*verdict)
            verdicts.pop(source, None)  # a later row is newer
            to_retry = known.reason == TRANSIENT and not self._dry
            if one.stamp == stamp and self._kept_alike(one, known) and not to_retry:
                verdicts[source] = known
        return verdicts

    def _kept_alike(self, one: _Given, known: Verdict) -> bool:
        if known.image_reference is None:
            return True
        in_place = is_in_place(known.image_reference)
        return in_place == self._stays(one) and (in_place or self._store.holds(known.image_reference, known.size))

    def _stays(self, one: _Given) -> bool:
        return one.path is not None and self._config.keep_in_place

    def _checked(self, digests: Iterable[str]) -> dict[str, Verdict]:
        """Return what is known of contents by their digests."""
        wanted = pl.Series(list(digests), dtype=pl.String)
        if not len(wanted) or not self._known.height:
            return {}
        rows = self._known.filter(pl.col("image_digest").is_in(wanted.implode()))
        return {row[0]: Verdict(*row) for row in rows.select(*_COLUMNS[2:]).iter_rows()}

    def _content(self, one: _Given) -> bytes | PictureError | None:
        """Return the picture's bytes, why there are none, or None for a URL that the plan leaves alone."""
        if one.content is not None:
            return one.content
        try:
            if one.path is not None:
                return _read(one.path, self._config.limits.max_bytes)
            return None if self._dry else fetch_picture(one.source, self._config)
        except PictureError as error:
            return error

    def _judge(self, one: _Given, content: bytes | PictureError | None, checked: Mapping[str, Verdict]) -> Verdict:
        if content is None:
            return _NOT_FETCHED
        if isinstance(content, PictureError):
            return Verdict(None, None, content.kind, content.detail)
        digest = digest_of_bytes(content)
        known = checked.get(digest)
        if known is not None and known.reason is not None:
            return known
        judged = Verdict(digest, self._reference(one, digest), size=len(content))
        if self._dry:
            return judged if self._stays(one) or self._store.holds(reference_of(digest), len(content)) else _NOT_FETCHED
        try:
            if known is None:
                check_picture(content, self._config.limits)
        except PictureError as error:
            return Verdict(digest, None, error.kind, error.detail)
        if not self._stays(one):
            self._store.save(content)
        return judged

    def _reference(self, one: _Given, digest: str) -> str:
        return in_place_reference(one.path) if one.path and self._stays(one) else reference_of(digest)


def all_held(store: Store) -> bool:
    """Whether the store has the pictures of all active items, whole as far as their sizes tell."""
    active = store.table(ITEMS).scan().filter("active").select("image_reference")
    known = store.table(PICTURES).scan().join(active, on="image_reference", how="semi")
    pictures = PictureStore(store)
    pairs = known.select("image_reference", "size").unique().collect().iter_rows()
    return all(is_in_place(reference) or pictures.holds(reference, size) for reference, size in pairs)


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise PictureError("missing", f"{path.name} can't be opened: {error.strerror}") from error
    if len(content) > max_bytes:
        raise PictureError("too_many_bytes", f"over {max_bytes:,} bytes")
    return content


def _refusal(draft: ItemDraft, verdict: Verdict, column: str) -> Refusal | None:
    if verdict.reason is None:
        return None
    if verdict.reason == _FETCHING_OFF:  # one for the file: the remedy is one setting
        detail = "pictures are given as URLs; set ingest.pictures.fetch: true to fetch them"
        return Refusal(draft.source, None, column, None, _FETCHING_OFF, detail)
    reason, remedy = f"{PICTURE_REASON}{verdict.reason}", _REMEDIES.get(verdict.reason)
    detail = "; ".join(part for part in (verdict.detail, remedy) if part)
    return Refusal(draft.source, draft.row, column, draft.item_id, reason, detail)
