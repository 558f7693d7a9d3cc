"""The packaged encoder, for real: its weights are checked, its vectors are those of the reference."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks.engines import sentence_encoder
from tasks.engines.sentence_encoder import EncoderConfig, SentenceEncoder, packaged_folder
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
