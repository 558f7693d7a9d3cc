"""Sequence encoders. Padding stands on the right: a causal encoder never sees it, a bidirectional one masks it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmesr_model.attention import SelfAttentionBlock
from dmesr_model.dropout import Dropout
from dmesr_model.initial_weights import INITIAL_STD
from dmesr_model.model_config import ModelConfig, Positions


class PositionEmbedding(nn.Module):
    """Learned position vectors, added to the tokens.

    "from_end" numbers events from the most recent one, as the left padding of the papers does: prediction is always
    at number 0, which training has met. "from_start" numbers them from the oldest; a history longer than all training
    histories then ends at a number that was never trained.
    """

    def __init__(self, max_length: int, width: int, positions: Positions, std: float) -> None:
        super().__init__()
        self.from_end = positions == "from_end"
        self.position_TD = nn.Parameter(torch.randn(max_length, width) * std)

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        steps_T = torch.arange(tokens_BTD.shape[1], device=tokens_BTD.device)
        if not self.from_end:
            return tokens_BTD + self.position_TD[steps_T]
        number_BT = (valid_BT.sum(dim=1, keepdim=True) - 1 - steps_T).clamp(min=0)
        return tokens_BTD + functional.embedding(number_BT, self.position_TD)


class SASRec(nn.Module):
    """Causal self-attention (Kang & McAuley 2018), with pre-norm blocks and GELU."""

    causal = True

    def __init__(
        self, width: int, layers: int, heads: int, multiple: int, dropout: float, positions: PositionEmbedding
    ) -> None:
        super().__init__()
        self.positions = positions
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, heads, multiple, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Hidden states [B, T, D]; the state at t depends on tokens 0..t."""
        states_BTD = self.dropout(self.positions(tokens_BTD, valid_BT))
        for block in self.blocks:
            states_BTD = block(states_BTD, causal=True)
        return self.norm(states_BTD)


class BERT4Rec(nn.Module):
    """Bidirectional self-attention (Sun et al. 2019); trained to fill masked positions, predicts at a mask put last.

    Tokens are normed before their positions are added: a mask finds its neighbours by position alone, and item vectors
    with content grow ten times as long as positions. They start three times as long (docs/decisions/model-bert4rec.md).
    """

    causal = False

    def __init__(
        self, width: int, layers: int, heads: int, multiple: int, dropout: float, positions: PositionEmbedding
    ) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        nn.init.constant_(self.token_norm.weight, 3 * INITIAL_STD * width**0.5)
        self.positions = positions
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, heads, multiple, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Hidden states [B, T, D]; every state depends on every valid token. Each row needs a valid token."""
        states_BTD = self.dropout(self.positions(self.token_norm(tokens_BTD), valid_BT))
        for block in self.blocks:
            states_BTD = block(states_BTD, visible_BTT=valid_BT[:, None, :])
        return self.norm(states_BTD)


class GRU4Rec(nn.Module):
    """Gated recurrent units over the sequence (Hidasi et al. 2016), normalised like the other backbones."""

    causal = True

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.recurrence = nn.GRU(
            width, width, num_layers=layers, batch_first=True, dropout=dropout if layers > 1 else 0
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Hidden states [B, T, D]; the state at t depends on tokens 0..t."""
        states_BTD, _ = self.recurrence(self.dropout(tokens_BTD))
        return self.norm(self.dropout(states_BTD))


Backbone = SASRec | BERT4Rec | GRU4Rec


def build_backbone(config: ModelConfig) -> Backbone:
    if config.backbone == "gru4rec":
        return GRU4Rec(config.stream_width, config.layers, config.dropout)
    attention_backbone = SASRec if config.backbone == "sasrec" else BERT4Rec
    # BERT4Rec's positions start a third as long as its normed tokens; SASRec's, which a causal mask tells apart, short.
    std = INITIAL_STD if config.backbone == "sasrec" else INITIAL_STD * config.stream_width**0.5
    positions = PositionEmbedding(config.max_length, config.stream_width, config.positions, std)
    return attention_backbone(
        config.stream_width, config.layers, config.heads, config.feedforward_multiple, config.dropout, positions
    )
