"""The loss of a whole step: sampled losses against full ones, and training scores against what is served."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dmesr_model.alignment import alignment_loss
from dmesr_model.encoding import encode_items, encode_sequences, gatherer_for
from dmesr_model.losses import full_softmax
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.objective import LossConfig, Objective
from dmesr_model.sequences import Sequences
from dmesr_model.steps import StepBuilder
from dmesr_model.trainer import TrainConfig, step_settings

CONFIG = ModelConfig(
    views=("image", "text"), width=8, adapter_width=8, layers=1, dropout=0.0, id_dropout=0.0, input_dropout=0.0
)


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


REPEATED = [[1 + (user * 7 + step // 3) % 24 for step in range(12)] for user in range(50)]  # each item three times
SHORT_AND_LONG = [[1 + (user * user + step * step) % 24 for step in range(3 if user % 5 else 20)] for user in range(50)]
KINDS = {
    "sasrec": ({}, None),
    "cloze": ({"backbone": "bert4rec"}, None),
    "repeated events": ({}, REPEATED),
    "short and long histories": ({}, SHORT_AND_LONG),
    "windows": ({"max_length": 4}, None),
    "latest events alone": ({"max_length": 4}, None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_few_candidates_estimate_the_sum_over_items_without_bias(kind, model, toy_features, toy_sequences):
    """Over many steps, for the positions of one sequence: the sum over its own items, and over all others.

    Of all sequences, and over others of the shorter sequences alone.
    """
    changes, histories = KINDS[kind]
    sequences = toy_sequences() if histories is None else Sequences.from_histories(histories, map(str, range(50)))
    loss = LossConfig(kind="sampled_softmax", negatives=4)
    train = TrainConfig(batch_size=5, loss=loss, all_events=kind != "latest events alone")
    settings = step_settings(model.config.model_copy(update=changes), train)
    steps = StepBuilder(sequences, gatherer_for(model, toy_features()), settings)
    found = []
    for epoch in range(300):
        for position, rows in enumerate(steps.plan(epoch)[:5]):
            batch = steps.build(rows, epoch, position)
            candidate_C = batch.items.id_row_N[batch.candidates.rows_C].numpy()
            stands_for_C = np.exp(-batch.candidates.log_chance_BC[0].numpy())
            items_of_sequence = batch.items.id_row_N[batch.history_BT[0][batch.valid_BT[0]]].tolist()
            targets = batch.items.id_row_N[batch.target_M[batch.scored_M < batch.history_BT.shape[1]]].tolist()
            own_I = np.isin(np.arange(25), items_of_sequence + targets)
            estimated = stands_for_C @ own_I[candidate_C], stands_for_C @ ~own_I[candidate_C]
            counted = own_I[steps.trained_index_N].sum(), (~own_I)[steps.trained_index_N].sum()
            found.append((int(batch.valid_BT[0].sum()), *estimated, *counted))
    length_S, own_S, others_S, counted_own_S, counted_others_S = np.array(found).T
    shorter_S = length_S <= np.median(length_S)
    assert own_S.mean() == pytest.approx(counted_own_S.mean(), rel=0.03)
    assert others_S.mean() == pytest.approx(counted_others_S.mean(), rel=0.03)
    assert others_S[shorter_S].mean() == pytest.approx(counted_others_S[shorter_S].mean(), rel=0.03)


def test_each_position_has_the_chances_of_its_own_sequence(model, toy_features, toy_sequences):
    train = TrainConfig(batch_size=5, loss=LossConfig(kind="sampled_softmax", negatives=4))
    steps = StepBuilder(toy_sequences(), gatherer_for(model, toy_features()), step_settings(model.config, train))
    batch = steps.build(steps.plan(0)[0], 0, 0)
    assert len(batch.candidates.log_chance_BC.unique(dim=0)) > 1
    found = Objective(model, train.loss, 24)(batch).next_item
    tokens = model.encode_items(batch.items).streams_SND
    users_BTW = model.encode_sequences(tokens[:, batch.history_BT], batch.valid_BT, batch.masked_BT)
    losses = []
    for position, target in zip(batch.scored_M.tolist(), batch.target_M.tolist(), strict=True):
        row, step = divmod(position, batch.history_BT.shape[1])
        score_N = users_BTW[row, step] @ tokens[0].T
        others = batch.candidates.rows_C != target
        stands_for_C = (-batch.candidates.log_chance_BC[row]).exp()
        total = score_N[target].exp() + (stands_for_C * score_N[batch.candidates.rows_C].exp())[others].sum()
        losses.append(total.log() - score_N[target])
    torch.testing.assert_close(found, torch.stack(losses).mean())


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


def test_alignment_compares_the_items_drawn(model, toy_features, toy_sequences):
    train, gatherer = TrainConfig(alignment_items=20), gatherer_for(model, toy_features())
    steps = StepBuilder(toy_sequences(), gatherer, step_settings(model.config, train))
    batch = steps.build(steps.plan(0)[0], 0, 0)
    drawn = gatherer.gather(steps.trained_index_N[batch.aligned_A])
    assert len(drawn.id_row_N) == 20
    present_AV, text_id_AV = (
        torch.cat([getattr(view, name) for view in drawn.coarse], dim=1) for name in ("present_NK", "text_id_NK")
    )
    expected = alignment_loss(model.encode_items(drawn).coarse_NVD, present_AV, text_id_AV, torch.tensor(0.1))
    torch.testing.assert_close(Objective(model, train.loss, 24)(batch).alignment, expected)


def test_an_absent_view_never_reaches_alignment(model, toy_features, toy_sequences):
    before = step_loss(toy_features(), toy_sequences(), model)
    for adapter in model.items.adapters:
        torch.nn.init.normal_(adapter.absent_D)
    after = step_loss(toy_features(), toy_sequences(), model)
    assert after.next_item != before.next_item
    assert after.alignment == before.alignment


@pytest.mark.parametrize("view_of_twin", [0, 1])
def test_a_text_of_two_items_is_no_negative_of_itself(view_of_twin, model, toy_features, toy_sequences):
    """Items 8 and 9 share a text, in one view or across: a copy of its vector is a text of its own, and a negative."""
    features = toy_features()
    vectors_UE, shared_NV = features.vectors_UE.copy(), features.coarse_index_NV.copy()
    vectors_UE[shared_NV[9, view_of_twin]] = vectors_UE[shared_NV[8, 0]]
    copied = step_loss(replace(features, vectors_UE=vectors_UE), toy_sequences(), model)
    shared_NV[9, view_of_twin] = shared_NV[8, 0]
    shared = step_loss(replace(features, vectors_UE=vectors_UE, coarse_index_NV=shared_NV), toy_sequences(), model)
    torch.testing.assert_close(shared.next_item, copied.next_item)
    assert shared.alignment < copied.alignment - 1e-3


def test_a_temperature_at_its_bound_has_a_gradient_still(model, toy_features, toy_sequences):
    assert float(model.log_temperature.detach().exp()) == pytest.approx(0.1)
    torch.nn.init.constant_(model.log_temperature, -9)
    model.bound_temperature()
    assert float(model.log_temperature.detach().exp()) == pytest.approx(0.01)
    step_loss(toy_features(), toy_sequences(), model, kind="softmax").total.backward()
    assert model.log_temperature.grad < 0  # views that are not alike yet ask for a higher one


@pytest.mark.parametrize("fusion", ["item", "sequence"])
def test_training_scores_what_is_served(fusion, toy_features):
    """One user: the loss is that of the served vectors' inner products, prefix by prefix."""
    features = toy_features(items=8)
    changes = {"fusion": fusion, "alignment_weight": 0.0}
    model = DMESR(CONFIG.model_copy(update=changes), 12, features.item_ids)
    history = [1, 2, 3, 4, 5, 6, 7, 8]
    loss = step_loss(features, Sequences.from_histories([history], "a"), model, kind="softmax").next_item
    items = encode_items(model, features)
    prefixes = Sequences.from_histories([history[:length] for length in range(1, 8)], "abcdefg")
    user_MW, item_NW = torch.from_numpy(encode_sequences(model, items, prefixes)), torch.from_numpy(items)
    # item 1 is only ever a history event, but it has a training event, so it is a candidate, too
    torch.testing.assert_close(loss, full_softmax(user_MW, item_NW, torch.arange(1, 8)) / 7, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["item", "sequence"])
