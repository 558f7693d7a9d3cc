"""Items by what is said about them, apart from any model: for the content baseline and for diversity."""

from functools import cached_property

import numpy as np

from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.sequences import Sequences

_ITEMS_PER_BLOCK = 8192
_NUMBERS_KEPT = 2**26  # 256 MiB of float32


class ContentVectors:
    """Unit vectors of items, read from the features' memory-mapped table.

    A small catalog's are made once and kept, a large one's made as they are asked for.
    """

    def __init__(self, features: ItemFeatures) -> None:
        self._features = features

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Mean of each item's view and segment vectors, made a unit vector; zeros for an item without any. [n, E]"""
        if self._features.item_count * self._features.encoder_width <= _NUMBERS_KEPT:
            return self._kept[rows]
        return self._make(rows)

    @cached_property
    def _kept(self) -> np.ndarray:
        return self.all()

    def _make(self, rows: np.ndarray) -> np.ndarray:
        index_NM = np.concatenate([self._features.coarse_index_NV[rows], self._features.segment_index_NL[rows]], axis=1)
        sums_NE = np.zeros((len(rows), self._features.encoder_width), dtype=np.float32)
        for column_N in index_NM.T:
            present = np.flatnonzero(column_N != ABSENT)
            sums_NE[present] += self._features.vectors_UE[column_N[present]]
        return unit_rows(sums_NE)

    def all(self) -> np.ndarray:
        """[N, E]."""
        blocks = [
            self._make(np.arange(start, min(start + _ITEMS_PER_BLOCK, self._features.item_count)))
            for start in range(0, self._features.item_count, _ITEMS_PER_BLOCK)
        ]
        return np.concatenate(blocks) if blocks else np.zeros((0, self._features.encoder_width), np.float32)


def unit_rows(vectors_ND: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.where(lengths_N1 > 0, lengths_N1, 1)


def mean_of_histories(items_ND: np.ndarray, histories: Sequences) -> np.ndarray:
    """Mean vector of the events of each history, [U, D]; zeros for an empty one."""
    sums_UD = np.zeros((histories.user_count, items_ND.shape[1]), dtype=np.float32)
    active_A = np.flatnonzero(histories.lengths)
    if len(active_A):
        events_ED = items_ND[np.asarray(histories.item_index) - 1]
        sums_UD[active_A] = np.add.reduceat(events_ED, np.asarray(histories.offsets)[active_A])
    return sums_UD / np.maximum(histories.lengths, 1)[:, None].astype(np.float32)


def intra_list_diversity(content_KE: np.ndarray, list_rows_BK: np.ndarray) -> np.ndarray:
    """1 − mean cosine over all pairs of a list's items, [B]; NaN for a list with fewer than two.

    Args:
        content_KE: unit vectors of the items that the lists point at (zeros count as unlike everything).
        list_rows_BK: rows of `content_KE`; below 0 where the list is shorter.
    """
    present_BK = list_rows_BK >= 0
    vectors_BKE = content_KE[np.maximum(list_rows_BK, 0)] * present_BK[..., None]
    own_B = np.square(vectors_BKE).sum(axis=(1, 2))
    all_pairs_B = np.square(vectors_BKE.sum(axis=1)).sum(axis=1)
    count_B = present_BK.sum(axis=1)
    pairs_B = (count_B * (count_B - 1)).astype(np.float64)
    return np.where(pairs_B > 0, 1 - (all_pairs_B - own_B) / np.maximum(pairs_B, 1), np.nan)
