"""Where a held-out item ranks: among all items, and among sampled negatives.

Ranks start at 1 and count ties against the target: 1 + the other unseen items that score at least as much, within
rounding (`metrics.tie_margin`). A rank
beyond the depth that the metrics need is MISSED. No step holds a users × items matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dmesr_model.metrics import tie_margin
from dmesr_model.sequences import HeldOut, Sequences
from storage.vector_index import NO_ROW, Excluded, VectorIndex

MISSED = int(np.iinfo(np.int32).max)
"""The rank of a target that is not among the first `depth`."""

_USERS_PER_BLOCK = 1024


@dataclass(frozen=True)
class HeldOutUsers:
    """H users, each with an item to be found.

    Args:
        seen: rows of the items in each user's history; the target is never among them.
        target_row_H: int64, the 0-based row of each target.
        item_count: N, the items that are ranked.
    """

    seen: Excluded
    target_row_H: np.ndarray
    item_count: int

    @property
    def count(self) -> int:
        return len(self.target_row_H)

    @classmethod
    def of(cls, held_out: HeldOut, item_count: int) -> "HeldOutUsers":
        """A target that the user had before stays in the ranking: an item can be wanted again."""
        target_row_H = held_out.target_index_H.astype(np.int64) - 1
        return cls(seen_rows(held_out.histories, target_row_H), target_row_H, item_count)

    def blocks(self) -> Iterator[np.ndarray]:
        """Positions of users, so many at a time as fit in a bounded block."""
        for start in range(0, self.count, _USERS_PER_BLOCK):
            yield np.arange(start, min(start + _USERS_PER_BLOCK, self.count))


def seen_rows(histories: Sequences, kept_row_U: np.ndarray | None = None) -> Excluded:
    """Distinct rows of each history, ascending, without the user's `kept_row_U` where that is given."""
    user_E = np.repeat(np.arange(histories.user_count), histories.lengths)
    row_E = np.asarray(histories.item_index).astype(np.int64) - 1
    if kept_row_U is not None:
        others = row_E != kept_row_U[user_E]
        user_E, row_E = user_E[others], row_E[others]
    width = int(row_E.max(initial=0)) + 1
    pairs = np.unique(user_E * width + row_E)
    counts_U = np.bincount(pairs // width, minlength=histories.user_count)
    return Excluded(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_U)]), pairs % width)


@dataclass(frozen=True)
class FullRanking:
    """Of B users: the ranks of their targets, and the best unseen items (NO_ROW beyond the last) by row."""

    rank_B: np.ndarray
    best_BK: np.ndarray


def rank_among_all(
    index: VectorIndex,
    items_ND: np.ndarray,
    users_BD: np.ndarray,
    users: HeldOutUsers,
    users_B: np.ndarray,
    depth: int,
) -> FullRanking:
    """Rank each target among all items that the user has not seen; `items_ND` are the vectors of the index.

    The depth + 1 best unseen items decide: with the target among them, others that score at least as much are all
    there or are more than depth; without it, at least depth + 1 score as much or more.
    """
    scores_BK, rows_BK = index.search_without(users_BD, depth + 1, users.seen.select(users_B))
    target_B1 = users.target_row_H[users_B][:, None]
    is_target_BK = rows_BK == target_B1
    margin_B1 = tie_margin(users_BD, items_ND[target_B1[:, 0]])[:, None]
    least_B1 = np.where(is_target_BK, scores_BK, np.inf).min(axis=1, keepdims=True) - margin_B1
    others_BK = (scores_BK >= least_B1) & ~is_target_BK & (rows_BK != NO_ROW)
    rank_B = 1 + others_BK.sum(axis=1)
    missed_B = ~is_target_BK.any(axis=1) | (rank_B > depth)
    return FullRanking(np.where(missed_B, MISSED, rank_B).astype(np.int32), rows_BK[:, :depth])


def rank_among_negatives(
    items_ND: np.ndarray, users_BD: np.ndarray, users: HeldOutUsers, users_B: np.ndarray, negatives: int, seed: int
) -> np.ndarray:
    """Rank each target among itself and `negatives` sampled items, int32 [B]; all others where there are fewer.

    The negatives depend on the seed, the user's position and what the user has seen: on no model.
    """
    candidates_BM = np.full((len(users_B), 1 + negatives), NO_ROW, dtype=np.int64)
    candidates_BM[:, 0] = users.target_row_H[users_B]
    for place, user in enumerate(users_B):
        drawn = draw_negatives(users, int(user), negatives, seed)
        candidates_BM[place, 1 : 1 + len(drawn)] = drawn
    scores_BM = np.einsum("bmd,bd->bm", items_ND[np.maximum(candidates_BM, 0)], users_BD)
    scores_BM[candidates_BM == NO_ROW] = -np.inf
    least_B = scores_BM[:, 0] - tie_margin(users_BD, items_ND[candidates_BM[:, 0]])
    return (1 + (scores_BM[:, 1:] >= least_B[:, None]).sum(axis=1)).astype(np.int32)


def draw_negatives(users: HeldOutUsers, user: int, negatives: int, seed: int) -> np.ndarray:
    """Distinct rows, uniform over the items that the user has neither seen nor is to find; all of them if too few.

    A number r among the free items stands for the r-th row that is not taken: r + the taken rows at or below it.
    """
    taken = np.unique(np.append(users.seen.of(user), users.target_row_H[user]))
    free = users.item_count - len(taken)
    random = np.random.default_rng([seed, user])
    drawn = np.sort(random.choice(free, size=min(negatives, free), replace=False))
    return drawn + np.searchsorted(taken - np.arange(len(taken)), drawn, side="right")
