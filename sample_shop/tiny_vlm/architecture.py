"""The tiny model: an Idefics3 of under five million parameters, and the classifiers that help to train its eyes."""

import math

import torch
from torch import nn
from transformers import Idefics3Config, Idefics3ForConditionalGeneration

from sample_shop.attributes import COLOURS, KINDS, PATTERNS, Field, Look
from sample_shop.tiny_vlm.pictures import MODEL_PX
from sample_shop.tiny_vlm.tokenizer import (
    END_ID,
    IMAGE_ID,
    PAD_ID,
    START_ID,
    VOCABULARY,
)

PATCH_PX = 16
PIXEL_SHUFFLE = 2
IMAGE_TOKENS = (MODEL_PX // PATCH_PX // PIXEL_SHUFFLE) ** 2
LONGEST_CONTEXT = 512
TEXT_WIDTH = 256
VISION_WIDTH = 192

# What each classifier chooses from.
LABELS: dict[Field, tuple[str, ...]] = {
    "kind": tuple(KINDS),
    "main colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "accent colour": tuple(COLOURS),
}


def tiny_config() -> Idefics3Config:
    """Sizes and token ids. Both tie flags are set: transformers reads the outer one, vLLM the text model's."""
    return Idefics3Config(
        vision_config={
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "image_size": MODEL_PX,
            "patch_size": PATCH_PX,
        },
        text_config={
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 640,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": LONGEST_CONTEXT,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "pad_token_id": PAD_ID,
            "bos_token_id": START_ID,
            "eos_token_id": END_ID,
        },
        scale_factor=PIXEL_SHUFFLE,
        image_token_id=IMAGE_ID,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
    )


def new_model(seed: int) -> Idefics3ForConditionalGeneration:
    """An untrained model whose picture positions start as a 2-D sine-cosine grid."""
    torch.manual_seed(seed)
    model = Idefics3ForConditionalGeneration(tiny_config())
    positions = model.model.vision_model.embeddings.position_embedding
    with torch.no_grad():
        positions.weight.copy_(sine_cosine_grid(MODEL_PX // PATCH_PX, VISION_WIDTH))
    return model


def sine_cosine_grid(side: int, width: int) -> torch.Tensor:
    """Position table [side * side, width]: half of the width tells the row, half the column."""
    frequency = torch.exp(torch.arange(width // 4) * (-math.log(10_000.0) / (width // 4)))
    angle = torch.arange(side)[:, None] * frequency
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows, columns = line.repeat_interleave(side, 0), line.repeat(side, 1)
    return torch.cat([rows, columns], dim=1) * 0.5


class AttributeReader(nn.Module):
    """Attention-pooled classifiers over the image tokens, one for each thing a picture shows.

    They exist in training only: without them the vision tower learns too little from captions alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(TEXT_WIDTH)
        self.queries = nn.Parameter(torch.randn(len(LABELS), TEXT_WIDTH) * 0.02)
        self.heads = nn.ModuleList(nn.Linear(TEXT_WIDTH, len(values)) for values in LABELS.values())

    def forward(self, tokens_BTD: torch.Tensor) -> list[torch.Tensor]:
        """Logits [B, values] for each field of `LABELS`."""
        normed = self.norm(tokens_BTD)
        weights_BFT = (self.queries @ normed.transpose(1, 2) / math.sqrt(TEXT_WIDTH)).softmax(dim=-1)
        pooled_BFD = weights_BFT @ normed
        return [head(pooled_BFD[:, i]) for i, head in enumerate(self.heads)]


def image_tokens(model: Idefics3ForConditionalGeneration, pixels_BCHW: torch.Tensor) -> torch.Tensor:
    """What the language model gets to see of each picture: [B, IMAGE_TOKENS, TEXT_WIDTH]."""
    return model.model.get_image_features(pixels_BCHW[:, None]).pooler_output


def label_indices(looks: list[Look]) -> torch.Tensor:
    """Class numbers [N, fields] for the classifiers."""
    rows = [
        (
            LABELS["kind"].index(look.kind),
            LABELS["main colour"].index(look.main_colour),
            LABELS["pattern"].index(look.pattern),
            LABELS["accent colour"].index(look.accent_colour),
        )
        for look in looks
    ]
    return torch.tensor(rows)
