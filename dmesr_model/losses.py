"""Next-item losses, in nats, of M positions whose next item is known."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmesr_model.candidates import CandidateRows

SCORES_IN_CACHE, SCORES_ON_GPU = 2**21, 2**26
"""Scores of a block: 8 MB, and as much beside them, stay in a processor's cache; a GPU wants few and large kernels."""
FEWEST_POSITIONS = 64
"""A block of fewer would spend its time on the candidates' gradient."""


def full_softmax(user_MW: Tensor, item_NW: Tensor, target_M: Tensor) -> Tensor:
    """Cross-entropy over all N items, summed over the positions: Σ (−s₊ + log Σⱼ exp(sⱼ)) with s = user · item.

    Scores are made and differentiated a block of positions at a time, so that memory does not grow with M · N, and
    stay in the processor's cache (docs/decisions/model-blockwise-softmax.md).
    """
    return functional.linear_cross_entropy(
        user_MW.float(), item_NW.float(), target_M, reduction="sum", options=nn.LinearCrossEntropyOptions()
    )


class _SampledSoftmax(torch.autograd.Function):
    """Loss and gradients together, a block of positions at a time: scores stay in the cache and are not kept."""

    @staticmethod
    def forward(ctx, user_MW, positive_MW, candidate_CW, target_M, candidates, sequence_M):  # type: ignore[no-untyped-def]
        user_grad_MW, positive_grad_MW = torch.empty_like(user_MW), torch.empty_like(user_MW)
        candidate_grad_CW = torch.zeros_like(candidate_CW)
        loss = user_MW.new_zeros(())
        scores = SCORES_IN_CACHE if user_MW.device.type == "cpu" else SCORES_ON_GPU
        positions = max(scores // len(candidate_CW), FEWEST_POSITIONS)
        for start in range(0, len(user_MW), positions):
            block = slice(start, start + positions)
            user_PW, positive_PW = user_MW[block], positive_MW[block]
            positive_P = (user_PW * positive_PW).sum(dim=1)
            score_PC = user_PW @ candidate_CW.T
            score_PC -= candidates.log_chance_BC[sequence_M[block]]
            score_PC.masked_fill_(target_M[block, None] == candidates.rows_C, -torch.inf)
            behind_P = score_PC.logsumexp(dim=1) - positive_P
            loss_P = functional.softplus(behind_P)
            loss += loss_P.sum()
            score_grad_PC = score_PC.sub_((positive_P + loss_P)[:, None]).exp_()
            positive_score_grad_P1 = -behind_P.sigmoid()[:, None]
            user_grad_MW[block] = torch.addmm(positive_score_grad_P1 * positive_PW, score_grad_PC, candidate_CW)
            positive_grad_MW[block] = positive_score_grad_P1 * user_PW
            candidate_grad_CW.addmm_(score_grad_PC.T, user_PW)
        ctx.save_for_backward(user_grad_MW, positive_grad_MW, candidate_grad_CW)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, share):  # type: ignore[no-untyped-def]
        return *(share * gradient for gradient in ctx.saved_tensors), None, None, None


def sampled_softmax(
    user_MW: Tensor, item_NW: Tensor, target_M: Tensor, candidates: CandidateRows, sequence_M: Tensor
) -> Tensor:
    """Cross-entropy with its sum over items estimated from C of them (Bengio & Senécal 2008; logQ: Yi et al. 2019).

    Summed over the positions. The target is certain to be in the sum and stays uncorrected; another candidate stands
    for 1 / chance items (Horvitz & Thompson 1952), so with all items as candidates this is `full_softmax`. In 32 bits,
    also under autocast.

    Args:
        user_MW, item_NW: float vectors, of the positions and of the step's items.
        target_M: int64 rows of `item_NW`.
        candidates: rows of `item_NW`, and their chances.
        sequence_M: row of `candidates.log_chance_BC` for each position.
    """
    with torch.autocast(user_MW.device.type, enabled=False):
        items = item_NW.float()
        positive_MW, candidate_CW = (functional.embedding(rows, items) for rows in (target_M, candidates.rows_C))
        return _SampledSoftmax.apply(user_MW.float(), positive_MW, candidate_CW, target_M, candidates, sequence_M)


def generalised_bce(positive_M: Tensor, negative_MK: Tensor, hit_MK: Tensor, beta: float) -> Tensor:
    """−β log σ(s₊) − Σₖ log(1 − σ(sₖ)) (gSASRec, Petrov & Macdonald 2023, equation 10). [M]

    With β = 1 it is SASRec's binary cross-entropy (Kang & McAuley 2018, equation 9), with K negatives.
    """
    negative_loss_MK = functional.softplus(negative_MK.float()).masked_fill(hit_MK, 0.0)
    return beta * functional.softplus(-positive_M.float()) + negative_loss_MK.sum(dim=1)


def gbce_beta(negatives: int, item_count: int, calibration: float) -> float:
    """β = a (t (1 − 1/a) + 1/a) with a = K / (N − 1) (Petrov & Macdonald 2023, equation 15): 1 at t = 0, a at t = 1."""
    sampling_rate = min(negatives / max(item_count - 1, 1), 1.0)
    return sampling_rate * (calibration * (1 - 1 / sampling_rate) + 1 / sampling_rate)
