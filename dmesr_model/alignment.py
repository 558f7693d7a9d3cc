"""Contrastive alignment of the coarse views of the same item, and the two numbers that say how it went."""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional


def info_nce(first_ND: Tensor, second_ND: Tensor, excluded_NN: Tensor, temperature: Tensor) -> Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018, equation 4; both directions averaged as in CLIP), one value an item.

    Args:
        first_ND, second_ND: two views of the same N items, L2-normalised.
        excluded_NN: bool, True where item j is no negative of item i; the diagonal is never excluded.
        temperature: scalar above 0; cosines are divided by it.

    Returns:
        [N], nats. Zero for an item that has no negatives.
    """
    logits_NN = (first_ND @ second_ND.T) / temperature
    own = torch.eye(len(first_ND), dtype=torch.bool, device=first_ND.device)
    logits_NN = logits_NN.masked_fill(excluded_NN & ~own, -torch.inf)
    positive_N = logits_NN.diagonal()
    forward_N = logits_NN.logsumexp(dim=1) - positive_N
    backward_N = logits_NN.logsumexp(dim=0) - positive_N
    return (forward_N + backward_N) / 2


def same_text(first_id_N: Tensor, second_id_N: Tensor) -> Tensor:
    """bool [N, N], True where items i and j share a text, in one view or across: no negatives of each other."""
    across_NN = first_id_N[:, None] == second_id_N
    within_NN = (first_id_N[:, None] == first_id_N) | (second_id_N[:, None] == second_id_N)
    return within_NN | across_NN | across_NN.T


def alignment_loss(coarse_NVD: Tensor, present_NV: Tensor, text_id_NV: Tensor, temperature: Tensor) -> Tensor:
    """Mean symmetric InfoNCE over all pairs of coarse views and all items that have both views of the pair. Scalar.

    An absent view takes no part: neither as anchor nor as negative. Items with a text in common in the two views of a
    pair are not each other's negatives there; an item's own two views are its positive, whatever they say. Zero where
    no pair has an item. Computed in float32 under mixed precision, too: cosines divided by a small temperature need the
    digits.
    """
    with torch.autocast(coarse_NVD.device.type, enabled=False):
        unit_NVD = functional.normalize(coarse_NVD.float(), dim=-1)
        total, count = 0.0 * temperature, torch.zeros((), dtype=torch.int64, device=coarse_NVD.device)
        for first, second in combinations(range(coarse_NVD.shape[1]), 2):
            both_N = present_NV[:, first] & present_NV[:, second]
            apart_NN = same_text(text_id_NV[:, first], text_id_NV[:, second]) | ~(both_N[:, None] & both_N)
            values_N = info_nce(unit_NVD[:, first], unit_NVD[:, second], apart_NN, temperature)
            total, count = total + values_N.where(both_N, 0.0).sum(), count + both_N.sum()
        return total / count.clamp(min=1)


def mean_squared_distance(first_ND: Tensor, second_ND: Tensor) -> float:
    """Alignment of Wang & Isola 2020, equation 1 with exponent 2, on unit vectors: 0 is identical, 4 opposite."""
    gap_ND = functional.normalize(first_ND, dim=-1) - functional.normalize(second_ND, dim=-1)
    return float(gap_ND.square().sum(dim=-1).mean())


def uniformity(vectors_ND: Tensor) -> float:
    """Uniformity of Wang & Isola 2020, equation 2 with t = 2, over all pairs of rows: lower is more spread."""
    squared_distance = torch.pdist(functional.normalize(vectors_ND, dim=-1)).square()
    return float(squared_distance.mul(-2).exp().mean().log())
