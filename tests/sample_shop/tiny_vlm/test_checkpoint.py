"""The committed checkpoint: within its limits, loads as users would load it, and answers rightly."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor

from sample_shop.attributes import OCCASIONS
from sample_shop.catalog import CatalogConfig, list_items
from sample_shop.texts import TextStyle, write_texts
from sample_shop.tiny_vlm.answering import ask_transformers, chat_prompt, load_processor
from sample_shop.tiny_vlm.architecture import IMAGE_TOKENS
from sample_shop.tiny_vlm.checkpoint import CHECKPOINT
from sample_shop.tiny_vlm.examples import expanded_prompt
from sample_shop.tiny_vlm.heldout import HeldOutItem, Question, field_is_right, held_out_items
from sample_shop.tiny_vlm.prompts import compose, default_prompt

LARGEST_BYTES = 16_000_000
MOST_PARAMETERS = 8_000_000
LONGEST_DESCRIPTION_TOKENS = 200


@pytest.fixture(scope="module")
def items() -> list[HeldOutItem]:
    return held_out_items(8)


def test_checkpoint_is_small_and_has_no_pickles() -> None:
    files = [path for path in CHECKPOINT.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja"}
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118, a handle is not iterable
    assert sum(tensor.numel() for tensor in tensors) <= MOST_PARAMETERS
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}


def test_both_engines_find_the_tied_embeddings() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["tie_word_embeddings"] is True  # transformers reads this one
    assert config["text_config"]["tie_word_embeddings"] is True  # vLLM reads this one


def test_training_prompt_is_what_the_processor_makes() -> None:
    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    picture = Image.new("RGB", (200, 160), "grey")
    for user_text, pictured in (("Describe it.\nMention: kind.", True), ("Sum up.\n<title>A</title>", False)):
        text = chat_prompt(processor, user_text, pictured)
        made = processor(text=[text], images=[[picture]] if pictured else None)["input_ids"][0]
        trained = processor.tokenizer(expanded_prompt(user_text, pictured), add_special_tokens=False)["input_ids"]
        assert list(made) == trained
        assert made.count(processor.image_token_id) == (IMAGE_TOKENS if pictured else 0)


def test_processor_makes_one_square_of_any_picture() -> None:
    processor = load_processor(CHECKPOINT)
    for size in ((90, 300), (256, 256), (1000, 400)):
        pixels = processor.image_processor(Image.new("RGB", size, "red"), return_tensors="pt")["pixel_values"]
        assert tuple(pixels.shape) == (1, 1, 3, 128, 128)


def test_descriptions_fit_the_context() -> None:
    tokenizer = load_processor(CHECKPOINT).tokenizer
    descriptions = [item.description or "" for item in list_items(0, 600, CatalogConfig(), seed=2)]
    longest = max(len(tokens) for tokens in tokenizer(descriptions)["input_ids"])
    assert longest <= LONGEST_DESCRIPTION_TOKENS


@pytest.mark.parametrize("view", ["image", "text", "joint"])
def test_answers_about_held_out_items_are_right(view: str, items: list[HeldOutItem]) -> None:
    questions = [Question(item, default_prompt(view)) for item in items]  # type: ignore[arg-type]
    answers = ask_transformers(CHECKPOINT, questions)
    right = sum(question.right == answer for question, answer in zip(questions, answers, strict=True))
    assert right >= 6, [(q.right, a) for q, a in zip(questions, answers, strict=True) if q.right != a]


def test_every_occasion_is_told(items: list[HeldOutItem]) -> None:
    rng = np.random.default_rng(6)
    products = [
        replace(item.product, facts=replace(item.product.facts, occasion=occasion))
        for item, occasion in zip(items, OCCASIONS, strict=True)
    ]
    told = [HeldOutItem(p, b"", write_texts(p, rng, TextStyle(forget_rate=0.0))) for p in products]
    questions = [Question(item, default_prompt("text")) for item in told]
    answers = ask_transformers(CHECKPOINT, questions)
    missed = [a for q, a in zip(questions, answers, strict=True) if not field_is_right(q, a, "occasion")]
    assert not missed


def test_edited_prompts_are_followed(items: list[HeldOutItem]) -> None:
    edits = [
        compose("image", "Describe the product in the picture in one sentence.", ("main colour", "kind")),
        compose("image", "Describe the product in the picture in a few words.", ("kind", "pattern"), brief=True),
    ]
    for prompt in edits:
        questions = [Question(item, prompt) for item in items]
        answers = ask_transformers(CHECKPOINT, questions)
        assert sum(q.right == a for q, a in zip(questions, answers, strict=True)) >= 6


def test_held_out_pictures_are_sound(items: list[HeldOutItem]) -> None:
    for item in items:
        with Image.open(io.BytesIO(item.jpeg)) as picture:
            assert picture.mode == "RGB"


def test_model_card_stands_beside_the_checkpoint() -> None:
    card = (Path(CHECKPOINT).parent / "README.md").read_text()
    assert "nothing on real photographs" in card
