"""Candidates of a sampled loss: who can be one, and how likely."""

import numpy as np
import pytest

from dmesr_model.candidates import HistoryCounts, draw_candidates
from dmesr_model.sequences import Sequences

TRAINED = np.array([1, 2, 4, 5, 7, 8, 9, 10])  # items 3 and 6 have no training event
HISTORIES = np.array([5, 1, 2, 9, 3, 1, 4, 7])
COUNTS = HistoryCounts(  # all of one length, 1
    offsets=np.searchsorted(TRAINED, np.arange(12)),
    length_X=np.ones(8, dtype=np.int64),
    histories_X=HISTORIES,
    pairs_L=np.array([0, HISTORIES.sum()]),
)
NONE = np.zeros(0, dtype=np.int64)


def draw(step_items, negatives, share=0.25, seed=0):
    random = np.random.default_rng(seed)
    return draw_candidates(TRAINED, COUNTS, np.asarray(step_items), np.full(2, share), negatives, random)


def test_without_items_of_the_step_all_have_the_same_chance():
    found = draw(NONE, negatives=4)
    assert len(set(found.item_index_C.tolist())) == 4
    assert set(found.item_index_C.tolist()) <= set(TRAINED.tolist())
    assert found.chance_C == pytest.approx([0.5] * 4)


def test_as_many_as_there_are_is_everyone():
    found = draw([4, 9], negatives=99)
    assert found.item_index_C.tolist() == TRAINED.tolist()
    assert found.chance_C == pytest.approx([1] * 8)
    assert found.own_chance == 1


def test_chance_by_hand():
    found = draw([1, 2, 4, 5], negatives=2, seed=3)
    chance_of = dict(zip(found.item_index_C.tolist(), found.chance_C, strict=True))
    histories_of = dict(zip(TRAINED.tolist(), HISTORIES, strict=True))
    for item, chance in chance_of.items():
        in_step = 1 - 0.75 ** histories_of[item]
        assert chance == pytest.approx(1 - (1 - in_step / 2) * (1 - 2 / 8))  # half of the four are kept
    assert found.own_chance == pytest.approx(1 - (1 - 1 / 2) * (1 - 2 / 8))
    assert 2 <= len(chance_of) <= 4


@pytest.mark.parametrize("negatives", [2, 4])
def test_the_sum_over_items_is_estimated_without_bias(negatives):
    """An item is in a step unless none of its histories is, each with chance 0.25."""
    values = np.array([5.0, 1.0, 2.0, 0.5, 3.0, 0.1, 4.0, 1.5])
    random = np.random.default_rng(1)
    estimates = []
    for step in range(6000):
        shown = TRAINED[random.random(len(TRAINED)) < 1 - 0.75**HISTORIES]
        found = draw(shown, negatives, seed=step)
        estimates.append((values[np.searchsorted(TRAINED, found.item_index_C)] / found.chance_C).sum())
    assert np.mean(estimates) == pytest.approx(values.sum(), rel=0.05)


def test_holders_are_counted_by_length():
    histories = [[1, 2, 2], [2, 1, 3], [3, 2], [4], [2, 1, 2, 3, 2]]  # no history with a lone event; repeats once
    history_counts = HistoryCounts.count(Sequences.from_histories(histories, "abcde"), item_count=5, most=3)
    entries = list(zip(history_counts.length_X.tolist(), history_counts.histories_X.tolist(), strict=True))
    of_item = [
        entries[start:end] for start, end in zip(history_counts.offsets, history_counts.offsets[1:], strict=False)
    ]
    assert of_item == [[], [(3, 2)], [(2, 1), (3, 3)], [(2, 1), (3, 2)], [], []]  # of the last its latest 3 events
    assert history_counts.pairs_L.tolist() == [0, 0, 2, 7]


def test_an_item_is_in_a_step_as_likely_as_histories_of_the_steps_lengths_hold_it():
    histories = [[1, 2], [1, 3], [1, 2], [3, 2], [4, 5, 4], [4, 5, 3]]
    history_counts = HistoryCounts.count(Sequences.from_histories(histories, "abcdef"), item_count=5, most=3)
    chance_C = history_counts.chance_in_step(np.array([1, 3, 4, 5]), share_L=np.array([0, 0, 0.25, 0]))
    assert chance_C == pytest.approx([1 - 0.75**3, 1 - 0.75**2, 0, 0])
    assert history_counts.chance_in_step(np.array([4, 1]), share_L=np.array([0, 0, 0, 1])).tolist() == [1, 0]
    share_L = history_counts.share_of_others(shown_L=np.array([0, 0, 4, 0]), sequences=2)
    assert share_L == pytest.approx([0, 0, 2 / 6, 0])  # one of the other three histories
    assert history_counts.share_of_others(np.array([0, 0, 0, 2]), sequences=1).tolist() == [0, 0, 0, 0]
