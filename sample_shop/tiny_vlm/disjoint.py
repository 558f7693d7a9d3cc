"""Checks that no training picture or text is among the held-out ones: `python -m sample_shop.tiny_vlm.disjoint`."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from sample_shop.attributes import Look
from sample_shop.tiny_vlm.heldout import HeldOutItem, held_out_items
from sample_shop.tiny_vlm.pictures import load_shards, model_pixels
from sample_shop.tiny_vlm.speaking import SpeakingConfig, step_examples
from sample_shop.tiny_vlm.train import PICTURES, SPEAKING

_TEXTS = re.compile(r"<title>(.*)</title>\n<description>(.*)</description>")


def shared_pictures(training_NHWC: np.ndarray, items: Sequence[HeldOutItem]) -> list[int]:
    """Numbers of the held-out items whose picture, as the model sees it, is a training picture to the pixel."""
    known = {picture.tobytes() for picture in training_NHWC}
    return [number for number, item in enumerate(items) if model_pixels(item.jpeg).tobytes() in known]


def shared_texts(prompts: Iterable[str], items: Sequence[HeldOutItem]) -> tuple[list[int], list[int]]:
    """Numbers of the held-out items whose description, and of those whose title, stands in a training prompt."""
    titles: set[str] = set()
    descriptions: set[str] = set()
    for prompt in prompts:
        if found := _TEXTS.search(prompt):
            titles.add(found[1])
            descriptions.add(found[2])
    texts = [item.text for item in items]
    return (
        [number for number, text in enumerate(texts) if text.description in descriptions],
        [number for number, text in enumerate(texts) if text.title in titles],
    )


def training_prompts(looks: list[Look], passes: Iterable[SpeakingConfig]) -> Iterator[str]:
    """Every prompt of stage B, drawn again from its seeds."""
    for config in passes:
        for step in range(config.steps):
            for examples in step_examples(looks, config, np.random.default_rng([config.seed, step])):
                yield from (example.prompt for example in examples)


def without_known_titles(items: Sequence[HeldOutItem], work: Path) -> list[HeldOutItem]:
    """The items whose title stands in no training prompt; `work` is the training's folder, with its pictures."""
    _, looks = load_shards(work / "pictures", PICTURES)
    _, known = shared_texts(training_prompts(looks, SPEAKING.values()), items)
    return [item for number, item in enumerate(items) if number not in set(known)]


def main(
    work: Annotated[Path, typer.Option(help="The training's work folder, with its pictures.")] = Path("build/tiny_vlm"),
    items: Annotated[int, typer.Option(help="Held-out items.")] = 1000,
) -> None:
    """Print how many held-out items share a picture, a description or a title with a training example."""
    held_out = held_out_items(items)
    pixels_NHWC, looks = load_shards(work / "pictures", PICTURES)
    typer.echo(f"pictures: {len(shared_pictures(pixels_NHWC, held_out))} of {items} shared with {len(looks)}")
    descriptions, titles = shared_texts(training_prompts(looks, SPEAKING.values()), held_out)
    typer.echo(f"descriptions: {len(descriptions)} of {items} shared")
    typer.echo(f"titles: {len(titles)} of {items} shared (a few words from a small vocabulary)")


if __name__ == "__main__":
    typer.run(main)
