"""How much an approximate index misses: its answers against exact ones, for a sample of users."""

from collections.abc import Callable, Sequence

import numpy as np

from storage.vector_index import NO_ROW, Excluded, VectorIndex

_SEED = 0
_USERS_PER_BLOCK = 256


def recall_against_exact(
    index: VectorIndex,
    items_ND: np.ndarray,
    users: np.ndarray,
    vectors_of: Callable[[np.ndarray], np.ndarray],
    seen_by: Callable[[np.ndarray], Excluded],
    ks: Sequence[int],
    sample: int,
) -> tuple[dict[str, float], int]:
    """Return `index_recall@k` for each k, and over how many users: the mean share of the exact best k that it found.

    Seen items are left out of both answers. The sample is the same for every model. Holds the item vectors once more.

    Args:
        items_ND: what the index holds.
        users: to draw the sample from; `vectors_of` and `seen_by` tell a block's vectors [B, D] and seen rows.
    """
    chosen = np.sort(np.random.default_rng(_SEED).permutation(users)[:sample])
    exact = VectorIndex(items_ND)
    shares: dict[int, list[np.ndarray]] = {k: [] for k in ks}
    for start in range(0, len(chosen), _USERS_PER_BLOCK):
        users_B = chosen[start : start + _USERS_PER_BLOCK]
        users_BD, seen = vectors_of(users_B), seen_by(users_B)
        _, found_BK = index.search_without(users_BD, max(ks), seen)
        _, wanted_BK = exact.search_without(users_BD, max(ks), seen)
        for k in ks:
            shares[k].append(share_found(found_BK[:, :k], wanted_BK[:, :k]))
    means = {k: np.concatenate(parts) for k, parts in shares.items() if parts}
    return {f"index_recall@{k}": float(np.nanmean(share)) for k, share in means.items() if len(share)}, len(chosen)


def share_found(found_BK: np.ndarray, wanted_BK: np.ndarray) -> np.ndarray:
    """Share of each row's wanted entries among its found ones, [B]; NaN where nothing is wanted."""
    wanted_B = (wanted_BK != NO_ROW).sum(axis=1)
    hit_B = ((wanted_BK[:, :, None] == found_BK[:, None, :]).any(axis=2) & (wanted_BK != NO_ROW)).sum(axis=1)
    return np.where(wanted_B > 0, hit_B / np.maximum(wanted_B, 1), np.nan)
