"""Full ranking in blocks gives what one users × items matrix would."""

import numpy as np
import pytest
import torch

from dmesr_model import ranking
from dmesr_model.metrics import pessimistic_ranks
from dmesr_model.sequences import HeldOut, Sequences, leave_one_out


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


@pytest.mark.parametrize("count", [60, 600])
def test_equal_items_tie_whatever_the_product_of_matrices_rounds_them_to(count):
    random = np.random.default_rng(2)
    items = np.tile(random.normal(size=(1, 64)), (count, 1)).astype(np.float32)
    users = random.normal(size=(500, 64)).astype(np.float32)
    histories = [[1 + user % count] for user in range(500)]
    targets = np.array([1 + (user + 7) % count for user in range(500)], dtype=np.int32)
    held_out = HeldOut(Sequences.from_histories(histories, [str(user) for user in range(500)]), targets)
    assert (ranking.rank_by_inner_product(users, items, held_out) == count - 1).all()
    seen = torch.arange(500), torch.arange(500) % count
    ranks = ranking.rank_in_torch(torch.tensor(items), torch.tensor(users), torch.tensor(targets - 1).long(), *seen)
    assert (ranks == count - 1).all()


def test_an_item_that_scores_less_by_no_more_than_rounding_ties():
    items = np.array([[1, 0], [1 - 5e-7, 0], [1 - 5e-6, 0]], dtype=np.float32)
    held_out = HeldOut(Sequences.from_histories([[], []], "uv"), np.array([1, 2], dtype=np.int32))
    users = np.ones((2, 2), dtype=np.float32)
    assert ranking.rank_by_inner_product(users, items, held_out).tolist() == [2, 2]
    nothing_seen = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    parts = torch.tensor(items), torch.tensor(users), torch.tensor([0, 1])
    assert ranking.rank_in_torch(*parts, *nothing_seen).tolist() == [2, 2]


def test_a_gpu_ranks_as_numpy_does():
    """Few levels of score, so that ties are many; some targets are seen ones; NaN in one user's vector."""
    random = np.random.default_rng(0)
    users, items = (
        random.integers(-2, 3, size=(30, 2)).astype(float),
        random.integers(-2, 3, size=(40, 2)).astype(float),
    )
    users[4, 0] = np.nan
    targets, seen = random.integers(40, size=30), random.random((30, 40)) < 0.3
    rows, columns = np.nonzero(seen)
    parts = [torch.from_numpy(part) for part in (items, users, targets, rows, columns)]
    ranks = ranking.rank_in_torch(*parts).numpy()
    expected = pessimistic_ranks(users @ items.T, targets, seen)
    finite = np.arange(30) != 4
    np.testing.assert_array_equal(ranks[finite], expected[finite])
    assert ranks[4] >= expected[4] == 40 - seen[4].sum() + seen[4, targets[4]]
