"""Trains the tiny model from nothing to a checkpoint: `python -m sample_shop.tiny_vlm.train`.

Each step of the work leaves its result in the work folder, and a killed run goes on from there.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import PreTrainedTokenizerFast

from sample_shop.tiny_vlm.architecture import AttributeReader, new_model
from sample_shop.tiny_vlm.checkpoint import CHECKPOINT, write_checkpoint
from sample_shop.tiny_vlm.examples import tokenizer_texts
from sample_shop.tiny_vlm.pictures import load_shards, render_shards
from sample_shop.tiny_vlm.seeing import SeeingConfig, train_seeing
from sample_shop.tiny_vlm.speaking import SpeakingConfig, train_speaking
from sample_shop.tiny_vlm.tokenizer import train_tokenizer

PICTURES = 20_000
PICTURE_SEED = 7_000_000
TOKENIZER_SEED = 7_100_000
TOKENIZER_TEXTS = 12_000
MODEL_SEED = 5
# Stage B goes over the examples four times, each time from a fresh warm-up: first broadly, then with more whole
# texts, then twice with every rate lower, the embeddings' too.
SPEAKING = {
    "speaking": SpeakingConfig(),
    "refining": SpeakingConfig(
        steps=450, summaries=14, joints=10, muon_rate=0.006, vision_muon_rate=0.002, reading_weight=0.1, seed=29
    ),
    "finishing": SpeakingConfig(
        steps=700,
        captions=5,
        joints=8,
        muon_rate=0.005,
        vision_muon_rate=0.001,
        adamw_rate=4e-4,
        reading_weight=0.1,
        seed=37,
    ),
    "shortening": SpeakingConfig(
        steps=170,
        captions=4,
        joints=7,
        muon_rate=0.004,
        vision_muon_rate=0.0005,
        adamw_rate=3e-4,
        reading_weight=0.1,
        seed=41,
    ),
}

logger = logging.getLogger(__name__)


def train(work: Path, out: Path, seeing: SeeingConfig, speaking: Mapping[str, SpeakingConfig]) -> None:
    """Render, train the tokenizer, train the eyes, train the voice, write the checkpoint."""
    render_shards(work / "pictures", PICTURES, PICTURE_SEED)
    pixels_NHWC, looks = load_shards(work / "pictures", PICTURES)
    tokenizer = _tokenizer(work / "tokenizer")
    model, reader = new_model(MODEL_SEED), AttributeReader()
    model.set_attn_implementation("eager")  # the fused kernel's backward pass takes twice as long on a CPU
    train_seeing(model, reader, pixels_NHWC, looks, work / "seeing.safetensors", seeing)
    for name, config in speaking.items():
        train_speaking(model, reader, tokenizer, pixels_NHWC, looks, work / f"{name}.safetensors", config)
    write_checkpoint(model, tokenizer, out)
    logger.info("checkpoint written to %s", out)


def main(
    work: Annotated[Path, typer.Option(help="Folder for pictures and for what a killed run goes on from.")] = Path(
        "build/tiny_vlm"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the finished checkpoint.")] = CHECKPOINT,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Train the sample shop's tiny vision-language model from nothing."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    train(work, out, SeeingConfig(), SPEAKING)


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(tokenizer_texts(TOKENIZER_TEXTS, TOKENIZER_SEED)).save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


if __name__ == "__main__":
    typer.run(main)
