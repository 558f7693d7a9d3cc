"""Examples to train on: a prompt as the chat template expands it, its right answer, and the picture it is about."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sample_shop.attributes import (
    FIELDS,
    PICTURE_FIELDS,
    SHOP_BRANDS,
    Field,
    Look,
    Product,
    draw_facts,
    draw_invented_brand,
    draw_look,
    pick,
)
from sample_shop.texts import ShopText, TextStyle, write_texts
from sample_shop.tiny_vlm.answers import View, right_answer
from sample_shop.tiny_vlm.architecture import IMAGE_TOKENS
from sample_shop.tiny_vlm.prompts import draw_prompt

PICTURE_MARKS = "<fake_token_around_image><global-img>" + "<image>" * IMAGE_TOKENS + "<fake_token_around_image>"
INVENTED_BRAND_SHARE = 0.7
TITLE_ONLY_SHARE, DESCRIPTION_ONLY_SHARE = 0.06, 0.04
TRAINING_STYLE = TextStyle(forget_rate=0.07, filler=(0, 4))
TERSE_STYLE = TextStyle(forget_rate=0.3, filler=(0, 0))
TERSE_SHARE = 0.3


@dataclass(frozen=True)
class Example:
    """picture: the row of the training picture, or None where the prompt has none."""

    prompt: str
    answer: str
    picture: int | None


def expanded_prompt(user_text: str, with_picture: bool) -> str:
    """What the processor makes of one user turn: text first, then the picture's tokens."""
    marks = PICTURE_MARKS if with_picture else ""
    return f"<|im_start|>User: {user_text}{marks}<end_of_utterance>\nAssistant: "


def draw_examples(looks: list[Look], counts: dict[View, int], rng: np.random.Generator) -> list[Example]:
    """So many examples of each view, about training pictures drawn at random or about no picture."""
    examples = []
    for view, count in counts.items():
        for _ in range(count):
            row = None if view == "text" else int(rng.integers(len(looks)))
            look = draw_look(rng) if row is None else looks[row]
            examples.append(_draw_example(view, look, row, rng))
    return examples


def draw_brand(rng: np.random.Generator) -> str:
    """A brand of the shop or an invented one."""
    if rng.random() < INVENTED_BRAND_SHARE:
        return draw_invented_brand(rng)
    return pick(rng, SHOP_BRANDS)


def known_fields(view: View, text: ShopText) -> frozenset[Field]:
    """What a view can tell: the picture's fields, the stated ones, or both."""
    stated = text.title_states if text.title else frozenset()
    if text.description:
        stated |= text.description_states
    if view == "image":
        return frozenset(PICTURE_FIELDS)
    return stated if view == "text" else stated | frozenset(PICTURE_FIELDS)


def tokenizer_texts(count: int, seed: int) -> Iterator[str]:
    """Texts for the tokenizer to learn from, in the proportions it will meet."""
    rng = np.random.default_rng(seed)
    views: tuple[View, ...] = ("image", "text", "joint")
    for number in range(count):
        example = _draw_example(views[number % 3], draw_look(rng), 0, rng)
        yield example.prompt.replace(PICTURE_MARKS, "")
        yield example.answer
    yield from FIELDS


def _draw_example(view: View, look: Look, row: int | None, rng: np.random.Generator) -> Example:
    product = Product(look, draw_facts(rng, look.kind, draw_brand(rng)))
    style = TERSE_STYLE if rng.random() < TERSE_SHARE else TRAINING_STYLE
    text = _with_gaps(write_texts(product, rng, style), rng)
    prompt = draw_prompt(view, rng)
    answer = right_answer(product, prompt.asked, known_fields(view, text), view, prompt.brief)
    user_text = prompt.render(text.title, text.description)
    return Example(expanded_prompt(user_text, view != "text"), answer, row)


def _with_gaps(text: ShopText, rng: np.random.Generator) -> ShopText:
    """The text, now and then without its title or its description."""
    share = rng.random()
    if share < TITLE_ONLY_SHARE:
        return ShopText(text.title, "", text.title_states, frozenset())
    if share < TITLE_ONLY_SHARE + DESCRIPTION_ONLY_SHARE:
        return ShopText("", text.description, frozenset(), text.description_states)
    return text
