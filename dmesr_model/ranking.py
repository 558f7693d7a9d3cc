"""Full ranking in bounded blocks, for early stopping: never a users × items matrix."""

import numpy as np
import torch
from torch import Tensor

from dmesr_model.encoding import encode_gathered, encode_sequences, gatherer_for
from dmesr_model.features import ItemFeatures
from dmesr_model.item_batches import ItemGatherer
from dmesr_model.metrics import TIE, pessimistic_ranks, tie_margin
from dmesr_model.model import DMESR
from dmesr_model.sequences import HeldOut, select_users

_SCORES_PER_BLOCK = 16_000_000


def rank_targets(model: DMESR, features: ItemFeatures, held_out: HeldOut) -> np.ndarray:
    """Rank of each held-out target among all items, seen ones filtered, ties counted against it. int64 [H]."""
    return rank_gathered(model, gatherer_for(model, features), held_out)


def rank_gathered(model: DMESR, gatherer: ItemGatherer, held_out: HeldOut) -> np.ndarray:
    """`rank_targets` with a gatherer at hand; ranks where the model's weights are."""
    items_ND = encode_gathered(model, gatherer)
    users_HD = encode_sequences(model, items_ND, held_out.histories)
    return rank_by_inner_product(users_HD, items_ND, held_out, next(model.parameters()).device)


def rank_by_inner_product(
    users_HD: np.ndarray, items_ND: np.ndarray, held_out: HeldOut, device: torch.device | None = None
) -> np.ndarray:
    """The same from vectors; scores are held for as many users at a time as fit in a fixed block."""
    on_gpu = device is not None and device.type != "cpu"
    table_ND = torch.from_numpy(items_ND).to(device) if on_gpu else items_ND
    block = max(1, _SCORES_PER_BLOCK // max(len(items_ND), 1))
    ranks_H = np.zeros(len(users_HD), dtype=np.int64)
    for start in range(0, len(users_HD), block):
        users_B = np.arange(start, min(start + block, len(users_HD)))
        target_B = held_out.target_index_H[users_B].astype(np.int64) - 1
        histories = select_users(held_out.histories, users_B)
        seen = np.repeat(np.arange(len(users_B)), histories.lengths), np.asarray(histories.item_index) - 1
        if isinstance(table_ND, np.ndarray):
            ranks_H[users_B] = _rank_in_numpy(users_HD[users_B], table_ND, target_B, *seen)
        else:
            tensors = (torch.from_numpy(part).to(table_ND.device) for part in (users_HD[users_B], target_B, *seen))
            ranks_H[users_B] = rank_in_torch(table_ND, *tensors).cpu().numpy()
    return ranks_H


def _rank_in_numpy(
    users_BD: np.ndarray, items_ND: np.ndarray, target_B: np.ndarray, seen_row_E: np.ndarray, seen_column_E: np.ndarray
) -> np.ndarray:
    """Three times as fast as torch on a CPU, which counts in 64-bit integers."""
    scores_BN = users_BD @ items_ND.T
    seen_BN = np.zeros(scores_BN.shape, dtype=bool)
    seen_BN[seen_row_E, seen_column_E] = True
    return pessimistic_ranks(scores_BN, target_B, seen_BN, tie_margin(users_BD, items_ND[target_B]))


def rank_in_torch(
    items_ND: Tensor, users_BD: Tensor, target_B: Tensor, seen_row_E: Tensor, seen_column_E: Tensor
) -> Tensor:
    """`metrics.pessimistic_ranks` on a GPU, ties by `metrics.tie_margin`: int64 [B].

    Args:
        items_ND, users_BD: vectors, whose inner product is the score.
        target_B: int64, column of each target.
        seen_row_E, seen_column_E: integers, user and item of each of the E seen events, which are not ranked.
    """
    scores_BN = users_BD @ items_ND.T
    rows_B = torch.arange(len(target_B), device=scores_BN.device)
    margin_B = TIE * users_BD.norm(dim=1) * items_ND[target_B].norm(dim=1)
    least_B = scores_BN[rows_B, target_B] - margin_B
    scores_BN[seen_row_E, seen_column_E.long()] = -torch.inf
    scores_BN[rows_B, target_B] = -torch.inf
    return 1 + (~(scores_BN < least_B[:, None])).sum(dim=1)
