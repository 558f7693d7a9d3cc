"""Titles and descriptions: grammar, what they state, what they must not tell."""

import re

import numpy as np
import pytest

from sample_shop import wording
from sample_shop.attributes import COLOURS, PATTERNS, Facts, Look, Product, draw_facts, draw_look
from sample_shop.texts import TextStyle, with_article, write_texts

UMBRELLA = Product(
    Look("umbrella", "orange", "striped", "black"), Facts("nylon", "Norvel", "travel", "wipe-clean", "compact")
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("orange mug", "an orange mug"),
        ("red mug", "a red mug"),
        ("umbrella", "an umbrella"),
        ("Umbrel cap", "an Umbrel cap"),
        ("extra-large cap", "an extra-large cap"),
        ("40 cm cushion", "a 40 cm cushion"),
    ],
)
def test_article_follows_the_sound(words: str, expected: str) -> None:
    assert with_article(words) == expected


def test_every_template_fills_in() -> None:
    for seed in range(300):
        text = write_texts(UMBRELLA, np.random.default_rng(seed))
        assert "{" not in text.title + text.description
        assert " a umbrella" not in text.description.lower()


def test_stated_fields_are_in_the_text() -> None:
    for seed in range(100):
        text = write_texts(UMBRELLA, np.random.default_rng(seed), TextStyle(forget_rate=0.5))
        for field in text.description_states & {"kind", "material", "brand", "size"}:
            assert UMBRELLA.value(field).lower() in text.description.lower()
        for field in text.title_states:
            assert UMBRELLA.value(field).lower() in text.title.lower()


def test_forgotten_fields_are_left_out() -> None:
    text = write_texts(UMBRELLA, np.random.default_rng(0), TextStyle(forget_rate=1.0))
    assert text.description_states == {"kind", "material", "brand"}
    assert "compact" not in text.description


def test_texts_never_tell_what_only_the_picture_shows() -> None:
    # "plain" describes the parcel in one filler sentence, so it is left out here.
    telltale = re.compile(rf"\b({'|'.join([*COLOURS, *PATTERNS[1:]])})\b", re.IGNORECASE)
    rng = np.random.default_rng(4)
    for _ in range(300):
        look = draw_look(rng)
        text = write_texts(Product(look, draw_facts(rng, look.kind, "Norvel")), rng)
        assert telltale.search(f"{text.title} {text.description}") is None


def test_unseen_templates_are_not_among_the_others() -> None:
    assert not set(wording.UNSEEN_TITLES) & set(wording.TITLES)
    for value, sentence in wording.UNSEEN_CARE_SENTENCES.items():
        assert sentence not in wording.CARE_SENTENCES[value]
    for value, sentence in wording.UNSEEN_OCCASION_SENTENCES.items():
        assert sentence not in wording.OCCASION_SENTENCES[value]
