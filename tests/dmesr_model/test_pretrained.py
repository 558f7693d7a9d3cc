"""A saved model comes back as it was, and what a hub would show is generated."""

import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dmesr_model.encoding import encode_items
from dmesr_model.model import DMESR, ModelConfig

FILES = {"config.json", "model.safetensors", "item_ids.json", "README.md"}


def build(features):
    torch.manual_seed(3)
    config = ModelConfig(views=("image", "text"), width=8, adapter_width=8, layers=1)
    return DMESR(config, features.encoder_width, features.item_ids)


def test_saved_model_comes_back(toy_features, tmp_path):
    model = build(toy_features())
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "item_ids.json",
        "README.md",
    }
    opened = DMESR.from_pretrained(tmp_path)
    assert opened.config == model.config
    assert opened.item_ids == model.item_ids
    np.testing.assert_array_equal(encode_items(opened, toy_features()), encode_items(model, toy_features()))


def test_weights_of_another_version_are_refused_with_the_remedy(toy_features, tmp_path):
    build(toy_features()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("backbone.norm.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(RuntimeError, match=r"model\.safetensors was saved by another version.*train it again"):
        DMESR.from_pretrained(tmp_path)


def test_folder_speaks_for_itself(toy_features, tmp_path):
    build(toy_features()).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["encoder_width"] == 12
    card = (tmp_path / "README.md").read_text()
    assert "DMESR-sasrec" in card
    assert "| alignment_weight | 0.02 |" in card


def test_push_to_hub_uploads_the_same_folder(toy_features):
    uploaded = {}

    def upload(folder_path, **_):
        uploaded["names"] = {path.name for path in Path(folder_path).iterdir()}

    with patch("huggingface_hub.hub_mixin.HfApi") as api:
        api.return_value.upload_folder.side_effect = upload
        build(toy_features()).push_to_hub("team/shop")
    assert uploaded["names"] == FILES
