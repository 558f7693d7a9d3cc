"""Stage A: the vision tower and connector learn, through classifiers, to tell what a picture shows."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import Idefics3ForConditionalGeneration

from sample_shop.attributes import Look
from sample_shop.tiny_vlm.architecture import LABELS, AttributeReader, image_tokens, label_indices
from sample_shop.tiny_vlm.training_state import ADAMW_RATE, Optimisers, load_state, rate_scale, save_state

LARGEST_SHIFT_PX = 6

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SeeingConfig:
    """How stage A trains."""

    steps: int = 700
    batch: int = 96
    muon_rate: float = 0.01
    save_every: int = 100
    log_every: int = 20
    seed: int = 11


def train_seeing(
    model: Idefics3ForConditionalGeneration,
    reader: AttributeReader,
    pixels_NHWC: np.ndarray,
    looks: list[Look],
    state_path: Path,
    config: SeeingConfig,
) -> None:
    """Train the vision tower in place, from where `state_path` stands if it exists."""
    modules = {"vision": model.model.vision_model, "connector": model.model.connector, "reader": reader}
    optimisers = Optimisers(modules, dict.fromkeys(modules, config.muon_rate), ADAMW_RATE)
    first = load_state(state_path, modules, optimisers) if state_path.exists() else 0
    labels = label_indices(looks)
    start = time.monotonic()
    for step in range(first, config.steps):
        rng = np.random.default_rng([config.seed, step])
        rows = rng.integers(len(pixels_NHWC), size=config.batch)
        logits = _read(model, reader, augmented(pixels_NHWC[rows], rng))
        loss = attribute_loss(logits, labels[rows])
        loss.backward()
        optimisers.step(rate_scale(step, config.steps))
        if step % config.log_every == 0:
            rate = (step - first + 1) / (time.monotonic() - start)
            hits = [f"{h:.3f}" for h in hit_rates(logits, labels[rows])]
            logger.info("seeing: step %d, loss %.3f, hits %s, %.2f steps/s", step, loss.item(), " ".join(hits), rate)
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            save_state(state_path, step + 1, modules, optimisers)


def augmented(pixels_BHWC: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """A batch as the model takes it ([B, 3, H, W] in -1..1), each picture moved, mirrored and relit a little."""
    moved = np.stack(
        [np.roll(p, rng.integers(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX + 1, 2), (0, 1)) for p in pixels_BHWC]
    )
    mirrored = rng.random(len(moved)) < 0.5
    moved[mirrored] = moved[mirrored, :, ::-1]
    scaled = torch.from_numpy(moved).permute(0, 3, 1, 2).float() / 127.5
    light = torch.from_numpy(rng.uniform(0.95, 1.05, (len(moved), 1, 1, 1)).astype(np.float32))
    return (scaled * light).clamp(0, 2) - 1


def attribute_loss(logits: list[torch.Tensor], labels_BF: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the fields."""
    losses = [cross_entropy(field.float(), labels_BF[:, i]) for i, field in enumerate(logits)]
    return torch.stack(losses).mean()


def hit_rates(logits: list[torch.Tensor], labels_BF: torch.Tensor) -> list[float]:
    """Share of right answers for each field of `LABELS`."""
    assert len(logits) == len(LABELS)
    return [float((field.argmax(-1) == labels_BF[:, i]).float().mean()) for i, field in enumerate(logits)]


def _read(
    model: Idefics3ForConditionalGeneration, reader: AttributeReader, pixels_BCHW: torch.Tensor
) -> list[torch.Tensor]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return reader(image_tokens(model, pixels_BCHW))
