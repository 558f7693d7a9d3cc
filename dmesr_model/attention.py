"""Multi-head attention and the pre-norm residual blocks built on it (Vaswani et al. 2017, section 3.2).

Dropout acts on what a layer adds and on hidden activations, not on attention weights, where it would rule out the fused
kernels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmesr_model.dropout import Dropout


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention of queries over a memory, section 3.2.2 of Vaswani et al. 2017."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(
        self, query_BTD: Tensor, memory_BSD: Tensor, mask_BHTS: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Attended values [B, T, D].

        Args:
            mask_BHTS: bool, True where query t may look at memory s, or numbers added to the logits; broadcast where an
                axis is 1.
            causal: query t looks at memory 0..t only; not together with a mask.
        """
        attended_BHTC = functional.scaled_dot_product_attention(
            self._split(self.query(query_BTD)),
            self._split(self.key(memory_BSD)),
            self._split(self.value(memory_BSD)),
            attn_mask=mask_BHTS,
            is_causal=causal,
        )
        return self.output(attended_BHTC.transpose(1, 2).flatten(start_dim=2))

    def weights(self, query_BTD: Tensor, memory_BSD: Tensor, visible_BTS: Tensor) -> Tensor:
        """The attention weights that `forward` uses, averaged over heads: [B, T, S]."""
        query_BHTC, key_BHSC = self._split(self.query(query_BTD)), self._split(self.key(memory_BSD))
        logits_BHTS = query_BHTC @ key_BHSC.transpose(-1, -2) / query_BHTC.shape[-1] ** 0.5
        return logits_BHTS.masked_fill(~visible_BTS[:, None], -torch.inf).softmax(dim=-1).mean(dim=1)

    def _split(self, states_BTD: Tensor) -> Tensor:
        return states_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Module):
    """Linear → GELU → Dropout → Linear, position by position."""

    def __init__(self, width: int, multiple: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, multiple * width)
        self.outer = nn.Linear(multiple * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        return self.outer(self.dropout(functional.gelu(self.inner(states))))


class SelfAttentionBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): pre-norm, so that depth needs no warm-up."""

    def __init__(self, width: int, heads: int, multiple: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, multiple, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, states_BTD: Tensor, mask_BHTT: Tensor) -> Tensor:
        """[B, T, D]; the mask as in MultiHeadAttention.forward."""
        normed_BTD = self.attention_norm(states_BTD)
        attended_BTD = self.attention(normed_BTD, normed_BTD, mask_BHTT)
        states_BTD = states_BTD + self.dropout(attended_BTD)
        return states_BTD + self.dropout(self.feed_forward(self.feed_forward_norm(states_BTD)))


class LayerScale(nn.Module):
    """w ⊙ x, w learned for each of D numbers, from 0.1 (Touvron et al. 2021): what is added to a sum starts small.

    It is to add to what the sum already says, not to learn the same beside it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_D = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, added: Tensor) -> Tensor:
        """Any shape that ends in D."""
        return self.scale_D * added


class CrossAttentionBlock(nn.Module):
    """One direction of the fusion: x + w ⊙ attention(norm(x), norm(memory)), and a feed-forward layer likewise.

    Without the scale and with a feed-forward layer a fused item model learns its items by heart
    (docs/decisions/model-light-fusion.md).

    Args:
        multiple: hidden width of the feed-forward layer in multiples of `width`; 0: there is none.
    """

    def __init__(self, width: int, heads: int, multiple: int, dropout: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.memory_norm = nn.LayerNorm(width)
        self.attention = MultiHeadAttention(width, heads)
        self.attention_scale = LayerScale(width)
        self.feed_forward: nn.Sequential | None = None
        if multiple:
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(width), FeedForward(width, multiple, dropout), LayerScale(width)
            )
        self.dropout = Dropout(dropout)

    def forward(
        self, states_BTD: Tensor, memory_BSD: Tensor, visible_BTS: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """[B, T, D].

        Args:
            visible_BTS: bool, True where state t may look at memory slot s; broadcast over T where that axis is 1.
            causal: state t looks at slots 0..t only; not together with `visible_BTS`.
        """
        mask_BHTS = None if visible_BTS is None else visible_BTS[:, None]
        attended_BTD = self.attention(self.query_norm(states_BTD), self.memory_norm(memory_BSD), mask_BHTS, causal)
        states_BTD = states_BTD + self.dropout(self.attention_scale(attended_BTD))
        return states_BTD if self.feed_forward is None else states_BTD + self.dropout(self.feed_forward(states_BTD))

    def weights(self, states_BTD: Tensor, memory_BSD: Tensor, visible_BTS: Tensor) -> Tensor:
        """How much each state looks at each memory slot, averaged over heads: [B, T, S], rows sum to 1."""
        return self.attention.weights(self.query_norm(states_BTD), self.memory_norm(memory_BSD), visible_BTS)
