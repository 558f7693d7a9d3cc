"""Stage B: the whole model learns to answer the three kinds of prompt; the loss is on the answers alone."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, linear
from transformers import Idefics3ForConditionalGeneration, PreTrainedTokenizerFast

from sample_shop.attributes import Look
from sample_shop.tiny_vlm.answers import View
from sample_shop.tiny_vlm.architecture import AttributeReader, image_tokens, label_indices
from sample_shop.tiny_vlm.examples import Example, draw_examples
from sample_shop.tiny_vlm.seeing import attribute_loss, augmented
from sample_shop.tiny_vlm.tokenizer import IMAGE_ID, PAD_ID
from sample_shop.tiny_vlm.training_state import Optimisers, load_state, rate_scale, save_state

NO_LOSS = -100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpeakingConfig:
    """How stage B trains; counts are examples a step."""

    steps: int = 750
    captions: int = 16
    summaries: int = 14
    joints: int = 14
    muon_rate: float = 0.01
    vision_muon_rate: float = 0.004
    classifier_weight: float = 0.3
    save_every: int = 25
    log_every: int = 20
    seed: int = 23


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids and targets [B, T], and the pictures of the rows that have one, in order."""

    tokens_BT: torch.Tensor
    targets_BT: torch.Tensor
    pictures: list[int]


def train_speaking(
    model: Idefics3ForConditionalGeneration,
    reader: AttributeReader,
    tokenizer: PreTrainedTokenizerFast,
    pixels_NHWC: np.ndarray,
    looks: list[Look],
    state_path: Path,
    config: SpeakingConfig,
) -> None:
    """Train the whole model in place, from where `state_path` stands if it exists."""
    modules = {
        "vision": model.model.vision_model,
        "connector": model.model.connector,
        "reader": reader,
        "text": model.model.text_model,
    }
    rates = dict.fromkeys(modules, config.vision_muon_rate) | {"text": config.muon_rate}
    optimisers = Optimisers(modules, rates)
    first = load_state(state_path, modules, optimisers) if state_path.exists() else 0
    labels = label_indices(looks)
    start = time.monotonic()
    for step in range(first, config.steps):
        rng = np.random.default_rng([config.seed, step])
        batches = _draw_batches(looks, tokenizer, config, rng)
        rows = [row for batch in batches for row in batch.pictures]
        pixels = augmented(pixels_NHWC[rows], rng)
        said, seen = _losses(model, reader, batches, pixels, labels[rows])
        (said + config.classifier_weight * seen).backward()
        optimisers.step(rate_scale(step, config.steps))
        if step % config.log_every == 0:
            pace = (step - first + 1) / (time.monotonic() - start)
            logger.info("speaking: step %d, said %.4f, seen %.4f, %.2f steps/s", step, said, seen, pace)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save_state(state_path, step + 1, modules, optimisers)


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Token ids with targets on the answers alone."""
    prompts = tokenizer([e.prompt for e in examples], add_special_tokens=False)["input_ids"]
    answers = tokenizer([e.answer + "<end_of_utterance>" for e in examples], add_special_tokens=False)["input_ids"]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    tokens = torch.full((len(examples), longest), PAD_ID)
    targets = torch.full((len(examples), longest), NO_LOSS)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        targets[row, len(prompt) - 1 : end - 1] = torch.tensor(answer)
    return Batch(tokens, targets, [e.picture for e in examples if e.picture is not None])


def _draw_batches(
    looks: list[Look], tokenizer: PreTrainedTokenizerFast, config: SpeakingConfig, rng: np.random.Generator
) -> list[Batch]:
    """A batch for each view, so that little is padding."""
    counts: dict[View, int] = {"image": config.captions, "text": config.summaries, "joint": config.joints}
    return [encode(draw_examples(looks, {view: count}, rng), tokenizer) for view, count in counts.items()]


def _losses(
    model: Idefics3ForConditionalGeneration,
    reader: AttributeReader,
    batches: list[Batch],
    pixels_BCHW: torch.Tensor,
    labels_BF: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss of an answer's token, and of the classifiers."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen_BTD = image_tokens(model, pixels_BCHW)
        reading = attribute_loss(reader(seen_BTD), labels_BF)
        parts, start = [], 0
        for batch in batches:
            end = start + len(batch.pictures)
            parts.append(_answer_losses(model, batch, seen_BTD[start:end]))
            start = end
    return torch.cat(parts).mean(), reading


def _answer_losses(model: Idefics3ForConditionalGeneration, batch: Batch, seen_BTD: torch.Tensor) -> torch.Tensor:
    """The loss of every answer token. Padding stands last, so the causal mask alone hides it."""
    table = model.get_input_embeddings().weight
    embedded = table[batch.tokens_BT]
    is_picture = (batch.tokens_BT == IMAGE_ID)[..., None].expand_as(embedded)
    embedded = embedded.masked_scatter(is_picture, seen_BTD.to(embedded.dtype))
    hidden = model.model.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    answered = batch.targets_BT != NO_LOSS
    logits = linear(hidden[answered], table)
    return cross_entropy(logits.float(), batch.targets_BT[answered], reduction="none")
