"""Full ranking in blocks gives what one users × items matrix would."""

import numpy as np
import pytest

from dmesr_model import ranking
from dmesr_model.metrics import pessimistic_ranks
from dmesr_model.sequences import leave_one_out


@pytest.mark.parametrize("scores_per_block", [1, 100, 10_000])
def test_blocks_do_not_matter(scores_per_block, toy_sequences, monkeypatch):
    monkeypatch.setattr(ranking, "_SCORES_PER_BLOCK", scores_per_block)
    random = np.random.default_rng(0)
    held_out = leave_one_out(toy_sequences()).test
    users, items = random.normal(size=(50, 6)), random.normal(size=(24, 6))
    seen = np.zeros((50, 24), dtype=bool)
    for user in range(50):
        seen[user, held_out.histories.history(user) - 1] = True
    expected = pessimistic_ranks(users @ items.T, held_out.target_index_H - 1, seen)
    np.testing.assert_array_equal(ranking.rank_by_inner_product(users, items, held_out), expected)
