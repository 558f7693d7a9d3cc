"""Histories and their split into training, validation and test events."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmesr_model.sequences import (
    Sequences,
    count_events,
    cut_into_windows,
    hold_out_last,
    leave_one_out,
    select_users,
)

HISTORIES = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=6)


def build(histories):
    return Sequences.from_histories(histories, [str(user) for user in range(len(histories))])


def test_leave_one_out_by_hand():
    split = leave_one_out(build([[1, 2, 3, 4], [5], [6, 7], [8, 9, 1]]))
    assert [split.train.history(user).tolist() for user in range(4)] == [[1, 2], [5], [6, 7], [8]]
    assert split.validation.histories.user_ids == split.test.histories.user_ids == ("0", "3")
    assert [split.validation.histories.history(user).tolist() for user in range(2)] == [[1, 2], [8]]
    assert split.validation.target_index_H.tolist() == [3, 9]
    assert [split.test.histories.history(user).tolist() for user in range(2)] == [[1, 2, 3], [8, 9]]
    assert split.test.target_index_H.tolist() == [4, 1]


def test_hold_out_last_by_hand():
    train, validation = hold_out_last(build([[1, 2, 3], [5], [6, 7]]))
    assert [train.history(user).tolist() for user in range(3)] == [[1, 2], [5], [6]]
    assert validation.histories.user_ids == ("0", "2")
    assert validation.target_index_H.tolist() == [3, 7]


@given(HISTORIES)
def test_no_event_is_lost_or_used_twice(histories):
    split = leave_one_out(build(histories))
    validation, test = split.validation.target_index_H, split.test.target_index_H
    held = dict(zip(split.test.histories.user_ids, zip(validation, test, strict=True), strict=True))
    for user, history in enumerate(histories):
        rest = [int(item) for item in held.get(str(user), ())]
        assert split.train.history(user).tolist() + rest == history
        assert (str(user) in held) == (len(history) >= 3)


def test_windows_by_hand():
    windows = cut_into_windows(build([[1, 2, 3, 4, 5, 6], [7, 8], [9], []]), most=3, shared=1)
    assert [windows.history(row).tolist() for row in range(windows.user_count)] == [
        [4, 5, 6], [2, 3, 4], [1, 2], [7, 8], [9], []
    ]  # fmt: skip
    assert windows.user_ids == ("0", "0", "0", "1", "2", "3")


@given(HISTORIES, st.integers(2, 5))
def test_windows_hold_each_step_of_a_history_once(histories, most):
    windows = cut_into_windows(build(histories), most, shared=1)
    pairs = [pair for row in range(windows.user_count) for pair in pairwise(windows.history(row).tolist())]
    assert sorted(pairs) == sorted(pair for history in histories for pair in pairwise(history))
    apart = cut_into_windows(build(histories), most, shared=0)
    assert sorted(apart.item_index.tolist()) == sorted(item for history in histories for item in history)


def test_popularity_counts_training_events_only():
    split = leave_one_out(build([[1, 1, 2, 3], [3]]))
    assert count_events(split.train, item_count=4).tolist() == [0, 2, 0, 1, 0]


def test_events_of_unknown_items_are_dropped():
    sequences = Sequences.from_events(["a", "b", "a", "c"], ["x", "y", "z", "gone"], ["z", "y", "x"])
    assert sequences.user_ids == ("a", "b")
    assert [sequences.history(user).tolist() for user in range(2)] == [[3, 1], [2]]


def test_ids_are_compared_as_texts():
    sequences = Sequences.from_events([7, 7, 8], [1, 2, 3], ("1", "2", "3"))
    assert sequences.user_ids == ("7", "8") and sequences.history(0).tolist() == [1, 2]


def test_saved_sequences_come_back(tmp_path):
    sequences = build([[1, 2], [3]])
    sequences.save(tmp_path)
    opened = Sequences.open(tmp_path)
    assert opened.user_ids == ("0", "1")
    assert opened.history(0).tolist() == [1, 2]
    assert opened.history(1).tolist() == [3]


@given(HISTORIES, st.randoms())
def test_select_users_keeps_their_histories(histories, random):
    users = np.array(random.sample(range(len(histories)), k=len(histories)))
    chosen = select_users(build(histories), users)
    assert [chosen.history(row).tolist() for row in range(len(users))] == [histories[user] for user in users]


def test_wrong_arrays_are_refused():
    with pytest.raises(ValueError, match="PAD_INDEX"):
        build([[0, 1]])
    with pytest.raises(ValueError, match="offsets"):
        Sequences(np.array([0, 3]), np.array([1, 2], np.int32), ("a",))
    with pytest.raises(ValueError, match="offsets"):
        Sequences(np.array([0, 2]), np.array([1, 2], np.int32), ("a", "b"))


def test_no_users():
    split = leave_one_out(build([]))
    assert split.train.user_count == 0
    assert len(split.test.target_index_H) == 0
