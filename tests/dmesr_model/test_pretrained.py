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


def build(features, **parts):
    torch.manual_seed(3)
    config = ModelConfig(**{"views": ("image", "text"), "width": 8, "adapter_width": 8, "layers": 1, **parts})
    return DMESR(config, features.encoder_width, features.item_ids)


def test_saved_model_comes_back(toy_features, tmp_path):
    model = build(toy_features())
    for adapter in model.items.adapters:
        adapter.centre(torch.from_numpy(toy_features().vectors_UE))
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


@pytest.mark.parametrize("location", ["/not/there", "./there", "a/b/c", Path("out/model")])
def test_a_folder_that_is_not_there_is_named(location):
    with pytest.raises(FileNotFoundError, match=rf"^{location} is no folder of a model; give the one that training"):
        DMESR.from_pretrained(location)


def test_folder_speaks_for_itself(toy_features, tmp_path):
    build(toy_features()).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["encoder_width"] == 12
    card = (tmp_path / "README.md").read_text()
    assert "DMESR-sasrec" in card
    assert "| alignment_weight | 0.02 |" in card


def test_card_is_true_of_what_the_model_reads(toy_features, tmp_path):
    cards = {}
    models = {"both": {}, "content": {"id_mode": "none"}, "ids": {"views": (), "use_segments": False}}
    for name, parts in models.items():
        build(toy_features(), **parts).save_pretrained(tmp_path / name)
        cards[name] = (tmp_path / name / "README.md").read_text()
    assert "that training saw. Other items are scored from their content." in cards["both"]
    assert "These and others are scored from their content alone." in cards["content"]
    assert "It reads no texts." in cards["ids"] and "| text vector width |" not in cards["ids"]
    assert "content" not in cards["ids"].partition("```\n")[2]


def test_our_card_is_written_anew_and_a_users_own_stays(toy_features, tmp_path):
    build(toy_features()).save_pretrained(tmp_path)
    build(toy_features(), layers=2).save_pretrained(tmp_path)
    card = tmp_path / "README.md"
    assert "| layers | 2 |" in card.read_text()
    card.write_text("our own words")
    build(toy_features()).save_pretrained(tmp_path)
    assert card.read_text() == "our own words"


def test_a_model_of_the_hub_is_fetched_as_asked(toy_features, tmp_path):
    model = build(toy_features())
    model.save_pretrained(tmp_path)
    asked = []

    def download(filename, **options):
        asked.append({"filename": filename, **options})
        return str(tmp_path / filename)

    with (
        patch("dmesr_model.pretrained.hf_hub_download", download),
        patch("huggingface_hub.hub_mixin.hf_hub_download", download),
    ):
        opened = DMESR.from_pretrained("team/shop", revision="v2", local_files_only=True, cache_dir="kept")
    assert opened.item_ids == model.item_ids
    assert {options["filename"] for options in asked} == FILES - {"README.md"}
    for options in asked:
        assert options["repo_id"] == "team/shop" and options["revision"] == "v2"
        assert options["local_files_only"] and options["cache_dir"] == "kept"


def test_push_to_hub_uploads_the_same_folder(toy_features):
    uploaded = {}

    def upload(folder_path, **_):
        uploaded["names"] = {path.name for path in Path(folder_path).iterdir()}

    with patch("huggingface_hub.hub_mixin.HfApi") as api:
        api.return_value.upload_folder.side_effect = upload
        build(toy_features()).push_to_hub("team/shop")
    assert uploaded["names"] == FILES
