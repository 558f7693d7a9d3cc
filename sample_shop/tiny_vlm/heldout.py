"""Items to test on: made from seeds that neither training nor the shop uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from sample_shop.attributes import SHOP_BRANDS, Field, Product, draw_facts, draw_invented_brand, draw_look, pick
from sample_shop.catalog import shop_jpeg
from sample_shop.texts import ShopText, TextStyle, write_texts
from sample_shop.tiny_vlm.answers import claims, contains_words, field_words, right_answer
from sample_shop.tiny_vlm.examples import known_fields
from sample_shop.tiny_vlm.prompts import Prompt

HELD_OUT_SEED = 9_000_000


@dataclass(frozen=True)
class HeldOutItem:
    """A product with its picture file and its texts."""

    product: Product
    jpeg: bytes
    text: ShopText


@dataclass(frozen=True)
class Question:
    """A prompt about an item, and what a right answer must say."""

    item: HeldOutItem
    prompt: Prompt

    @property
    def user_text(self) -> str:
        return self.prompt.render(self.item.text.title, self.item.text.description)

    @property
    def jpeg(self) -> bytes | None:
        return None if self.prompt.view == "text" else self.item.jpeg

    @property
    def known(self) -> frozenset[Field]:
        return known_fields(self.prompt.view, self.item.text)

    @property
    def right(self) -> str:
        """The whole right answer."""
        return right_answer(self.item.product, self.prompt.asked, self.known, self.prompt.view, self.prompt.brief)


def held_out_items(count: int, style: TextStyle | None = None) -> list[HeldOutItem]:
    """Held-out items; every second one has a brand name that is not the shop's."""
    return [_held_out_item(number, style) for number in range(count)]


def field_is_right(question: Question, answer: str, field: Field) -> bool:
    """Whether a sentence gives an asked field its right value, or is silent where the value is unknown."""
    told = [asked for asked in question.prompt.asked if asked in question.known]
    if field not in told:
        return not claims(answer, field)
    return contains_words(answer, field_words(question.item.product, told, field))


def field_scores(questions: Sequence[Question], answers: Sequence[str]) -> dict[str, float]:
    """Share of right answers for each field of questions that ask for the same fields, and for whole answers."""
    right = partial(_share_right, questions, answers)
    scores = {field: right(field) for field in questions[0].prompt.asked}
    return scores | {"whole answer": exact_share(questions, answers)}


def exact_share(questions: Sequence[Question], answers: Sequence[str]) -> float:
    """Share of answers that are right to the letter."""
    return float(np.mean([question.right == answer for question, answer in zip(questions, answers, strict=True)]))


def has_shop_brand(question: Question) -> bool:
    """Whether the item's brand is one of the shop's."""
    return question.item.product.facts.brand in SHOP_BRANDS


def _share_right(questions: Sequence[Question], answers: Sequence[str], field: Field) -> float:
    pairs = zip(questions, answers, strict=True)
    return float(np.mean([field_is_right(question, answer, field) for question, answer in pairs]))


def _held_out_item(number: int, style: TextStyle | None) -> HeldOutItem:
    rng = np.random.default_rng([HELD_OUT_SEED, number])
    look = draw_look(rng)
    brand = pick(rng, SHOP_BRANDS) if number % 2 == 0 else draw_invented_brand(rng)
    product = Product(look, draw_facts(rng, look.kind, brand))
    return HeldOutItem(product, shop_jpeg(look, rng), write_texts(product, rng, style))
