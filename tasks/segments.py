"""An item's own text, cut into segments: its title, its attributes, its sentences; each becomes one vector.

Sentences come from `sentencex` (docs/decisions/sentence-splitter.md): some 300 languages, without a model.
"""

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from storage.digests import digest_of

logger = logging.getLogger(__name__)

SegmentKind = Literal["title", "attribute", "sentence"]

_RULES_VERSION = 2  # raise it where the same text and settings come to be cut differently
_LONGEST_WORD = 20  # characters; one that is cut loses less than a sentence that is left out
_ODD_SPACE = re.compile(r"[^\S\n]")  # after a capital letter some of it, no-break spaces too, makes sentencex panic
_PANIC = "PanicException"  # of the Rust within: each extension has a class of its own, under BaseException


class SegmentConfig(BaseModel):
    """How an item's own text is cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_segments: int = Field(8, ge=1, description="L, the most segments of an item; later sentences are left out")
    max_chars: int = Field(400, ge=16, description="longest segment in characters; about 100 tokens of English")
    attributes: Literal["all"] | tuple[str, ...] = Field(
        "all", description="which attributes become segments, in this order; `all`: in the catalog's column order"
    )
    max_attributes: int = Field(4, ge=0, description="most attribute segments, so that sentences find room")
    language: str = Field("en", description="ISO 639 code for the sentence rules; other scripts are still recognised")

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, names: Literal["all"] | tuple[str, ...]) -> Literal["all"] | tuple[str, ...]:
        if names != "all" and len(set(names)) < len(names):
            raise ValueError("one stands there twice, and would be two segments; name each once")
        return names

    @property
    def digest(self) -> str:
        return digest_of({"rules": _RULES_VERSION, **self.model_dump(mode="json")})


@dataclass(frozen=True)
class Segment:
    """One piece of an item's text."""

    kind: SegmentKind
    text: str


def segments_of(
    title: str | None, description: str | None, attributes: str | None, config: SegmentConfig
) -> list[Segment]:
    """Return at most `max_segments` segments: title, then attributes ("Name: value"), then sentences.

    `attributes` is the store's JSON object; a list of values is one segment, joined by commas. No text, no segments.
    """
    pieces = [Segment("title", title)] if title else []
    pieces += [Segment("attribute", text) for text in _attribute_texts(attributes, config)][: config.max_attributes]
    pieces += [Segment("sentence", text) for text in _sentences(description, config)]
    shortened = (Segment(piece.kind, shorten(piece.text, config.max_chars)) for piece in pieces)
    return [piece for piece in shortened if piece.text][: config.max_segments]


def shorten(text: str, max_chars: int) -> str:
    """Return `text` with single spaces and at most `max_chars` characters, ended as `whole_words` has it."""
    joined = " ".join(text.split())
    return joined if len(joined) <= max_chars else joined[: whole_words(joined, max_chars)].rstrip()


def whole_words(text: str, cut: int) -> int:
    """Return where to cut a text that is longer than `cut`: at the last space, unless it lies further back than a word.

    Chinese, Japanese and Thai put none between words, and lists of links or keywords have few.
    """
    space = text.rfind(" ", 0, cut + 1)
    return space if space >= 0 and cut - space <= _LONGEST_WORD else cut


def attribute_values(attributes: str | None) -> dict[str, str]:
    """Return the store's attributes as one text each, lists joined by commas; empty values are left out."""
    values = json.loads(attributes) if attributes else {}
    texts = {name: ", ".join(v) if isinstance(v, list) else str(v) for name, v in values.items() if v is not None}
    return {name: text for name, text in texts.items() if text.strip()}


def _attribute_texts(attributes: str | None, config: SegmentConfig) -> Iterator[str]:
    values = attribute_values(attributes)
    names = values if config.attributes == "all" else [name for name in config.attributes if name in values]
    for name in names:
        yield f"{name}: {values[name]}"


def _sentences(description: str | None, config: SegmentConfig) -> list[str]:
    if not description:
        return []
    import sentencex

    plain = _ODD_SPACE.sub(" ", description)
    try:
        return sentencex.segment(config.language, plain)
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        logger.warning("sentencex fails on %r…, which is cut at its line breaks alone: %s", plain[:80], error)
        return plain.split("\n")
