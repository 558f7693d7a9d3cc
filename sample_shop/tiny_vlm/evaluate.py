"""Measures the checkpoint on held-out items: `python -m sample_shop.tiny_vlm.evaluate`."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from sample_shop.attributes import FIELDS, Field
from sample_shop.texts import TextStyle
from sample_shop.tiny_vlm.answering import EngineDtype, ask_transformers, ask_vllm
from sample_shop.tiny_vlm.answers import View
from sample_shop.tiny_vlm.checkpoint import CHECKPOINT
from sample_shop.tiny_vlm.disjoint import without_known_titles
from sample_shop.tiny_vlm.heldout import (
    HELD_OUT_SEED,
    HeldOutItem,
    Question,
    exact_share,
    field_is_right,
    field_scores,
    has_shop_brand,
    held_out_items,
)
from sample_shop.tiny_vlm.prompts import Prompt, compose, default_prompt, draw_fields, draw_prompt

VIEWS: tuple[View, ...] = ("image", "text", "joint")
# Instructions in words that no training prompt uses; their line of fields is drawn.
UNSEEN_INSTRUCTIONS: dict[View, tuple[str, ...]] = {
    "image": ("What can be seen here? Reply in one sentence.", "Look closely and name this product in one sentence."),
    "text": ("Tell a shopper the essentials of this listing.", "Extract the facts from the product description."),
    "joint": ("Combine what you see and what you read in one sentence.", "Write the caption of this listing."),
}

logger = logging.getLogger(__name__)


def score_defaults(checkpoint: Path, items: Sequence[HeldOutItem]) -> None:
    """Print how often each field is right for the pipeline's own prompts."""
    for view in VIEWS:
        questions = [Question(item, default_prompt(view)) for item in items]
        answers = _timed_answers(checkpoint, questions)
        typer.echo(f"{view}, default prompt: {_table(field_scores(questions, answers))}")
        if view == "text":
            _score_brands(questions, answers)
            _score_silence(questions, answers)


def score_edits(checkpoint: Path, items: Sequence[HeldOutItem]) -> None:
    """Print how often the whole answer is right for edited and for unseen prompts."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    for view in VIEWS:
        edited = [Question(item, _edited(view, rng)) for item in items]
        brief = [question for question in edited if question.prompt.brief]
        unseen = [Question(item, _unseen(view, rng)) for item in items]
        for name, questions in (("edited prompts", edited), ("brief among them", brief), ("unseen wording", unseen)):
            answers = _timed_answers(checkpoint, questions)
            typer.echo(
                f"{view}, {name}: whole answer {100 * exact_share(questions, answers):.1f} % of {len(questions)}"
            )


def score_unseen_texts(checkpoint: Path, count: int) -> None:
    """Print the summary's scores on sentence templates that no training text has."""
    items = held_out_items(count, TextStyle(unseen_wording=True))
    questions = [Question(item, default_prompt("text")) for item in items]
    scores = field_scores(questions, _timed_answers(checkpoint, questions))
    typer.echo(f"text, unseen sentence templates: {_table(scores)}")


def compare_engines(checkpoint: Path, items: Sequence[HeldOutItem], dtype: EngineDtype) -> None:
    """Print how many greedy answers are the same through vLLM as through transformers, and those that are not."""
    questions = {view: [Question(item, default_prompt(view)) for item in items] for view in VIEWS}
    everything = [question for view in VIEWS for question in questions[view]]
    theirs = iter(ask_vllm(checkpoint, everything, dtype))
    for view in VIEWS:
        ours = ask_transformers(checkpoint, questions[view], getattr(torch, dtype))
        pairs = list(zip(ours, [next(theirs) for _ in ours], strict=True))
        same = sum(a == b for a, b in pairs)
        typer.echo(f"{view}, {dtype}: {same} of {len(pairs)} answers the same through vLLM and transformers")
        for ours_one, theirs_one in pairs:
            if ours_one != theirs_one:
                typer.echo(f"  transformers: {ours_one!r}\n  vLLM:         {theirs_one!r}")


def main(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")] = CHECKPOINT,
    items: Annotated[int, typer.Option(help="Held-out items.")] = 1000,
    edits: Annotated[int, typer.Option(help="Held-out items for edited prompts and unseen wording.")] = 300,
    vllm: Annotated[int, typer.Option(help="Compare vLLM with transformers on so many items; 0: don't.")] = 0,
    vllm_dtype: Annotated[EngineDtype, typer.Option(help="float32 or bfloat16, for both engines.")] = "float32",
    work: Annotated[
        Path | None, typer.Option(help="The training's work folder: leave out items that share a title with training.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Print what the tiny model gets right on items that it has never seen."""
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(threads)
    if items:
        held_out = held_out_items(items) if work is None else without_known_titles(held_out_items(items), work)
        typer.echo(f"{len(held_out)} items")
        score_defaults(checkpoint, held_out)
    if edits:
        score_edits(checkpoint, held_out_items(edits))
        score_unseen_texts(checkpoint, edits)
    if vllm:
        compare_engines(checkpoint, held_out_items(vllm), vllm_dtype)


def _edited(view: View, rng: np.random.Generator) -> Prompt:
    """An edited prompt, never the default one."""
    while True:
        prompt = draw_prompt(view, rng)
        if prompt != default_prompt(view):
            return prompt


def _unseen(view: View, rng: np.random.Generator) -> Prompt:
    instructions = UNSEEN_INSTRUCTIONS[view]
    return compose(view, instructions[int(rng.integers(len(instructions)))], draw_fields(view, rng))


def _score_brands(questions: Sequence[Question], answers: Sequence[str]) -> None:
    for name, wanted in (("the shop's brands", True), ("invented brands", False)):
        pairs = [(q, a) for q, a in zip(questions, answers, strict=True) if has_shop_brand(q) is wanted]
        share = float(np.mean([field_is_right(q, a, "brand") for q, a in pairs]))
        typer.echo(f"text, {name}: brand {100 * share:.1f} % of {len(pairs)}")


def _score_silence(questions: Sequence[Question], answers: Sequence[str]) -> None:
    """How often the summary is silent about what the text does not state, rather than making it up."""
    fields: tuple[Field, ...] = ("occasion", "care", "size")
    for field in fields:
        silent = [field_is_right(q, a, field) for q, a in zip(questions, answers, strict=True) if field not in q.known]
        typer.echo(f"text, {field} not stated: silent in {sum(silent)} of {len(silent)}")


def _timed_answers(checkpoint: Path, questions: Sequence[Question]) -> list[str]:
    start = time.monotonic()
    answers = ask_transformers(checkpoint, questions)
    logger.info("%.1f answers a second", len(answers) / (time.monotonic() - start))
    return answers


def _table(scores: dict[str, float]) -> str:
    assert set(scores) <= {*FIELDS, "whole answer"}
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in scores.items())


if __name__ == "__main__":
    typer.run(main)
