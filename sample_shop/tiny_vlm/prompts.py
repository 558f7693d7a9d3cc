"""Prompts to train and test on: the pipeline's own, and the edits a user might make to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sample_shop.attributes import FIELDS, PICTURE_FIELDS, TEXT_FIELDS, Field, pick
from sample_shop.tiny_vlm.answers import View

# The wording of tasks/prompts/*.yaml, which the model must know best; a test compares them.
DEFAULT_INSTRUCTIONS: dict[View, str] = {
    "image": "Describe the product in the picture in one sentence.",
    "text": "Summarise the product description in one sentence.",
    "joint": "Describe the product from its picture and its description in one sentence.",
}
DEFAULT_FIELDS: dict[View, tuple[Field, ...]] = {
    "image": PICTURE_FIELDS,
    "text": TEXT_FIELDS,
    "joint": ("kind", "main colour", "pattern", "material", "brand", "occasion"),
}

_VERBS: dict[View, tuple[str, ...]] = {
    "image": ("Describe", "Caption", "Tell me about", "Write about", "Put into words", "Characterise", "Explain",
              "Give a description of", "Sum up"),
    "text": ("Summarise", "Summarize", "Sum up", "Condense", "Shorten", "Give the gist of", "Boil down", "Describe",
             "Write a summary of"),
    "joint": ("Describe", "Write about", "Tell me about", "Characterise", "Present", "Sum up", "Portray",
              "Give a description of"),
}  # fmt: skip
_OBJECTS: dict[View, tuple[str, ...]] = {
    "image": ("the product in the picture", "the item in the photo", "this picture", "the product", "this image",
              "what the picture shows", "the article shown", "the thing you see"),
    "text": ("the product description", "this description", "the text", "the item text", "what the description says",
             "the text of the listing", "the words below", "the product text"),
    "joint": ("the product from its picture and its description", "the item, using picture and text",
              "the product with the help of image and description", "what picture and description tell",
              "the product by its photo and its text", "the item from both the picture and the words"),
}  # fmt: skip
_SENTENCE_TAILS = (" in one sentence", " in a single sentence", "", " in a full sentence", " for our catalog",
                   " in one plain sentence", " for a customer", " in a sentence")  # fmt: skip
_BRIEF_TAILS = (" in a few words", " briefly", " in short", " very briefly", " in keywords", " in three to six words",
                " as briefly as you can", " in as few words as possible", " tersely")  # fmt: skip
_BRIEF_SENTENCES = ("Be brief.", "Keep it short.", "Use few words.", "Short answer.", "Be concise.", "Be very brief.",
                    "Only keywords.", "No full sentence.", "Make it short.", "Answer briefly.")  # fmt: skip
_MENTION_LEADS = ("Mention: ", "Mention: ", "Mention: ", "Include: ", "State: ", "Name: ", "Mention ", "Say: ",
                  "Fields: ", "Give: ", "Tell: ")  # fmt: skip
_PREFACES = ("", "", "", "", "", "", "Please help. ", "You write for a shop. ", "You are a careful assistant. ")
_FIELD_NAMES: dict[Field, tuple[str, ...]] = {
    "kind": ("kind", "kind", "type", "product type"),
    "main colour": ("main colour", "main colour", "colour", "color", "main color"),
    "pattern": ("pattern", "pattern", "print"),
    "accent colour": ("accent colour", "accent colour", "accent", "accent color", "second colour"),
    "material": ("material", "material", "fabric", "what it is made of"),
    "brand": ("brand", "brand", "maker", "brand name"),
    "occasion": ("occasion", "occasion", "use", "what it is for"),
    "care": ("care", "care", "cleaning", "how to clean it"),
    "size": ("size", "size", "dimensions"),
}
DEFAULT_SHARE = 0.2
EDITED_DEFAULT_SHARE = 0.3
BRIEF_SHARE = 0.3


@dataclass(frozen=True)
class Prompt:
    """What is asked, in words and in meaning. `closing` stands after the item's text."""

    view: View
    instruction: str
    asked: tuple[Field, ...]
    brief: bool = False
    closing: str = ""

    def render(self, title: str = "", description: str = "") -> str:
        """The user text as the pipeline's prompt files render it."""
        text = self.instruction
        if self.view != "image":
            text += f"\n<title>{title}</title>\n<description>{description}</description>"
        return text + (f"\n{self.closing}" if self.closing else "")


