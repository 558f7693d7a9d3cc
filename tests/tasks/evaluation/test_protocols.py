import numpy as np
import pytest

from dmesr_model.metrics import pessimistic_ranks
from dmesr_model.sequences import HeldOut, Sequences
from storage import vector_index
from storage.vector_index import NO_ROW, VectorIndex
from tasks.evaluation import protocols
from tasks.evaluation.protocols import (
    MISSED,
    HeldOutUsers,
    draw_negatives,
    rank_among_all,
    rank_among_negatives,
    seen_rows,
)


def held_out(histories: list[list[int]], targets: list[int], item_count: int) -> HeldOutUsers:
    """Histories and targets by item_index, which starts at 1."""
    sequences = Sequences.from_histories(histories, [f"u{user}" for user in range(len(histories))])
    return HeldOutUsers.of(HeldOut(sequences, np.array(targets, dtype=np.int32)), item_count)


def test_seen_rows_are_distinct_and_without_the_target() -> None:
    users = held_out([[3, 1, 3], [2], [1, 2]], [4, 1, 2], item_count=4)
    assert [users.seen.of(user).tolist() for user in range(3)] == [[0, 2], [1], [0]]
    histories = Sequences.from_histories([[], [2, 2]], ["a", "b"])
    assert [seen_rows(histories).of(user).tolist() for user in range(2)] == [[], [1]]


def test_ties_count_against_the_target_and_seen_items_do_not_count() -> None:
    # Scores 5, 4, 4, 4, 1. Target row 2, row 0 seen: rows 1 and 3 tie, so rank 3. Unseen best: 1, 2, 3, then 4.
    items = np.array([[5], [4], [4], [4], [1]], dtype=np.float32)
    index = VectorIndex(items)
    users = held_out([[1]], [3], item_count=5)
    ranking = rank_among_all(index, items, np.ones((1, 1), np.float32), users, np.array([0]), depth=5)
    assert ranking.rank_B.tolist() == [3]
    assert sorted(ranking.best_BK[0, :3].tolist()) == [1, 2, 3]
    assert ranking.best_BK[0, 3:].tolist() == [4, NO_ROW]
    # With depth 2 the rank 3 is beyond it.
    ranking = rank_among_all(index, items, np.ones((1, 1), np.float32), users, np.array([0]), depth=2)
    assert ranking.rank_B.tolist() == [MISSED]


def test_one_item_ranks_first() -> None:
    items = np.ones((1, 1), dtype=np.float32)
    users = held_out([[]], [1], item_count=1)
    ranking = rank_among_all(VectorIndex(items), items, np.ones((1, 1), np.float32), users, np.array([0]), depth=20)
    assert ranking.rank_B.tolist() == [1]
    assert rank_among_negatives(np.ones((1, 1)), np.ones((1, 1)), users, np.array([0]), 100, 0).tolist() == [1]


@pytest.mark.parametrize("count", [60, 600])
def test_equal_items_tie_whatever_the_product_of_matrices_rounds_them_to(count: int) -> None:
    random = np.random.default_rng(2)
    items = np.tile(random.normal(size=(1, 64)), (count, 1)).astype(np.float32)
    vectors = random.normal(size=(500, 64)).astype(np.float32)
    users = held_out(
        [[1 + user % count] for user in range(500)], [1 + (user + 7) % count for user in range(500)], count
    )
    ranks = rank_among_all(VectorIndex(items), items, vectors, users, np.arange(500), depth=20).rank_B
    assert (ranks == MISSED).all()
    assert (rank_among_negatives(items, vectors, users, np.arange(500), 30, seed=1) == 31).all()


@pytest.mark.parametrize("largest_fetch", [4, 1024], ids=["selector", "over-fetch"])
def test_equals_brute_force(largest_fetch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_index, "_LARGEST_FETCH", largest_fetch)
    random = np.random.default_rng(1)
    # Small whole numbers make many ties; one user has seen all but the target and one more.
    items = random.integers(-2, 3, size=(40, 3)).astype(np.float32)
    vectors = random.integers(-2, 3, size=(50, 3)).astype(np.float32)
    histories = [random.choice(40, size=random.integers(1, 30), replace=False) + 1 for _ in range(50)]
    histories[7] = np.arange(2, 40)
    targets = random.integers(1, 41, size=50)
    users = held_out([history.tolist() for history in histories], targets.tolist(), 40)
    ranking = rank_among_all(VectorIndex(items), items, vectors, users, np.arange(50), depth=10)
    seen = np.zeros((50, 40), dtype=bool)
    for user, history in enumerate(histories):
        seen[user, history - 1] = True
    wanted = pessimistic_ranks(vectors @ items.T, targets - 1, seen)
    assert ranking.rank_B.tolist() == np.where(wanted > 10, MISSED, wanted).tolist()
    assert not np.take_along_axis(seen, np.maximum(ranking.best_BK, 0), 1)[
        (ranking.best_BK != NO_ROW) & (ranking.best_BK != (targets - 1)[:, None])
    ].any()

    sampled = rank_among_negatives(items, vectors, users, np.arange(50), negatives=8, seed=3)
    for user in range(50):
        negatives = draw_negatives(users, user, 8, seed=3)
        scores = items @ vectors[user]
        assert sampled[user] == 1 + sum(scores[row] >= scores[targets[user] - 1] for row in negatives)


def test_negatives_are_distinct_unseen_and_uniform() -> None:
    # 6 items, seen rows 0 and 3, target row 4: rows 1, 2, 5 are free.
    users = held_out([[1, 4]] * 3000, [5] * 3000, item_count=6)
    counts = np.zeros(6, dtype=int)
    for user in range(3000):
        drawn = draw_negatives(users, user, 2, seed=0)
        assert len(set(drawn.tolist())) == 2
        counts[drawn] += 1
    assert counts[[0, 3, 4]].tolist() == [0, 0, 0]
    # 3000 draws of 2 of 3: 2000 each, with a standard deviation of 26.
    assert np.abs(counts[[1, 2, 5]] - 2000).max() < 130
    assert draw_negatives(users, 0, 100, seed=0).tolist() == [1, 2, 5]


def test_negatives_depend_on_seed_and_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    users = held_out([[1]] * 3, [2] * 3, item_count=500)
    before = draw_negatives(users, 2, 100, seed=0).tolist()
    monkeypatch.setattr(protocols, "_USERS_PER_BLOCK", 1)
    assert [block.tolist() for block in users.blocks()] == [[0], [1], [2]]
    assert draw_negatives(users, 2, 100, seed=0).tolist() == before
    assert draw_negatives(users, 2, 100, seed=1).tolist() != before
    assert draw_negatives(users, 1, 100, seed=0).tolist() != before
