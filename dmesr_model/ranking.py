"""Full ranking in bounded blocks, for early stopping: never a users × items matrix."""

import numpy as np

from dmesr_model.encoding import encode_items, encode_sequences
from dmesr_model.features import ItemFeatures
from dmesr_model.metrics import pessimistic_ranks
from dmesr_model.model import DMESR
from dmesr_model.sequences import HeldOut

_SCORES_PER_BLOCK = 16_000_000


def rank_targets(model: DMESR, features: ItemFeatures, held_out: HeldOut) -> np.ndarray:
    """Rank of each held-out target among all items, seen ones filtered, ties counted against it. int64 [H]."""
    items_ND = encode_items(model, features)
    users_HD = encode_sequences(model, items_ND, held_out.histories)
    return rank_by_inner_product(users_HD, items_ND, held_out)


def rank_by_inner_product(users_HD: np.ndarray, items_ND: np.ndarray, held_out: HeldOut) -> np.ndarray:
    """The same from vectors; scores are held for as many users at a time as fit in a fixed block."""
    block = max(1, _SCORES_PER_BLOCK // max(len(items_ND), 1))
    ranks = [
        _rank_block(users_HD, items_ND, held_out, np.arange(start, min(start + block, len(users_HD))))
        for start in range(0, len(users_HD), block)
    ]
    return np.concatenate(ranks) if ranks else np.zeros(0, dtype=np.int64)


def _rank_block(users_HD: np.ndarray, items_ND: np.ndarray, held_out: HeldOut, users_B: np.ndarray) -> np.ndarray:
    scores_BN = users_HD[users_B] @ items_ND.T
    seen_BN = np.zeros(scores_BN.shape, dtype=bool)
    for row, user in enumerate(users_B):
        seen_BN[row, held_out.histories.history(user) - 1] = True
    return pessimistic_ranks(scores_BN, held_out.target_index_H[users_B].astype(np.int64) - 1, seen_BN)