def default_prompt(view: View) -> Prompt:
    """The pipeline's own prompt for a view."""
    return compose(view, DEFAULT_INSTRUCTIONS[view], DEFAULT_FIELDS[view])


def compose(view: View, instruction: str, asked: Sequence[Field], brief: bool = False) -> Prompt:
    """An instruction and its line of fields, in the words of the prompt files."""
    return Prompt(view, f"{instruction}\nMention: {', '.join(asked)}.", tuple(asked), brief)


def draw_prompt(view: View, rng: np.random.Generator) -> Prompt:
    """The default prompt, an edit of it, or another wording altogether."""
    share = rng.random()
    if share < DEFAULT_SHARE:
        return default_prompt(view)
    asked = draw_fields(view, rng)
    if share < DEFAULT_SHARE + EDITED_DEFAULT_SHARE:
        return _edited_default(view, asked, rng)
    return _reworded(view, asked, rng)


def draw_fields(view: View, rng: np.random.Generator) -> tuple[Field, ...]:
    """Some fields in some order, mostly such as the view can know."""
    pool = {"image": PICTURE_FIELDS, "text": TEXT_FIELDS, "joint": FIELDS}[view]
    if rng.random() < 0.1:
        pool = FIELDS
    count = int(rng.integers(1, min(len(pool), 7) + 1))
    chosen = [pool[int(i)] for i in rng.permutation(len(pool))[:count]]
    if "kind" in pool and rng.random() < 0.4:
        chosen = ["kind", *(field for field in chosen if field != "kind")]
    return tuple(chosen)


def _edited_default(view: View, asked: tuple[Field, ...], rng: np.random.Generator) -> Prompt:
    """The default wording with other fields, another order, or a word about length."""
    if rng.random() >= BRIEF_SHARE:
        return compose(view, DEFAULT_INSTRUCTIONS[view], asked)
    if rng.random() < 0.5:
        shortened = DEFAULT_INSTRUCTIONS[view].replace(" in one sentence", pick(rng, _BRIEF_TAILS))
        return compose(view, shortened, asked, brief=True)
    return _with_brief_sentence(compose(view, DEFAULT_INSTRUCTIONS[view], asked), rng)


def _reworded(view: View, asked: tuple[Field, ...], rng: np.random.Generator) -> Prompt:
    brief = rng.random() < BRIEF_SHARE
    by_tail = brief and rng.random() < 0.5
    tail = pick(rng, _BRIEF_TAILS if by_tail else _SENTENCE_TAILS)
    opening = pick(rng, _PREFACES) + f"{pick(rng, _VERBS[view])} {pick(rng, _OBJECTS[view])}{tail}."
    if rng.random() < 0.05:
        prompt = Prompt(view, opening, DEFAULT_FIELDS[view], by_tail)
    else:
        gap = "\n" if rng.random() < 0.8 else " "
        prompt = Prompt(view, f"{opening}{gap}{_mention_line(asked, rng)}", asked, by_tail)
    return _with_brief_sentence(prompt, rng) if brief and not by_tail else prompt


def _mention_line(asked: tuple[Field, ...], rng: np.random.Generator) -> str:
    names = [pick(rng, _FIELD_NAMES[field]) for field in asked]
    if len(names) > 1 and rng.random() < 0.3:
        listed = f"{', '.join(names[:-1])} and {names[-1]}"
    else:
        listed = ", ".join(names)
    return f"{pick(rng, _MENTION_LEADS)}{listed}{'.' if rng.random() < 0.85 else ''}"


def _with_brief_sentence(prompt: Prompt, rng: np.random.Generator) -> Prompt:
    """The prompt with a call for brevity before it, after it, or after the item's text."""
    sentence = pick(rng, _BRIEF_SENTENCES)
    place = rng.random()
    if place < 0.25:
        return Prompt(prompt.view, f"{sentence} {prompt.instruction}", prompt.asked, brief=True)
    if place < 0.75:
        gap = "\n" if rng.random() < 0.5 else " "
        return Prompt(prompt.view, f"{prompt.instruction}{gap}{sentence}", prompt.asked, brief=True)
    first, _, rest = prompt.instruction.partition("\n")
    if place < 0.9 and rest:
        return Prompt(prompt.view, f"{first} {sentence}\n{rest}", prompt.asked, brief=True)
    return Prompt(prompt.view, prompt.instruction, prompt.asked, brief=True, closing=sentence)
