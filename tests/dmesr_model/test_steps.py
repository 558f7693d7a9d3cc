"""A step encodes its own unique items, whatever the size of the catalog."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from dmesr_model.encoding import gatherer_for
from dmesr_model.features import ItemFeatures
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.objective import LossConfig, Objective
from dmesr_model.sequences import Sequences
from dmesr_model.steps import StepBuilder, StepSettings
from dmesr_model.trainer import TrainConfig, step_settings

CATALOG, WIDTH, SEGMENTS = 50_000, 16, 4


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    rows = np.arange(CATALOG * 6, dtype=np.int32).reshape(CATALOG, 6)
    vectors = random.normal(size=(CATALOG * 6, WIDTH)).astype(np.float32)
    ids = tuple(str(position) for position in range(CATALOG))
    ItemFeatures(ids, ("image", "text"), vectors, rows[:, :2], rows[:, 2:]).save(folder)
    histories = random.integers(1, CATALOG + 1, size=(2000, 10)).tolist()
    return ItemFeatures.open(folder), Sequences.from_histories(histories, [str(user) for user in range(2000)])


def builder(large, loss, backbone="sasrec", **loss_settings):
    features, sequences = large
    config = ModelConfig(backbone=backbone, views=("image", "text"), width=8, adapter_width=8, max_length=12)
    model = DMESR(config, WIDTH, features.item_ids)
    train = TrainConfig(batch_size=32, loss=LossConfig(kind=loss, **loss_settings))
    return model, StepBuilder(sequences, gatherer_for(model, features), step_settings(config, train)), train


@pytest.mark.parametrize("loss", ["sampled_softmax", "bce", "gbce"])
def test_sampled_steps_encode_their_unique_items_only(large, loss):
    model, steps, train = builder(large, loss, negatives=100)
    encoded = []
    model.items.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0]))
    Objective(model, train.loss, CATALOG)(steps.build(steps.plan(0)[0], 0, 0))
    (items,) = encoded
    most = 32 * 10 + 100  # events of the batch, and negatives
    assert 100 < len(items.id_row_N) <= most
    assert len(items.id_row_N.unique()) == len(items.id_row_N)
    assert all(len(rows.vectors_RE) <= most for rows in items.coarse)
    assert len(items.segments.vectors_RE) <= most * SEGMENTS


@pytest.mark.parametrize(("loss", "own"), [("sampled_softmax", True), ("bce", False), ("gbce", False)])
def test_only_sampled_softmax_compares_with_items_of_the_step(large, loss, own):
    _, steps, _ = builder(large, loss, negatives=100)
    batch = steps.build(steps.plan(0)[0], 0, 0)
    assert (len(batch.candidates.rows_C) > 100) is own
    assert len(batch.candidates.rows_C) <= 200


@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec"])
def test_processes_have_the_same_candidates_and_share_out_their_chances(large, backbone):
    model, alone, train = builder(large, "sampled_softmax", backbone, negatives=50)
    rows = alone.plan(0)[0]
    whole = alone.build(rows, 0, 0)
    copies = len(whole.history_BT) // len(rows)  # bert4rec shows each sequence several times
    item_of = lambda batch: batch.items.id_row_N[batch.candidates.rows_C]  # noqa: E731
    for rank in range(2):
        steps = StepBuilder(large[1], alone.gatherer, step_settings(model.config, train), rank, 2)
        part = steps.build(rows, 0, 0)
        own_B = np.arange(len(whole.history_BT)) // copies % 2 == rank
        assert torch.equal(item_of(part), item_of(whole))
        assert torch.equal(part.masked_BT, whole.masked_BT[own_B])
        assert torch.equal(part.candidates.log_chance_BC, whole.candidates.log_chance_BC[own_B])


def test_copies_of_a_sequence_are_masked_anew_and_know_of_each_other(large):
    _, steps, train = builder(large, "sampled_softmax", "bert4rec", negatives=2000)  # all items of the step are kept
    rows = steps.plan(0)[0]
    batch = steps.build(rows, 0, 0)
    item_of, copies = batch.items.id_row_N, train.mask_copies
    assert len(batch.history_BT) == len(rows) * copies == 32 * 4
    masks_BT = batch.masked_BT.numpy()
    assert (
        sum(len({*map(bytes, masks_BT[first : first + copies])}) > 1 for first in range(0, len(masks_BT), copies)) > 24
    )
    for first in range(0, len(masks_BT), copies):
        shown = slice(first, first + copies)
        own = set(item_of[batch.history_BT[shown][batch.valid_BT[shown]]].tolist())
        for log_chance_C in batch.candidates.log_chance_BC[shown]:
            assert set(item_of[batch.candidates.rows_C[log_chance_C == 0]].tolist()) == own


def test_own_items_are_events_and_targets(large):
    _, steps, _ = builder(large, "sampled_softmax", negatives=2000)  # all items of the step are kept
    batch = steps.build(steps.plan(0)[0], 0, 0)
    item_of = batch.items.id_row_N
    certain_BC = batch.candidates.log_chance_BC == 0
    last = 0
    for row, (history_T, valid_T) in enumerate(zip(batch.history_BT, batch.valid_BT, strict=True)):
        targets = item_of[batch.target_M[batch.scored_M // batch.history_BT.shape[1] == row]].tolist()
        own = {*item_of[history_T[valid_T]].tolist(), *targets}
        assert set(item_of[batch.candidates.rows_C[certain_BC[row]]].tolist()) == own
        last += targets[-1] not in item_of[history_T[valid_T]].tolist()
    assert last > 0


def test_a_step_can_be_rebuilt_alone(large):
    _, steps, _ = builder(large, "sampled_softmax", negatives=50)
    _, again, _ = builder(large, "sampled_softmax", negatives=50)
    drawn = []
    for position in (0, 3):
        one = steps.build(steps.plan(2)[position], 2, position)
        two = again.build(again.plan(2)[position], 2, position)
        assert all(torch.equal(value, other) for value, other in zip(tensors_of(one), tensors_of(two), strict=True))
        drawn.append(one.items.id_row_N[one.candidates.rows_C].tolist())
    again.settings = replace(again.settings, seed=1)
    for reseeded, epoch, position in ((steps, 2, 4), (steps, 1, 3), (again, 2, 3)):  # of the same users
        other = reseeded.build(steps.plan(2)[3], epoch, position)
        drawn.append(other.items.id_row_N[other.candidates.rows_C].tolist())
    assert len({*map(tuple, drawn)}) == 5


def tensors_of(batch):
    sources = [*batch.items.coarse, batch.items.segments]
    parts = [batch.history_BT, batch.target_M, *vars(batch.candidates).values(), batch.aligned_A, batch.items.id_row_N]
    return parts + [tensor for source in sources for tensor in vars(source).values()]


def test_steps_built_ahead_are_the_same(large):
    _, steps, _ = builder(large, "sampled_softmax", negatives=50)
    plan = steps.plan(1)
    ahead = list(steps.build_ahead(plan, epoch=1, first=len(plan) - 3))
    assert len(ahead) == 3
    for batch, position in zip(ahead, range(len(plan) - 3, len(plan)), strict=True):
        alone = steps.build(plan[position], 1, position)
        assert all(torch.equal(one, two) for one, two in zip(tensors_of(batch), tensors_of(alone), strict=True))


def test_what_fails_ahead_is_told(large):
    _, steps, _ = builder(large, "sampled_softmax")
    with pytest.raises(IndexError):
        list(steps.build_ahead([np.array([10**6])], epoch=0, first=0))


def test_the_configs_decide_a_step():
    train = {"seed": 7, "batch_size": 3, "all_events": False, "alignment_items": 5, "loss": LossConfig(negatives=9)}
    cloze = {"mask_share": 0.4, "mask_last_share": 0.6, "mask_copies": 2}
    settings = step_settings(ModelConfig(backbone="bert4rec", max_length=11), TrainConfig(**train, **cloze))
    assert settings == StepSettings(bidirectional=True, max_length=11, **train, **cloze)
    assert not step_settings(ModelConfig(backbone="gru4rec"), TrainConfig()).bidirectional


@pytest.mark.parametrize("kept_on_device", [False, True])
def test_gathered_vectors_are_those_of_the_table(large, kept_on_device):
    features, (_, steps, _) = large[0], builder(large, "sampled_softmax")
    if kept_on_device:
        steps.gatherer.keep_on(torch.device("cpu"))
    items = np.array([7, 1, 3, 40_000])
    read = steps.gatherer.gather(items)
    tables = [*np.split(features.coarse_index_NV, 2, axis=1), features.segment_index_NL]
    for source, index_NK in zip([*read.coarse, read.segments], tables, strict=True):
        assert source.present_NK.all()
        assert source.vectors_RE[source.row_NK].tolist() == features.vectors_UE[index_NK[items - 1]].tolist()


@pytest.mark.parametrize(
    ("backbone", "all_events", "targets", "histories"),
    [
        ("sasrec", True, [2, 3, 4, 5, 6], [1, 1, 2, 1, 1, 1]),
        ("sasrec", False, [4, 5, 6], [0, 0, 1, 1, 1, 1]),
        ("bert4rec", True, [1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]),
        ("bert4rec", False, [4, 5, 6], [0, 0, 0, 1, 1, 1]),
    ],
)
def test_every_event_of_a_long_history_trains(toy_features, backbone, all_events, targets, histories):
    features = toy_features()
    config = ModelConfig(backbone=backbone, views=(), use_segments=False, width=8, max_length=3)
    train = TrainConfig(all_events=all_events, mask_share=1.0, mask_last_share=0.0, mask_copies=1)
    sequences = Sequences.from_histories([[1, 2, 3, 4, 5, 6]], ["a"])
    gatherer = gatherer_for(DMESR(config, 12, features.item_ids), features)
    steps = StepBuilder(sequences, gatherer, step_settings(config, train))
    batches = [steps.build(rows, 0, step) for step, rows in enumerate(steps.plan(0))]
    trained = np.concatenate([steps.trained_index_N[batch.target_M.numpy()] for batch in batches])
    assert sorted(trained.tolist()) == targets
    holding_N = [
        int(steps.history_counts.histories_X[start:end].sum()) for start, end in pairwise(steps.history_counts.offsets)
    ]
    assert holding_N[1:7] == histories  # two windows of a causal backbone share an event


def test_loss_candidates_are_items_with_training_events(toy_features):
    features = toy_features()
    config = ModelConfig(views=(), use_segments=False, width=8)
    sequences = Sequences.from_histories([[3, 9, 3], [9, 5]], ["a", "b"])
    gatherer = gatherer_for(DMESR(config, 12, ["item-2", "item-4", "item-8"]), features)
    steps = StepBuilder(sequences, gatherer, step_settings(config, TrainConfig()))
    batch = steps.build(steps.plan(0)[0], 0, 0)
    assert steps.trained_index_N.tolist() == [3, 5, 9]
    assert batch.items.id_row_N.tolist() == [1, 2, 3]
    assert batch.candidates is None
    assert batch.item_share == 1
    assert sorted(batch.target_M.tolist()) == [0, 1, 2]  # 3, 5 and 9 each follow something


def test_processes_share_out_a_step(large):
    features, sequences = large
    config = ModelConfig(views=("image", "text"), width=8)
    train = TrainConfig(batch_size=32, loss=LossConfig(kind="gbce", negatives=20), alignment_items=100)
    gatherer = gatherer_for(DMESR(config, WIDTH, features.item_ids), features)
    parts = [StepBuilder(sequences, gatherer, step_settings(config, train), rank, 2) for rank in range(2)]
    batches = [part.build(part.plan(0)[0], 0, 0) for part in parts]
    assert [len(batch.history_BT) for batch in batches] == [16, 16]
    assert batches[0].target_count == batches[1].target_count == sum(len(batch.target_M) for batch in batches)
    everything = set().union(*(batch.items.id_row_N.tolist() for batch in batches))
    share = len(everything) / len(parts[0].trained_index_N)
    assert [batch.item_share for batch in batches] == [share, share]
    aligned = [set(batch.items.id_row_N[batch.aligned_A].tolist()) for batch in batches]
    assert not aligned[0] & aligned[1]
    assert len(aligned[0] | aligned[1]) == 100
    assert max(aligned[0] | aligned[1]) > 0.9 * CATALOG  # drawn, not the first ones
