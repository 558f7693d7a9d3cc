"""Whom to recommend to: every user of the store, or those of a file, with the histories that it gives them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dmesr_model.sequences import Sequences
from tasks.features import sequences_digest
from tasks.id_files import counted, numbered_lines
from tasks.ingest.cleaning import BadValueError, id_text
from tasks.stage import StageError

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
    for number, line in numbered_lines(path, _LINE):
        request = _request(path, number, line)
        if request.user_id in histories:
            raise StageError(f"{path}: line {number}: user {request.user_id} stands twice; give one line a user")
        if request.history is not None:
            histories[request.user_id] = [index_of[item] for item in request.history if item in index_of]
            unknown_items += [item for item in request.history if item not in index_of]
        elif (place := place_of.get(request.user_id)) is not None:
            histories[request.user_id] = stored.history(place).tolist()
        else:
            histories[request.user_id] = []
            strangers.append(request.user_id)
    sequences = Sequences.from_histories(list(histories.values()), list(histories))
    notes = {
        "items of histories are unknown and left out": list(dict.fromkeys(unknown_items)),
        "users are unknown and have no history: they get what is popular": strangers,
    }
    said = tuple(counted(ids, what) for what, ids in notes.items() if ids)
    return Audience(sequences, sequences_digest(sequences), said)


def _request(path: Path, number: int, text: str) -> _Request:
    if not text.startswith("{"):
        return _Request(_id(path, number, "", text), None)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers of more digits than Python takes
        raise StageError(f"{path}: line {number}: no JSON: {error}; {_LINE}") from error
    if unknown := sorted(set(values) - {"user_id", "history"}):
        raise StageError(f"{path}: line {number}: no such field: {', '.join(unknown)}; {_LINE}")
    user_id, history = _id(path, number, "field user_id: ", values.get("user_id")), values.get("history")
    if history is None:
        return _Request(user_id, None)
    if not isinstance(history, list):
        raise StageError(f"{path}: line {number}: field history: {history!r} is no list of item ids; {_LINE}")
    return _Request(user_id, tuple(_id(path, number, "field history: ", item) for item in history))


def _id(path: Path, number: int, where: str, value: object) -> str:
    """An id as a catalog's are read: 7, "7" and "7.0" are one."""
    try:
        return id_text(value)
    except BadValueError as error:
        raise StageError(f"{path}: line {number}: {where}{error.detail}; {_LINE}") from error
