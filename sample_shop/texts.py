"""Titles and descriptions: what a shop's staff would write about a product."""

from dataclasses import dataclass

import numpy as np

from sample_shop import wording
from sample_shop.attributes import Field, Product, pick

_VOWELS = "aeiou"


@dataclass(frozen=True)
class ShopText:
    """A product's words, and which facts the title and the description state."""

    title: str
    description: str
    title_states: frozenset[Field]
    description_states: frozenset[Field]


@dataclass(frozen=True)
class TextStyle:
    """How texts are written.

    forget_rate: how often each of care, size, occasion is left out of a description.
    unseen_wording: use only the sentences that no training text has.
    filler: fewest and most sentences of filler.
    """

    forget_rate: float = 0.04
    unseen_wording: bool = False
    filler: tuple[int, int] = (1, 4)


def with_article(words: str) -> str:
    """The words with the indefinite article that their sound asks for; every word here is said as it is spelt."""
    return f"{'an' if words[0].lower() in _VOWELS else 'a'} {words}"


def write_texts(product: Product, rng: np.random.Generator, style: TextStyle | None = None) -> ShopText:
    """A title and a description of several sentences in random order and wording."""
    style = style or TextStyle()
    title_template = pick(rng, wording.UNSEEN_TITLES if style.unseen_wording else wording.TITLES)
    blanks = _blanks(product, pick(rng, wording.LINES))
    stated: list[Field] = ["kind", "material", "brand"]
    stated += [field for field in _forgettable() if rng.random() >= style.forget_rate]
    sentences = [_sentence(field, product, rng, style.unseen_wording) for field in stated]
    texts = [text.format(**blanks) for text in _mixed(sentences, rng, style)]
    return ShopText(title_template.format(**blanks), " ".join(texts), _named_in(title_template), frozenset(stated))


def _named_in(template: str) -> frozenset[Field]:
    """Which fields a title template fills in."""
    fields: tuple[Field, ...] = ("kind", "material", "brand", "size")
    return frozenset(field for field in fields if f"{{{field}}}" in template.lower())


def _forgettable() -> tuple[Field, ...]:
    return ("occasion", "care", "size")


def _blanks(product: Product, line: str) -> dict[str, str]:
    kind, facts = product.look.kind, product.facts
    return {
        "kind": kind,
        "Kind": kind[0].upper() + kind[1:],
        "a_kind": with_article(kind),
        "A_kind": with_article(kind).capitalize(),
        "material": facts.material,
        "Material": facts.material.capitalize(),
        "brand": facts.brand,
        "size": facts.size,
        "line": line,
    }


def _sentence(field: Field, product: Product, rng: np.random.Generator, unseen: bool) -> str:
    """A template that states one field."""
    facts = product.facts
    match field:
        case "kind":
            return pick(rng, wording.UNSEEN_KIND_SENTENCES if unseen else wording.KIND_SENTENCES)
        case "material":
            return pick(rng, wording.UNSEEN_MATERIAL_SENTENCES if unseen else wording.MATERIAL_SENTENCES)
        case "brand":
            return pick(rng, wording.UNSEEN_BRAND_SENTENCES if unseen else wording.BRAND_SENTENCES)
        case "size":
            return pick(rng, wording.UNSEEN_SIZE_SENTENCES if unseen else wording.SIZE_SENTENCES)
        case "occasion":
            seen, held_out = wording.OCCASION_SENTENCES, wording.UNSEEN_OCCASION_SENTENCES
            return held_out[facts.occasion] if unseen else pick(rng, seen[facts.occasion])
        case "care":
            seen, held_out = wording.CARE_SENTENCES, wording.UNSEEN_CARE_SENTENCES
            return held_out[facts.care] if unseen else pick(rng, seen[facts.care])
        case _:
            raise ValueError(f"a description does not state {field!r}")


def _mixed(sentences: list[str], rng: np.random.Generator, style: TextStyle) -> list[str]:
    """The sentences and some filler, in random order."""
    fillers = int(rng.integers(style.filler[0], style.filler[1] + 1))
    chosen = rng.choice(len(wording.FILLER), size=fillers, replace=False)
    mixed = [*sentences, *(wording.FILLER[int(number)] for number in chosen)]
    return [mixed[int(i)] for i in rng.permutation(len(mixed))]