def test_bert4rec_is_served_as_trained(fusion, toy_features):
    """One user's history, cut at random events that are masked: the loss is that of the served vectors."""
    features = toy_features(items=8)
    changes = {"backbone": "bert4rec", "fusion": fusion, "alignment_weight": 0.0}
    model = DMESR(CONFIG.model_copy(update=changes), 12, features.item_ids)
    torch.nn.init.normal_(model.mask_SD)
    torch.nn.init.normal_(model.last_mask_SD)
    train = TrainConfig(mask_share=0.0, mask_last_share=0.999)
    history = Sequences.from_histories([[1, 2, 3, 4, 5, 6, 7, 8]], "a")
    steps = StepBuilder(history, gatherer_for(model, features), step_settings(model.config, train))
    batch = steps.build(steps.plan(0)[0], 0, 0)
    last_B = batch.valid_BT.sum(dim=1) - 1
    assert len(last_B.unique()) > 1
    items = encode_items(model, features)
    before = Sequences.from_histories([range(1, int(last) + 1) for last in last_B], "abcd")
    user_BW, item_NW = torch.from_numpy(encode_sequences(model, items, before)), torch.from_numpy(items)
    loss = Objective(model, train.loss, 8)(batch).next_item
    torch.testing.assert_close(loss, full_softmax(user_BW, item_NW, last_B) / 4, rtol=1e-4, atol=1e-5)
