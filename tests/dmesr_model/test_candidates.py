"""Candidates of a sampled loss: who can be one, and how likely."""

import numpy as np
import pytest

from dmesr_model.candidates import draw_candidates

TRAINED = np.array([1, 2, 4, 5, 7, 8, 9, 10])  # items 3 and 6 have no training event
HISTORIES = np.array([5, 1, 2, 9, 3, 1, 4, 7])
NONE = np.zeros(0, dtype=np.int64)


def draw(step_items, negatives, share=0.25, seed=0):
    random = np.random.default_rng(seed)
    return draw_candidates(TRAINED, HISTORIES, np.asarray(step_items), share, negatives, random)


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
