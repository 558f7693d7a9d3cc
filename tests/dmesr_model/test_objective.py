"""The loss of a whole step: sampled losses against full ones, and training scores against what is served."""

import numpy as np
import pytest
import torch

from dmesr_model.encoding import encode_items, encode_sequences, gatherer_for
from dmesr_model.losses import full_softmax
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.objective import LossConfig, Objective
from dmesr_model.sequences import Sequences
from dmesr_model.steps import StepBuilder
from dmesr_model.trainer import TrainConfig, step_settings

CONFIG = ModelConfig(views=("image", "text"), width=8, adapter_width=8, layers=1, dropout=0.0, id_dropout=0.0)


def step_loss(features, sequences, model, **loss_settings):
    train = TrainConfig(batch_size=50, loss=LossConfig(**loss_settings))
    steps = StepBuilder(sequences, gatherer_for(model, features), step_settings(model.config, train))
    return Objective(model, train.loss, len(steps.trained_index_N))(steps.build(steps.plan(0)[0], 0, 0))


@pytest.fixture
def model(toy_features):
    torch.manual_seed(0)
    model = DMESR(CONFIG, 12, toy_features().item_ids)
    for parameter in model.items.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def test_all_items_as_negatives_are_full_softmax(model, toy_features, toy_sequences):
    full = step_loss(toy_features(), toy_sequences(), model, kind="softmax")
    sampled = step_loss(toy_features(), toy_sequences(), model, kind="sampled_softmax", negatives=24)
    torch.testing.assert_close(sampled.next_item, full.next_item)
    torch.testing.assert_close(sampled.alignment, full.alignment)


@pytest.mark.parametrize(("of_user", "tolerance"), [(True, 0.03), (False, 0.06)])
def test_few_candidates_estimate_the_sum_over_items_without_bias(
    of_user, tolerance, model, toy_features, toy_sequences
):
    """Over many steps, for the positions of one user: the sum over its own items, and over all others."""
    sequences, features, user = toy_sequences(), toy_features(), 7
    train = TrainConfig(batch_size=5, loss=LossConfig(kind="sampled_softmax", negatives=4))
    steps = StepBuilder(sequences, gatherer_for(model, features), step_settings(model.config, train))
    value_of = np.isin(np.arange(25), sequences.history(user)) == of_user
    truth = value_of[steps.trained_index_N].sum()
    estimates = []
    for epoch in range(2000):
        position, users = next((at, users) for at, users in enumerate(steps.plan(epoch)) if user in users)
        batch = steps.build(users, epoch, position)
        own_C = batch.candidates.own_BC[users.tolist().index(user)]
        chance_C = torch.where(own_C, batch.candidates.log_own_chance, batch.candidates.log_chance_C).exp()
        item_index_C = batch.items.id_row_N[batch.candidates.rows_C]
        estimates.append(float((value_of[item_index_C] / chance_C.numpy()).sum()))
    assert np.mean(estimates) == pytest.approx(truth, rel=tolerance)


def test_gbce_without_calibration_is_bce(model, toy_features, toy_sequences):
    bce = step_loss(toy_features(), toy_sequences(), model, kind="bce", negatives=9)
    gbce = step_loss(toy_features(), toy_sequences(), model, kind="gbce", negatives=9, calibration=0.0)
    calibrated = step_loss(toy_features(), toy_sequences(), model, kind="gbce", negatives=9, calibration=0.75)
    torch.testing.assert_close(gbce.next_item, bce.next_item)
    assert calibrated.next_item < bce.next_item


def test_total_is_next_item_plus_weighted_alignment(model, toy_features, toy_sequences):
    losses = step_loss(toy_features(), toy_sequences(), model, kind="softmax")
    torch.testing.assert_close(losses.total.detach(), losses.next_item + 0.02 * losses.alignment)
    assert losses.alignment > 0


@pytest.mark.parametrize("fusion", ["item", "sequence"])
def test_training_scores_what_is_served(fusion, toy_features):
    """One user: the loss is that of the served vectors' inner products, prefix by prefix."""
    features = toy_features(items=8)
    changes = {"fusion": fusion, "alignment_weight": 0.0, "positions": "from_start"}  # a prefix is then encoded alike
    model = DMESR(CONFIG.model_copy(update=changes), 12, features.item_ids)
    history = [1, 2, 3, 4, 5, 6, 7, 8]
    loss = step_loss(features, Sequences.from_histories([history], "a"), model, kind="softmax").next_item
    items = encode_items(model, features)
    prefixes = Sequences.from_histories([history[:length] for length in range(1, 8)], "abcdefg")
    user_MW, item_NW = torch.from_numpy(encode_sequences(model, items, prefixes)), torch.from_numpy(items)
    # item 1 is only ever a history event, but it has a training event, so it is a candidate, too
    torch.testing.assert_close(loss, full_softmax(user_MW, item_NW, torch.arange(1, 8)) / 7, rtol=1e-4, atol=1e-5)
