"""The right answer to a prompt: a natural sentence that names the asked fields in the asked order."""

import re
from collections.abc import Collection, Sequence
from typing import Literal

from sample_shop.attributes import Field, Product
from sample_shop.texts import with_article

View = Literal["image", "text", "joint"]

_PRINTS = {
    "plain": "with a plain finish",
    "striped": "with a striped pattern",
    "dotted": "with a dotted pattern",
    "checked": "with a checked pattern",
    "floral": "with a floral pattern",
    "zigzag": "with a zigzag pattern",
}
# All begin alike: asked to begin one of eight otherwise, the model never learns to.
_USES = {
    "everyday": "for everyday use",
    "office": "for the office",
    "travel": "for travel",
    "party": "for parties",
    "gift": "for gifts",
    "outdoor": "for the outdoors",
    "sports": "for sports",
    "winter": "for winter",
}
_CARES = {
    "machine-wash": "washed by machine",
    "hand-wash": "washed by hand",
    "dry-clean": "cleaned dry",
    "cool-iron": "ironed cool",
    "dishwasher-safe": "safe in the dishwasher",
    "wipe-clean": "wiped clean",
    "dust-only": "only dusted",
    "polish-only": "cared for with polish",
}
UNKNOWN: dict[View, str] = {
    "image": "The picture does not show that.",
    "text": "The text does not say that.",
    "joint": "Neither the picture nor the text tells that.",
}


def right_answer(
    product: Product, asked: Sequence[Field], known: Collection[Field], view: View, brief: bool = False
) -> str:
    """One sentence with what is asked and known; if `brief`, the bare words, parted by commas.

    Fields asked for before the kind stand before the noun, the others after it.
    """
    told = [field for field in asked if field in known]
    if not told:
        return UNKNOWN[view]
    if brief:
        words = ", ".join(brief_words(product, field) for field in told)
        return f"{words[0].upper()}{words[1:]}."
    return _sentence(product, told)


def field_words(product: Product, asked: Sequence[Field], field: Field, brief: bool = False) -> str:
    """The words by which `right_answer` states one field, given all that it states."""
    if brief:
        return brief_words(product, field)
    before = asked[: asked.index("kind")] if "kind" in asked else ()
    return words_before(product, field) if field in before else words_after(product, field)


def brief_words(product: Product, field: Field) -> str:
    """A field's value as a keyword, begun as in a sentence where the bare word would not say what it is."""
    value = product.value(field)
    match field:
        case "accent colour":
            return f"{value} accents"
        case "size":
            return f"size {value}"
        case "brand" | "occasion":
            return words_after(product, field)
        case _:
            return value


def words_before(product: Product, field: Field) -> str:
    """A field as a modifier before the noun."""
    value = product.value(field)
    return f"{value}-accented" if field == "accent colour" else value


def words_after(product: Product, field: Field) -> str:
    """A field as a phrase after the noun."""
    value = product.value(field)
    match field:
        case "kind":
            return value
        case "main colour":
            return f"in {value}"
        case "pattern":
            return _PRINTS[value]
        case "accent colour":
            return f"with {value} accents"
        case "material":
            return f"made of {value}"
        case "brand":
            return f"by {value}"
        case "occasion":
            return _USES[value]
        case "care":
            return _CARES[value]
        case "size":
            return f"in size {value}"


def _sentence(product: Product, told: Sequence[Field]) -> str:
    if "kind" in told:
        middle = told.index("kind")
        before, noun, after = told[:middle], product.look.kind, told[middle + 1 :]
    else:
        before, noun, after = (), "product", told
    head = " ".join([*(words_before(product, field) for field in before), noun])
    phrases = [words_after(product, field) for field in after]
    sentence = with_article(head) + (" " + ", ".join(phrases) if phrases else "")
    return f"{sentence[0].upper()}{sentence[1:]}."


def claims(answer: str, field: Field) -> bool:
    """Whether a full sentence says anything about how a product is used, cared for or sized."""
    match field:
        case "occasion":
            return any(contains_words(answer, words) for words in _USES.values())
        case "care":
            return any(contains_words(answer, words) for words in _CARES.values())
        case "size":
            return contains_words(answer, "in size")
        case _:
            raise ValueError(f"every text states {field!r}")


def contains_words(answer: str, words: str) -> bool:
    """Whether the words stand in the answer, whole and in one piece."""
    return re.search(rf"(?<![\w-]){re.escape(words)}(?![\w-])", answer) is not None
