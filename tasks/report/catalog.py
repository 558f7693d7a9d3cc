"""The report's sections on items and users: a gallery, and what some users had and are shown."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup

from storage.digests import digest_of_text
from storage.schemas import ITEM_ID, USER_ID
from storage.vector_index import VectorIndex
from tasks.answers import OK
from tasks.report.sources import Sources
from tasks.report.thumbnails import Thumbnails

_ITEMS_OF_A_USER = 8
_LONGEST_TEXT = 400
_LARGEST_SHELF = 300_000  # nearest neighbours are looked for among so many items at the most


@dataclass(frozen=True)
class Tile:
    """An item in a row of items."""

    item_id: str
    title: str
    picture: Markup | None
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What the model said for a view, or why it is not used."""

    view: str
    text: str | None
    status: str


@dataclass(frozen=True)
class Segment:
    """A piece of the item's own text and the share of attention that each view gives it, 0 to 1."""

    text: str
    kind: str
    shares: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Card:
    """An item of the gallery."""

    tile: Tile
    attributes: Sequence[tuple[str, str]]
    answers: Sequence[Answer]
    segments: Sequence[Segment]
    neighbours: Sequence[Tile]


@dataclass(frozen=True)
class Shopper:
    """A user: the last items they had, oldest first, and what they are shown, best first."""

    user_id: str
    events: int
    history: Sequence[Tile]
    recommended: Sequence[Tile]


class TileMaker:
    """Makes tiles of items, reading what is not known yet in one go."""

    def __init__(self, sources: Sources, thumbnails: Thumbnails) -> None:
        self._sources = sources
        self._thumbnails = thumbnails
        self.items: dict[str, dict[str, str | None]] = {}

    def load(self, item_ids: Iterable[str]) -> None:
        missing = [item_id for item_id in item_ids if item_id not in self.items]
        self.items |= self._sources.items(missing)

    def tile(self, item_id: str, note: str = "") -> Tile:
        item = self.items.get(item_id, {})
        picture = self._thumbnails.of(item.get("image_reference"), item.get("image_digest"))
        return Tile(item_id, item.get("title") or item_id, picture, note)


def gallery(sources: Sources, maker: TileMaker, count: int, neighbours: int) -> list[Card]:
    """Return cards of `count` items: the same ones every night as long as they are in the catalog."""
    chosen = _chosen_items(sources, count)
    near = _neighbours(sources, chosen, neighbours)
    maker.load({*chosen, *(item_id for found in near.values() for item_id, _ in found)})
    answers = _answers(sources, chosen)
    segments = _segments(sources, chosen)
    return [
        Card(
            tile=maker.tile(item_id),
            attributes=_attributes(maker.items.get(item_id, {}).get("attributes")),
            answers=answers.get(item_id, []),
            segments=segments.get(item_id, []),
            neighbours=[maker.tile(other, f"{cosine:.2f}") for other, cosine in near.get(item_id, [])],
        )
        for item_id in chosen
    ]


def shoppers(sources: Sources, maker: TileMaker, count: int) -> list[Shopper]:
    """Return `count` users who have present recommendations: the same ones every night."""
    table, histories = sources.present_recommendations, sources.audience.histories
    known = set(table.select(USER_ID).unique().collect()[USER_ID])
    places = [place for place, user_id in enumerate(histories.user_ids) if user_id in known]
    places.sort(key=lambda place: digest_of_text(histories.user_ids[place]))
    chosen = {histories.user_ids[place]: place for place in places[:count]}
    wanted = pl.Series(list(chosen), dtype=pl.String)
    rows = table.filter(pl.col(USER_ID).is_in(wanted.implode()) & (pl.col("rank") <= _ITEMS_OF_A_USER)).sort("rank")
    best = {user_id: part.select(ITEM_ID, "score").rows() for (user_id,), part in rows.collect().group_by(USER_ID)}
    ids = sources.features.item_ids
    had = {
        user_id: [ids[index - 1] for index in histories.history(place)[-_ITEMS_OF_A_USER:]]
        for user_id, place in chosen.items()
    }
    maker.load({item_id for items in had.values() for item_id in items})
    maker.load({item_id for found in best.values() for item_id, _ in found})
    return [
        Shopper(
            user_id,
            int(histories.lengths[place]),
            [maker.tile(item_id) for item_id in had[user_id]],
            [maker.tile(item_id, f"{score:.2f}") for item_id, score in best.get(user_id, [])],
        )
        for user_id, place in chosen.items()
    ]


