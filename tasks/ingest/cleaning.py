"""Values as they are delivered, made text: ids, titles, attributes.

Ids are always text, so that an id matches across files: 1, "1", 1.0 and "1.0" are one id. Leading zeros are kept:
"007" is not 7.
"""

import html
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from html.entities import html5

_MAX_ID_CHARS = 512
_EXACT_FLOAT = 2**53
_WHOLE_AS_DECIMAL = re.compile(r"(-?\d+)\.0+")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_ID_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Elements of HTML: within a line, hidden with all they hold, and the others, which begin a new line.
_INLINE, _HIDDEN, _BREAKING = (
    "|".join(names.split())
    for names in (
        """a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark nobr q s samp small span
        strike strong sub sup time tt u var wbr""",
        "iframe noembed noframes noscript script style template",
        """address article aside audio blockquote body br button canvas caption center col colgroup dd details dialog
        dir div dl dt embed fieldset figcaption figure footer form h[1-6] head header hgroup hr html input legend li
        link main map menu meta nav object ol optgroup option p param picture pre section select source summary svg
        table tbody td textarea tfoot th thead title tr track ul video""",
    )
)
_KNOWN = f"(?:{_INLINE}|{_HIDDEN}|{_BREAKING})"

# Each pattern goes over a text once, whatever the text is: it stops at the next `<`, gives nothing back, or takes all.
_END = r"""(?:(?:\s(?:[^<>"']++|"[^"<]*+"|'[^'<]*+'|["'])*+)?/?|\s[^<>]*+)>"""
_SHOWS_HTML = re.compile(rf"<!--|</{_KNOWN}\s*>|<(?:br|hr|img|li|p)\s*/?>|<{_KNOWN}\s+[\w:-]+\s*=", re.IGNORECASE)
_UNSEEN = re.compile(rf"<!--.*?(?:-->|\Z)|<!doctype[^<>]*>|<({_HIDDEN}){_END}.*?(?:</\1\s*>|\Z)", re.I | re.S)
_ELEMENT = re.compile(rf"</?(?:({_INLINE})|{_KNOWN}){_END}", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});")

Clean = Callable[[str], str]


class BadValueError(ValueError):
    """A value that can't be used: a reason in one word, and what is wrong and what to do about it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def id_text(value: object) -> str:
    """Return an id as text. Raises BadValueError of reason `empty_id` or `bad_id`."""
    if type(value) is str:
        text = value.strip()
        if text.endswith("0") and (match := _WHOLE_AS_DECIMAL.fullmatch(text)):
            text = match[1]
    elif type(value) is int:
        return str(value)
    elif value is None:
        text = ""
    else:
        text = _number_id(value)
    if not text:
        raise BadValueError("empty_id", "the id is empty; give the row an id or leave it out")
    if len(text) > _MAX_ID_CHARS:
        raise BadValueError("bad_id", f"the id has {len(text):,} characters; at most {_MAX_ID_CHARS} are taken")
    if _ID_CONTROL.search(text):
        raise BadValueError("bad_id", f"the id {text[:40]!r} holds a control character; take it out")
    return text


def _number_id(value: object) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if value.is_integer() and abs(value) < _EXACT_FLOAT:
            return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    raise BadValueError("bad_id", f"the id {str(value)[:40]!r} is no text and no exact whole number; store ids as text")


def plain_text(value: object, joiner: str, clean: Clean) -> str | None:
    """Return a title or description as clean text, a list's texts joined; None if nothing is left."""
    texts = as_texts(value, clean)
    joined = texts if isinstance(texts, str) else joiner.join(texts)
    return joined or None


def as_texts(value: object, clean: Clean) -> str | list[str]:
    """Return any value as a text or a list of texts: no nulls, NaN or empty texts; a dict's pairs as `key: value`."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        pairs = ((clean(str(key)), as_texts(part, clean)) for key, part in value.items())
        return [f"{key}: {part if isinstance(part, str) else ', '.join(part)}" for key, part in pairs if part]
    if isinstance(value, list | tuple):
        parts = (as_texts(part, clean) for part in value)
        return [part if isinstance(part, str) else ", ".join(part) for part in parts if part]
    return _scalar_text(value, clean)


def _scalar_text(value: object, clean: Clean) -> str:
    if value is None or isinstance(value, bytes):  # bytes in a column that is no picture say nothing in words
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT_FLOAT else repr(value)
    if isinstance(value, date | datetime):
        return value.isoformat()
    return clean(str(value))


def words_of_html(text: str) -> str:
    """Return a text that holds HTML, escaped or not, as its words, each block on a line of its own; cleaned.

    Elements, comments and scripts go, the latter with what they hold. Entities become what they stand for, also in a
    text without HTML, which stays otherwise: a lone `<` is no tag, and neither is `<3` or `List<int>`.
    """
    text = clean(text)
    if "<" not in text and "&" not in text:
        return text
    if not _SHOWS_HTML.search(text):
        text = _ENTITY.sub(_character, text)
        if not _SHOWS_HTML.search(text):
            return clean(text)
    words = _ENTITY.sub(_character, _ELEMENT.sub(_break, _UNSEEN.sub(" ", text)))
    lines = (" ".join(line.split()) for line in clean(words).split("\n"))
    return "\n".join(line for line in lines if line)


def _break(element: re.Match[str]) -> str:
    return "" if element[1] else "\n"


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0]) if entity[0][1] == "#" else html5.get(entity[0][1:], entity[0])


def clean(text: str) -> str:
    """Return text stripped, with plain line breaks; control characters (line breaks and tabs aside) become spaces."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    return text.strip()


def attributes_json(attributes: Mapping[str, object], clean: Clean) -> tuple[str | None, str | None]:
    """Return attributes as a JSON object in their order, and in sorted order for the digest: order is no change."""
    kept = {clean(name): text for name, value in attributes.items() if (text := as_texts(value, clean))}
    if not kept:
        return None, None
    in_order = json.dumps(kept, ensure_ascii=False)
    names = list(kept)
    return in_order, in_order if names == sorted(names) else json.dumps(kept, ensure_ascii=False, sort_keys=True)
