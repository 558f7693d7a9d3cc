"""Digests name content: equal digests mean equal content, on every machine and in every version of Python."""

import hashlib
import json
from collections.abc import Iterable

_DIGEST_BYTES = 16


def digest_of_bytes(content: bytes) -> str:
    """Return the 128-bit BLAKE2b digest of `content` in hexadecimal (32 characters)."""
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def digest_of_text(text: str) -> str:
    """Return the digest of `text` as UTF-8; lone surrogates, which UTF-8 can't hold, are kept as escapes."""
    return digest_of_bytes(text.encode("utf-8", "backslashreplace"))


def digest_of(value: object) -> str:
    """Return the digest of a JSON-like value (dicts by sorted key, so that a key's place means nothing).

    Raises TypeError for values that JSON can't hold, ValueError for NaN and infinities.
    """
    return digest_of_text(json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":")))


def digests_of_rows(prefix: str, rows: Iterable[tuple[str | None, ...]]) -> list[str]:
    """Return one digest a row of texts, each also deciding `prefix`; null differs from the empty text.

    For keys of millions of rows: no JSON, one hash a row. Texts are told apart by their lengths.
    """
    base = hashlib.blake2b(prefix.encode(), digest_size=_DIGEST_BYTES)
    return [_row_digest(base, row) for row in rows]


def _row_digest(base: "hashlib.blake2b", row: tuple[str | None, ...]) -> str:
    state = base.copy()
    for text in row:
        encoded = b"" if text is None else text.encode("utf-8", "backslashreplace")
        state.update(b"-" if text is None else b"%d:" % len(encoded))
        state.update(encoded)
    return state.hexdigest()


def event_digest(user_id: str, item_id: str, timestamp: int) -> int:
    """Return a signed 64-bit digest of an event: equal for the same event delivered twice."""
    return number_of_text(f"{len(user_id)}:{user_id}{item_id}@{timestamp}")


def number_of_text(text: str) -> int:
    """Return a digest of `text` as a signed 64-bit number: to hold by the million, and to join on."""
    content = text.encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big", signed=True)
