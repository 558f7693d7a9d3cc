"""The packaged encoder, for real: its weights are checked, its vectors are those of the reference."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import RobertaConfig, RobertaModel

from tasks.engines import sentence_encoder
from tasks.engines.sentence_encoder import EncoderConfig, SentenceEncoder, _positions, packaged_folder
from tasks.stage import StageError


def test_like_texts_are_nearer_than_unlike_ones_and_vectors_are_of_unit_length() -> None:
    encoder = SentenceEncoder(EncoderConfig(device="cpu"))
    vectors_ND = encoder.encode(["a blue coffee mug", "a cup for tea, blue", "hiking boots made of leather"])
    assert vectors_ND.shape == (3, 384)
    assert vectors_ND.dtype == np.float32
    similarity_NN = vectors_ND @ vectors_ND.T
    np.testing.assert_allclose(np.diag(similarity_NN), 1, atol=1e-5)
    assert similarity_NN[0, 1] > 0.5 > 0.3 > similarity_NN[0, 2]


def test_other_weights_under_the_packaged_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    shutil.copytree(packaged_folder(), folder)
    (folder / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(sentence_encoder, "packaged_folder", lambda: folder)
    with pytest.raises(StageError, match="not the official all-MiniLM-L6-v2"):
        SentenceEncoder(EncoderConfig(device="cpu"))


def test_a_model_that_is_not_there_gets_an_error_that_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match=r"embed\.model .*empty can't be loaded"):
        SentenceEncoder(EncoderConfig(model=str(tmp_path / "empty"), device="cpu"))


def test_more_tokens_than_the_model_has_positions_for_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"max_tokens is 513, and embed\.model all-MiniLM-L6-v2 has positions for 512"):
        SentenceEncoder(EncoderConfig(device="cpu", max_tokens=513))
    SentenceEncoder(EncoderConfig(device="cpu", max_tokens=512)).encode(["word " * 600])
    # RoBERTa's positions begin after the one of the padding, which is 1: of 20, two are none.
    sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = RobertaModel(RobertaConfig(**sizes, intermediate_size=8, max_position_embeddings=20))
    assert _positions(SimpleNamespace(auto_model=model)) == 18
    assert _positions(SimpleNamespace()) is None
    assert model(torch.full((1, 18), 3)).last_hidden_state.shape == (1, 18, 8)
