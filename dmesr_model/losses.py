"""Next-item losses, in nats, of M positions whose next item is known."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def full_softmax(user_MW: Tensor, item_NW: Tensor, target_M: Tensor) -> Tensor:
    """Cross-entropy over all N items, summed over the positions: Σ (−s₊ + log Σⱼ exp(sⱼ)) with s = user · item.

    Scores are made and differentiated a block of positions at a time, so that memory does not grow with M · N, and
    stay in the processor's cache (docs/decisions/model-blockwise-softmax.md).
    """
    return functional.linear_cross_entropy(
        user_MW.float(), item_NW.float(), target_M, reduction="sum", options=nn.LinearCrossEntropyOptions()
    )


def sampled_softmax(positive_M: Tensor, negative_MC: Tensor, log_chance_MC: Tensor, hit_MC: Tensor) -> Tensor:
    """Cross-entropy with its sum over items estimated from C of them (Bengio & Senécal 2008; logQ: Yi et al. 2019).

    The positive is certain to be in the sum and stays uncorrected; candidate c stands for exp(−log_chance[c]) items
    (Horvitz & Thompson 1952), so with all items as candidates (log_chance 0) this is a term of `full_softmax`.

    Args:
        positive_M, negative_MC: scores.
        log_chance_MC: log of the probability that a position has this candidate; broadcasts.
        hit_MC: bool, True where candidate c is the target itself; it is left out.

    Returns:
        [M]
    """
    corrected_MC = (negative_MC.float() - log_chance_MC).masked_fill(hit_MC, -torch.inf)
    positive_M = positive_M.float()
    return torch.cat([positive_M[:, None], corrected_MC], dim=1).logsumexp(dim=1) - positive_M


def binary_cross_entropy(positive_M: Tensor, negative_MK: Tensor, hit_MK: Tensor) -> Tensor:
    """−log σ(s₊) − Σₖ log(1 − σ(sₖ)) (Kang & McAuley 2018, equation 9, with K negatives). [M]"""
    return generalised_bce(positive_M, negative_MK, hit_MK, beta=1.0)


def generalised_bce(positive_M: Tensor, negative_MK: Tensor, hit_MK: Tensor, beta: float) -> Tensor:
    """−β log σ(s₊) − Σₖ log(1 − σ(sₖ)) (gSASRec, Petrov & Macdonald 2023, equation 10). [M]"""
    negative_loss_MK = functional.softplus(negative_MK.float()).masked_fill(hit_MK, 0.0)
    return beta * functional.softplus(-positive_M.float()) + negative_loss_MK.sum(dim=1)


def gbce_beta(negatives: int, item_count: int, calibration: float) -> float:
    """β = a (t (1 − 1/a) + 1/a) with a = K / (N − 1) (Petrov & Macdonald 2023, equation 15): 1 at t = 0, a at t = 1."""
    sampling_rate = min(negatives / max(item_count - 1, 1), 1.0)
    return sampling_rate * (calibration * (1 - 1 / sampling_rate) + 1 / sampling_rate)
