"""Where the committed checkpoint stands, and how one is written."""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Idefics3ForConditionalGeneration, PreTrainedTokenizerFast

from sample_shop.tiny_vlm.architecture import IMAGE_TOKENS
from sample_shop.tiny_vlm.tokenizer import END_ID, PAD_ID, START_ID, build_processor

CHECKPOINT = Path(__file__).parent / "checkpoint"


def write_checkpoint(model: Idefics3ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save weights in bfloat16 with everything that transformers and vLLM need to load them."""
    small: Any = copy.deepcopy(model)
    small.to(dtype=torch.bfloat16)
    small.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=START_ID, eos_token_id=END_ID, pad_token_id=PAD_ID
    )
    small.save_pretrained(out)
    build_processor(tokenizer, IMAGE_TOKENS).save_pretrained(out)