def shortened(text: str) -> str:
    """Return a text of bounded length."""
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


def _chosen_items(sources: Sources, count: int) -> list[str]:
    """Items in the order of their ids' digests: with a usable answer first, and one in six whatever they have."""
    answered = sources.generations.filter(pl.col("status") == OK).select(ITEM_ID).unique().collect()
    ids = sorted(sources.features.item_ids, key=digest_of_text)
    usable = set(answered[ITEM_ID])
    rich = [item_id for item_id in ids if item_id in usable][: count - count // 6]
    chosen = set(rich)
    poor = [item_id for item_id in ids if item_id not in chosen][: count - len(rich)]
    return rich + poor


def _neighbours(sources: Sources, item_ids: list[str], count: int) -> dict[str, list[tuple[str, float]]]:
    """The items of the highest cosine to each, by the recommending model's vectors."""
    ids = sources.features.item_ids
    if len(ids) > _LARGEST_SHELF or not item_ids or sources.unit_items_ND is None:
        return {}
    place_of = {item_id: place for place, item_id in enumerate(ids)}
    rows = np.array([place_of[item_id] for item_id in item_ids])
    scores, found = VectorIndex(sources.unit_items_ND).search(sources.unit_items_ND[rows], min(count + 1, len(ids)))
    return {
        item_id: [
            (ids[other], float(score))
            for other, score in zip(found[place], scores[place], strict=True)
            if other != rows[place]
        ][:count]
        for place, item_id in enumerate(item_ids)
    }


def _answers(sources: Sources, item_ids: list[str]) -> dict[str, list[Answer]]:
    wanted = pl.Series(item_ids, dtype=pl.String)
    rows = sources.generations.filter(pl.col(ITEM_ID).is_in(wanted.implode())).sort(ITEM_ID, "view").collect()
    answers: dict[str, list[Answer]] = {}
    for row in rows.iter_rows(named=True):
        text = None if row["text"] is None else shortened(row["text"])
        answers.setdefault(row[ITEM_ID], []).append(Answer(row["view"], text, row["status"] or "not asked yet"))
    return answers


def _segments(sources: Sources, item_ids: list[str]) -> dict[str, list[Segment]]:
    from dmesr_model.explain import segment_attention

    wanted = pl.Series(item_ids, dtype=pl.String)
    rows = sources.segments.filter(pl.col(ITEM_ID).is_in(wanted.implode())).sort(ITEM_ID, "position").collect()
    weights_NVL: np.ndarray | None = None
    views: tuple[str, ...] = ()
    if sources.model is not None and sources.model.items.fusion is not None and item_ids:
        weights_NVL = segment_attention(sources.model, sources.features, item_ids)
        views = sources.model.config.views or ()
    segments: dict[str, list[Segment]] = {}
    for row in rows.iter_rows(named=True):
        shares: list[tuple[str, float]] = []
        if weights_NVL is not None and row["position"] < weights_NVL.shape[2]:
            weights_V = weights_NVL[item_ids.index(row[ITEM_ID]), :, row["position"]]
            shares = [(view, float(weight)) for view, weight in zip(views, weights_V, strict=True)]
        segments.setdefault(row[ITEM_ID], []).append(Segment(shortened(row["text"]), row["kind"], shares))
    return segments


def _attributes(text: str | None) -> list[tuple[str, str]]:
    pairs = json.loads(text or "{}").items()
    return [(name, ", ".join(value) if isinstance(value, list) else str(value)) for name, value in pairs]
