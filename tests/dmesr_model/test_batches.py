"""Which events go into a step, by hand and as properties."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dmesr_model.batches import causal_batch, cloze_batch, pad_histories, plan_epoch, rows_of, unique_items
from dmesr_model.sequences import Sequences

HISTORIES = st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=8), min_size=1, max_size=6)


def build(histories):
    return Sequences.from_histories(histories, [str(user) for user in range(len(histories))])


def test_causal_batch_by_hand():
    batch = causal_batch(build([[1, 2, 3, 4, 5], [6, 7]]), np.array([0, 1]), max_length=3)
    assert batch.history_BT.tolist() == [[2, 3, 4], [6, 0, 0]]
    assert batch.target_BT.tolist() == [[3, 4, 5], [7, 0, 0]]
    assert not batch.masked_BT.any()


@given(HISTORIES, st.integers(2, 9), st.integers(0, 99))
def test_cloze_targets_are_masked_events(histories, longest, seed):
    users = np.arange(len(histories))
    batch = cloze_batch(build(histories), users, longest, 0.3, 0.5, np.random.default_rng(seed))
    assert batch.masked_BT.any(axis=1).all()
    np.testing.assert_array_equal(batch.target_BT, np.where(batch.masked_BT, batch.history_BT, 0))
    assert not (batch.masked_BT & (batch.history_BT == 0)).any()


def test_cloze_sequences_can_end_at_any_event_but_the_first_and_mask_it():
    sequences, users = build([[1, 2, 3], [4, 5]]), np.array([0, 1])
    draws = [cloze_batch(sequences, users, 5, 0.0, 1.0, np.random.default_rng(seed)) for seed in range(20)]
    assert {str(batch.history_BT.tolist()) for batch in draws} == {"[[1, 2, 3], [4, 5, 0]]", "[[1, 2], [4, 5]]"}
    assert {str(batch.target_BT.tolist()) for batch in draws} == {"[[0, 0, 3], [0, 5, 0]]", "[[0, 2], [0, 5]]"}


def test_cloze_masks_elsewhere_too():
    batch = cloze_batch(build([[1, 2, 3]]), np.array([0]), 5, 1.0, 1.0, np.random.default_rng(0))
    assert batch.masked_BT.all() and batch.target_BT.tolist() == batch.history_BT.tolist()


def test_cloze_masks_the_share_asked_for_and_at_least_one_anywhere():
    sequences, users = build([[*range(1, 10)]] * 300), np.arange(300)
    shares = [
        cloze_batch(sequences, users, 9, share, 0.0, np.random.default_rng(0)).masked_BT.mean(axis=0)
        for share in (0.4, 0.0)
    ]
    np.testing.assert_allclose(shares[0], 0.4, atol=0.1)
    np.testing.assert_allclose(shares[1], 1 / 9, atol=0.06)


@given(HISTORIES, st.integers(1, 9))
def test_padding_keeps_the_most_recent_events(histories, longest):
    padded = pad_histories(build(histories), np.arange(len(histories)), longest)
    for row, history in zip(padded, histories, strict=True):
        kept = history[-longest:]
        assert row.tolist() == kept + [0] * (len(row) - len(kept))


def test_no_history_is_padding_only():
    assert pad_histories(build([[], []]), np.array([0, 1]), 4).tolist() == [[0], [0]]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=50), st.integers(1, 7), st.integers(0, 9))
def test_an_epoch_has_every_trainable_user_once(lengths, batch_size, epoch):
    lengths = np.array(lengths)
    plan = plan_epoch(lengths, batch_size, max_length=10, seed=1, epoch=epoch)
    assert sorted(user for users in plan for user in users) == np.flatnonzero(lengths >= 2).tolist()
    assert all(len(users) <= batch_size for users in plan)
    again = plan_epoch(lengths, batch_size, max_length=10, seed=1, epoch=epoch)
    assert [users.tolist() for users in again] == [users.tolist() for users in plan]


def test_seed_and_epoch_each_decide_the_order_and_batches_hold_little_padding():
    lengths = np.repeat(np.arange(2, 18), 10)  # ten users of each length
    plans = [plan_epoch(lengths, 10, max_length=20, seed=seed, epoch=epoch) for seed, epoch in ((1, 0), (2, 0), (1, 1))]
    for plan in plans:
        assert all(len(set(lengths[users])) == 1 for users in plan)
    assert len({str([lengths[users[0]] for users in plan]) for plan in plans}) == 3
    assert len({str([users.tolist() for users in sorted(plan, key=min)]) for plan in plans}) == 3


def test_rows_point_into_the_unique_items():
    unique = unique_items(np.array([[7, 0], [3, 7]]), np.array([5]))
    assert unique.tolist() == [3, 5, 7]
    assert rows_of(np.array([7, 3, 5]), unique).tolist() == [2, 0, 1]
