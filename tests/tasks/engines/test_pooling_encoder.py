"""vLLM's pooling against transformers: a tiny Qwen3 with random weights, its last token's state, unit length."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

import sample_shop.tiny_vlm
from tasks.embed import EmbedConfig, load_encoder
from tasks.engines.pooling_encoder import PoolingEncoder
from tasks.engines.sentence_encoder import PoolingConfig
from tasks.stage import StageError

TOKENIZER = Path(sample_shop.tiny_vlm.__file__).parent / "checkpoint"
TEXTS = ["a blue mug", "boots of leather, made for walking in the hills", "lamp", "a blue mug " * 40]
MOST_TOKENS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = tmp_path_factory.mktemp("qwen3")
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128}
    config = Qwen3Config(vocab_size=len(tokenizer), tie_word_embeddings=True, pad_token_id=0, **sizes, **heads)
    Qwen3ForCausalLM(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Iterator[PoolingEncoder]:
    vllm = PoolingConfig(kv_cache_gib=1, enforce_eager=True)
    running = load_encoder(EmbedConfig(model=str(folder), vllm=vllm, max_tokens=MOST_TOKENS))
    assert isinstance(running, PoolingEncoder)
    yield running
    running.close()


def last_token_states(folder: Path, texts: list[str]) -> np.ndarray:
    """What transformers gives, one text at a time: no padding to go wrong."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=MOST_TOKENS)["input_ids"]
        with torch.inference_mode():
            rows.append(torch.nn.functional.normalize(model(ids).last_hidden_state[0, -1].float(), dim=0))
    return torch.stack(rows).numpy()


def test_vectors_are_the_last_tokens_normalised_long_texts_cut(encoder: PoolingEncoder, folder: Path) -> None:
    vectors_ND = encoder.encode(TEXTS)
    assert vectors_ND.dtype == np.float32 and vectors_ND.shape == (4, 64)
    np.testing.assert_allclose(vectors_ND, last_token_states(folder, TEXTS), atol=2e-4)


def test_a_killed_engine_is_an_error_and_no_endless_wait(
    encoder: PoolingEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    for process in encoder._processes:
        process.kill()
    with caplog.at_level(logging.CRITICAL), pytest.raises(StageError, match="its process ended while it embedded"):
        encoder.encode(TEXTS)


def test_who_runs_the_model_bears_on_the_digest_and_how_much_memory_does_not(folder: Path) -> None:
    plain, by_vllm = EmbedConfig(model=str(folder)), EmbedConfig(model=str(folder), vllm=PoolingConfig())
    assert plain.encoder_digest != by_vllm.encoder_digest
    roomy = EmbedConfig(model=str(folder), vllm=PoolingConfig(kv_cache_gib=4))
    assert roomy.encoder_digest == by_vllm.encoder_digest
