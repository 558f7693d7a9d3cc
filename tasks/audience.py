"""Whom to recommend to: every user of the store, or those of a file, with the histories that it gives them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmesr_model.sequences import Sequences
from tasks.features import sequences_digest
from tasks.ingest.cleaning import BadValueError, id_text
from tasks.stage import StageError

_NAMED = 5  # unknown ids named in a note; the rest are counted
_LINE = 'each line is a user_id, or {"user_id": "u1", "history": ["item", …]} with the oldest item first'


@dataclass(frozen=True)
class Audience:
    """Users and their histories.

    Args:
        key: digest of a list of users, None for everyone.
        notes: what of the list isn't known to the store, for people.
    """

    histories: Sequences
    key: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Request:
    line: int
    user_id: str
    history: tuple[str, ...] | None  # None: the one in the store


def listed_users(path: Path, stored: Sequences, item_ids: Sequence[str]) -> Audience:
    """Return the users of a file: by id, with their stored history, or with one that it gives, which counts instead.

    Items that the store doesn't know are left out of a history, and said. A user without any history stays, with an
    empty one. Raises StageError naming the line that can't be read.
    """
    index_of = {item_id: place + 1 for place, item_id in enumerate(item_ids)}
    place_of = {user_id: place for place, user_id in enumerate(stored.user_ids)}
    histories: dict[str, list[int]] = {}
    unknown_items: list[str] = []
    strangers: list[str] = []
    for request in _requests(path):
        if request.user_id in histories:
            raise StageError(f"{path}: line {request.line}: user {request.user_id} stands twice; give one line a user")
        if request.history is not None:
            histories[request.user_id] = [index_of[item] for item in request.history if item in index_of]
            unknown_items += [item for item in request.history if item not in index_of]
        elif (place := place_of.get(request.user_id)) is not None:
            histories[request.user_id] = stored.history(place).tolist()
        else:
            histories[request.user_id] = []
            strangers.append(request.user_id)
    sequences = Sequences.from_histories(list(histories.values()), list(histories))
    notes = (*_note(unknown_items, "items of histories are unknown and left out"), *_note(strangers, _STRANGERS))
    return Audience(sequences, sequences_digest(sequences), notes)


_STRANGERS = "users are unknown and have no history: they get what is popular"


def _note(ids: list[str], what: str) -> Iterator[str]:
    if ids:
        distinct = list(dict.fromkeys(ids))
        more = ", …" if len(distinct) > _NAMED else ""
        yield f"{len(distinct):,} {what} ({', '.join(distinct[:_NAMED])}{more})"


def _requests(path: Path) -> Iterator[_Request]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"{path}: can't be read: {error}; give a text file: {_LINE}") from error
    for number, line in enumerate(lines, start=1):
        if text := line.strip():
            yield _request(path, number, text)


def _request(path: Path, number: int, text: str) -> _Request:
    if not text.startswith("{"):
        return _Request(number, _id(path, number, "", text), None)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of more digits than Python takes
        raise StageError(f"{path}: line {number}: no JSON: {error}; {_LINE}") from error
    if unknown := sorted(set(values) - {"user_id", "history"}):
        raise StageError(f"{path}: line {number}: no such field: {', '.join(unknown)}; {_LINE}")
    user_id, history = _id(path, number, "field user_id: ", values.get("user_id")), values.get("history")
    if history is None:
        return _Request(number, user_id, None)
    if not isinstance(history, list):
        raise StageError(f"{path}: line {number}: field history: {history!r} is no list of item ids; {_LINE}")
    return _Request(number, user_id, tuple(_id(path, number, "field history: ", item) for item in history))


def _id(path: Path, number: int, where: str, value: object) -> str:
    """An id as a catalog's are read: 7, "7" and "7.0" are one."""
    try:
        return id_text(value)
    except BadValueError as error:
        raise StageError(f"{path}: line {number}: {where}{error.detail}; {_LINE}") from error
