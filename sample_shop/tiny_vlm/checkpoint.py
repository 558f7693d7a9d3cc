"""Where the committed checkpoint stands, and how one is written."""

from pathlib import Path

import torch
from transformers import GenerationConfig, Idefics3ForConditionalGeneration, PreTrainedTokenizerFast

from sample_shop.tiny_vlm.architecture import IMAGE_TOKENS
from sample_shop.tiny_vlm.tokenizer import END_ID, PAD_ID, START_ID, build_processor

CHECKPOINT = Path(__file__).parent / "checkpoint"


def write_checkpoint(model: Idefics3ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Save weights in bfloat16 with everything that transformers and vLLM need to load them."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.config.dtype = torch.bfloat16
    model.generation_config = GenerationConfig(
        do_sample=False, bos_token_id=START_ID, eos_token_id=END_ID, pad_token_id=PAD_ID
    )
    model.save_pretrained(out, state_dict=weights)
    build_processor(tokenizer, IMAGE_TOKENS).save_pretrained(out)
