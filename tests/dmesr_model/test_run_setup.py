"""What an untrained model knows of its data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dmesr_model.encoding import encode_items
from dmesr_model.features import ItemFeatures
from dmesr_model.model_config import ModelConfig
from dmesr_model.run_setup import build_model, claim_output, share_of_process, split_events
from dmesr_model.sequences import Sequences

LATER_ROWS_TURNED = np.where(np.arange(24 * 5)[:, None] == 0, np.float32(1), np.float32(-1))


@pytest.mark.parametrize(
    "changed, named",
    [
        (lambda features: replace(features, item_ids=features.item_ids[::-1]), "items"),
        (lambda features: replace(features, views=("text", "image")), "features"),
        (lambda features: replace(features, coarse_index_NV=features.coarse_index_NV[:, ::-1]), "texts"),
        (lambda features: replace(features, segment_index_NL=features.segment_index_NL[:, :2]), "texts"),
        (lambda features: replace(features, vectors_UE=features.vectors_UE + np.float32(1)), "vectors"),
        (lambda features: replace(features, vectors_UE=features.vectors_UE * LATER_ROWS_TURNED), "vectors"),
    ],
    ids=["items", "views", "where texts stand", "segments", "vectors", "later vectors"],
)
def test_a_folder_is_not_taken_for_a_run_on_other_features(toy_features, toy_sequences, tmp_path, changed, named):
    claim_output(tmp_path, toy_features(), toy_sequences(), {})
    (tmp_path / "summary.json").touch()
    claim_output(tmp_path, toy_features(), toy_sequences(), {})
    with pytest.raises(ValueError, match=rf"holds a run with other settings or data \({named}\)"):
        claim_output(tmp_path, changed(toy_features()), toy_sequences(), {})


def test_a_run_with_other_settings_names_each_that_differs(toy_features, toy_sequences, tmp_path):
    held = {"train": {"seed": 1, "optimizer": {"learning_rate": 0.1, "clip_norm": 1.0}, "of_an_earlier_release": None}}
    wanted = {"train": {"seed": 1, "optimizer": {"learning_rate": 0.2, "clip_norm": 1.0}}}
    claim_output(tmp_path, toy_features(), toy_sequences(), held)
    claim_output(tmp_path, toy_features(), toy_sequences(), wanted)  # nothing was trained yet
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"\(train.of_an_earlier_release, train.optimizer.learning_rate\)"):
        claim_output(tmp_path, toy_features(), toy_sequences(), held)


def test_a_folder_is_not_taken_for_a_run_on_the_same_events_of_others(toy_features, tmp_path):
    claim_output(tmp_path, toy_features(), Sequences.from_histories([[1, 2], [3, 4, 5]], "ab"), {})
    (tmp_path / "summary.json").touch()
    with pytest.raises(ValueError, match=r"holds a run with other settings or data \(histories\)"):
        claim_output(tmp_path, toy_features(), Sequences.from_histories([[1, 2, 3], [4, 5]], "ab"), {})


def test_processes_share_out_who_is_validated():
    _, held_out = split_events(Sequences.from_histories([[1, 2], [3, 4], [5, 6]], "abc"), "last_event")
    parts = [share_of_process(held_out, rank, processes=2) for rank in range(2)]
    assert [part.histories.user_ids for part in parts] == [("a", "c"), ("b",)]
    assert [part.target_index_H.tolist() for part in parts] == [[2, 6], [4]]


def test_each_adapter_knows_the_mean_of_its_source_over_the_items_of_training():
    vectors_UE = np.array([[1, 0], [3, 0], [0, 8], [0, 4], [90, 90]], dtype=np.float32)
    features = ItemFeatures(
        item_ids=("a", "b", "c"),
        views=("text",),
        vectors_UE=vectors_UE,
        coarse_index_NV=np.array([[0], [1], [4]], dtype=np.int32),
        segment_index_NL=np.array([[2, -1], [3, 2], [4, 4]], dtype=np.int32),
    )
    train = Sequences.from_histories([[1, 2]], ["u"])  # nobody met item c
    model = build_model(features, train, ModelConfig(width=4, heads=1), seed=0)
    view, segments = model.items.adapters
    assert view.mean_E.tolist() == [2, 0]
    assert segments.mean_E.tolist() == [0, 6]  # of the distinct texts 2 and 3


def test_an_item_of_a_lone_training_event_is_one_that_training_never_met(toy_features):
    histories = Sequences.from_histories([[1, 2, 3, 4], [5, 6, 7], [8]], "uvw")
    train, validation = split_events(histories, "leave_one_out")  # of v and w one event is left, 5 and 8
    assert (train.user_ids, train.item_index.tolist()) == (("u",), [1, 2])
    assert (validation.histories.user_ids, validation.target_index_H.tolist()) == (("u", "v"), [3, 6])
    assert split_events(histories, "last_event")[0].item_index.tolist() == [1, 2, 3, 5, 6]
    assert split_events(histories, "none")[0].user_ids == ("u", "v")
    assert build_model(toy_features(), train, ModelConfig(), seed=0).item_ids == ("item-0", "item-1")


def test_items_for_the_mean_are_spread_over_a_large_catalog(toy_features, toy_sequences, monkeypatch):
    monkeypatch.setattr("dmesr_model.run_setup._ITEMS_FOR_MEAN", 2)
    features = toy_features()
    model = build_model(features, toy_sequences(), ModelConfig(), seed=0)
    rows = features.coarse_index_NV[[0, 12], 1]  # every twelfth of 24 items
    np.testing.assert_allclose(model.items.adapters[1].mean_E, features.vectors_UE[rows].mean(axis=0), rtol=1e-5)


def test_a_model_reads_the_views_in_the_order_of_its_features(toy_features, toy_sequences):
    features = replace(toy_features(), views=("text", "image"))
    assert build_model(features, toy_sequences(), ModelConfig(), seed=0).config.views == ("text", "image")
    named = build_model(features, toy_sequences(), ModelConfig(views=("image", "text")), seed=0)
    assert named.config.views == ("image", "text")


def test_the_seed_decides_the_weights(toy_features, toy_sequences):
    weights = [
        build_model(toy_features(), toy_sequences(), ModelConfig(), seed).backbone.blocks[0].attention.query.weight
        for seed in (0, 1, 0)
    ]
    assert torch.equal(weights[0], weights[2]) and not torch.equal(weights[0], weights[1])


def test_what_all_texts_share_changes_no_item(toy_features, toy_sequences):
    features, train = toy_features(), toy_sequences()
    shifted = replace(features, vectors_UE=features.vectors_UE + np.arange(12, dtype=np.float32))
    models = (build_model(data, train, ModelConfig(), seed=0) for data in (features, shifted))
    first, second = (encode_items(*pair) for pair in zip(models, (features, shifted), strict=True))
    np.testing.assert_allclose(second, first, rtol=0, atol=1e-4 * np.abs(first).max())
