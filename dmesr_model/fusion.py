"""Bidirectional cross-attention fusion: of an item's coarse tokens with its segments, or of two views' sequences."""

import torch
from torch import Tensor, nn

from dmesr_model.attention import CrossAttentionBlock


class AttentionPool(nn.Module):
    """Weighted mean of an item's tokens; the weight is a softmax over a learned direction of the normed tokens.

    The mean is of the tokens themselves, so that an item's vector may be long: with an inner product, length is how
    often an item is liked whoever the user is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, tokens_NKD: Tensor, present_NK: Tensor) -> Tensor:
        """[N, D]. At least one token of each item must be present."""
        score_NK = self.score(self.norm(tokens_NKD))[..., 0].masked_fill(~present_NK, -torch.inf)
        return (score_NK.softmax(dim=-1)[..., None] * tokens_NKD).sum(dim=1)


class ItemFusion(nn.Module):
    """Coarse tokens attend to segments and segments to coarse tokens, both from the unfused states."""

    def __init__(self, width: int, heads: int, multiple: int, dropout: float) -> None:
        super().__init__()
        self.coarse_to_fine = CrossAttentionBlock(width, heads, multiple, dropout)
        self.fine_to_coarse = CrossAttentionBlock(width, heads, multiple, dropout)

    def forward(self, coarse_NVD: Tensor, fine_NLD: Tensor, fine_present_NL: Tensor) -> tuple[Tensor, Tensor]:
        """Fused (coarse [N, V, D], fine [N, L, D]). Every item has at least one present fine token."""
        fused_coarse_NVD = self.coarse_to_fine(coarse_NVD, fine_NLD, fine_present_NL[:, None, :])
        return fused_coarse_NVD, self.fine_to_coarse(fine_NLD, coarse_NVD)

    def segment_weights(self, coarse_NVD: Tensor, fine_NLD: Tensor, fine_present_NL: Tensor) -> Tensor:
        """How much each coarse token looks at each segment: [N, V, L], rows sum to 1."""
        visible_NVL = fine_present_NL[:, None, :].expand(-1, coarse_NVD.shape[1], -1)
        return self.coarse_to_fine.weights(coarse_NVD, fine_NLD, visible_NVL)


class SequenceFusion(nn.Module):
    """The two views' sequences attend to each other, before the backbone."""

    def __init__(self, width: int, heads: int, multiple: int, dropout: float) -> None:
        super().__init__()
        self.first_to_second = CrossAttentionBlock(width, heads, multiple, dropout)
        self.second_to_first = CrossAttentionBlock(width, heads, multiple, dropout)

    def forward(self, tokens_SBTD: Tensor, valid_BT: Tensor, causal: bool) -> Tensor:
        """[2, B, T, D]. Causal: position t looks at positions 0..t of the other view; else at all valid ones."""
        first_BTD, second_BTD = tokens_SBTD.unbind(0)
        visible_BTT = None if causal else valid_BT[:, None, :]
        return torch.stack(
            [
                self.first_to_second(first_BTD, second_BTD, visible_BTT, causal),
                self.second_to_first(second_BTD, first_BTD, visible_BTT, causal),
            ]
        )
