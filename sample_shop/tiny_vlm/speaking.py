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
from sample_shop.tiny_vlm.training_state import ADAMW_RATE, Optimisers, load_state, rate_scale, save_state

NO_LOSS = -100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpeakingConfig:
    """How stage B trains; counts are examples a step."""

    steps: int = 800
    captions: int = 6
    summaries: int = 18
    joints: int = 9
    muon_rate: float = 0.01
    vision_muon_rate: float = 0.004
    adamw_rate: float = ADAMW_RATE
    classifier_weight: float = 0.3
    reading_weight: float = 0.3  # of predicting the prompts' own words; copying is learnt there first
    save_every: int = 25
    log_every: int = 20
    seed: int = 23


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids, and for each what comes next, in the answer or in the prompt: [B, T].

    pictures: those of the rows that have one, in order.
    """

    tokens_BT: torch.Tensor
    answers_BT: torch.Tensor
    prompts_BT: torch.Tensor
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
    optimisers = Optimisers(modules, rates, config.adamw_rate)
    first = load_state(state_path, modules, optimisers) if state_path.exists() else 0
    labels = label_indices(looks)
    start = time.monotonic()
    for step in range(first, config.steps):
        rng = np.random.default_rng([config.seed, step])
        batches = [encode(examples, tokenizer) for examples in step_examples(looks, config, rng)]
        rows = [row for batch in batches for row in batch.pictures]
        pixels = augmented(pixels_NHWC[rows], rng)
        said, read, seen = _losses(model, reader, batches, pixels, labels[rows])
        (said + config.reading_weight * read + config.classifier_weight * seen).backward()
        optimisers.step(rate_scale(step, config.steps))
        if step % config.log_every == 0:
            pace = (step - first + 1) / (time.monotonic() - start)
            losses = f"said {said.item():.4f}, read {read.item():.4f}, seen {seen.item():.4f}"
            logger.info("speaking: step %d, %s, %.2f steps/s", step, losses, pace)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save_state(state_path, step + 1, modules, optimisers)


def step_examples(looks: list[Look], config: SpeakingConfig, rng: np.random.Generator) -> list[list[Example]]:
    """What a step trains on: a list for each view, so that little is padding."""
    counts: dict[View, int] = {"image": config.captions, "text": config.summaries, "joint": config.joints}
    return [draw_examples(looks, {view: count}, rng) for view, count in counts.items()]


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Token ids with targets on the answers alone."""
    prompts = tokenizer([e.prompt for e in examples], add_special_tokens=False)["input_ids"]
    answers = tokenizer([e.answer + "<end_of_utterance>" for e in examples], add_special_tokens=False)["input_ids"]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    tokens = torch.full((len(examples), longest), PAD_ID)
    next_in_answer = torch.full((len(examples), longest), NO_LOSS)
    next_in_prompt = torch.full((len(examples), longest), NO_LOSS)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        tokens[row, :end] = torch.tensor(prompt + answer)
        next_in_answer[row, len(prompt) - 1 : end - 1] = torch.tensor(answer)
        next_in_prompt[row, : len(prompt) - 1] = torch.tensor(prompt[1:])
    next_in_prompt[next_in_prompt == IMAGE_ID] = NO_LOSS
    return Batch(tokens, next_in_answer, next_in_prompt, [e.picture for e in examples if e.picture is not None])


def _losses(
    model: Idefics3ForConditionalGeneration,
    reader: AttributeReader,
    batches: list[Batch],
    pixels_BCHW: torch.Tensor,
    labels_BF: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean loss of an answer's token, of a prompt's token, and of the classifiers."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen_BTD = image_tokens(model, pixels_BCHW)
        seeing = attribute_loss(reader(seen_BTD), labels_BF)
        said, read, start = [], [], 0
        for batch in batches:
            end = start + len(batch.pictures)
            hidden_BTD = _hidden(model, batch, seen_BTD[start:end])
            said.append(_token_losses(model, hidden_BTD, batch.answers_BT))
            read.append(_token_losses(model, hidden_BTD, batch.prompts_BT))
            start = end
    return torch.cat(said).mean(), torch.cat(read).mean(), seeing


def _hidden(model: Idefics3ForConditionalGeneration, batch: Batch, seen_BTD: torch.Tensor) -> torch.Tensor:
    """Last hidden states [B, T, D]. Padding stands last, so the causal mask alone hides it."""
    embedded = model.get_input_embeddings().weight[batch.tokens_BT]
    is_picture = (batch.tokens_BT == IMAGE_ID)[..., None].expand_as(embedded)
    embedded = embedded.masked_scatter(is_picture, seen_BTD.to(embedded.dtype))
    return model.model.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state


def _token_losses(
    model: Idefics3ForConditionalGeneration, hidden_BTD: torch.Tensor, next_BT: torch.Tensor
) -> torch.Tensor:
    """The loss of every token that is to be predicted."""
    wanted = next_BT != NO_LOSS
    logits = linear(hidden_BTD[wanted], model.get_input_embeddings().weight)
    return cross_entropy(logits.float(), next_BT[wanted], reduction="none")
