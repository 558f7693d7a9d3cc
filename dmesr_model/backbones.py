"""Sequence encoders. Padding stands on the right: a causal encoder never sees it, a bidirectional one masks it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmesr_model.attention import SelfAttentionBlock
from dmesr_model.dropout import Dropout
from dmesr_model.initial_weights import INITIAL_STD
from dmesr_model.model_config import ModelConfig


def distance_bias(heads: int, length: int, device: torch.device | None = None) -> Tensor:
    """What attention adds to its logits: −slope_h · |t − s|, float32 [H, T, T] (ALiBi, Press et al. 2022).

    Slopes are spread from 1/2, which sees about the last five events, to 1/256, which sees all of a history: the range
    that the paper gives to eight heads, for any number of heads. One head gets 1/256.
    """
    slope_H = torch.logspace(-8, -1, heads, base=2, device=device)
    step_T = torch.arange(length, device=device)
    return -slope_H[:, None, None] * (step_T[:, None] - step_T).abs()


class PositionEmbedding(nn.Module):
    """Learned position vectors, added to the tokens.

    Events are numbered from the most recent one, as the left padding of the papers does: prediction is always at number
    0, which training has met.

    Args:
        std: standard deviation of the untrained positions' numbers.
        norms_tokens: norm the tokens before, to three times the untrained positions' length: item vectors with content
            grow ten times as long as positions (docs/decisions/model-bert4rec.md).
    """

    def __init__(self, max_length: int, width: int, std: float, norms_tokens: bool) -> None:
        super().__init__()
        self.position_TD = nn.Parameter(torch.randn(max_length, width) * std)
        self.token_norm: nn.Module = nn.Identity()
        if norms_tokens:
            self.token_norm = nn.LayerNorm(width)
            nn.init.constant_(self.token_norm.weight, 3 * std)

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        steps_T = torch.arange(tokens_BTD.shape[1], device=tokens_BTD.device)
        number_BT = (valid_BT.sum(dim=1, keepdim=True) - 1 - steps_T).clamp(min=0)
        return self.token_norm(tokens_BTD) + functional.embedding(number_BT, self.position_TD)


class AttentionBackbone(nn.Module):
    """Pre-norm self-attention blocks with GELU, over one sequence a row.

    Args:
        positions: None: attention knows of distances alone (docs/decisions/model-distances.md).
    """

    causal: bool

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        multiple: int,
        dropout: float,
        positions: PositionEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.positions = positions
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(SelfAttentionBlock(width, heads, multiple, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """Hidden states [B, T, D]: of a causal backbone from tokens 0..t, else from all valid ones, of which each row
        needs one."""
        length = tokens_BTD.shape[1]
        mask_BHTT = valid_BT[:, None, None, :]
        if self.causal:
            mask_BHTT = torch.ones(1, 1, length, length, dtype=torch.bool, device=tokens_BTD.device).tril()
        if self.positions is None:
            bias_HTT = distance_bias(self.heads, length, tokens_BTD.device)
            mask_BHTT = bias_HTT.masked_fill(~mask_BHTT, -torch.inf)
        else:
            tokens_BTD = self.positions(tokens_BTD, valid_BT)
        states_BTD = self.dropout(tokens_BTD)
        for block in self.blocks:
            states_BTD = block(states_BTD, mask_BHTT)
        return self.norm(states_BTD)


class SASRec(AttentionBackbone):
    """Causal self-attention (Kang & McAuley 2018)."""

    causal = True


class BERT4Rec(AttentionBackbone):
    """Bidirectional self-attention (Sun et al. 2019); trained to fill masked positions, predicts at a mask put last."""

    causal = False


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
    positions = None
    if config.positions == "from_end":
        # A mask of BERT4Rec finds its neighbours by position alone; a causal mask tells SASRec's events apart as well.
        drowns = config.backbone == "bert4rec"
        std = INITIAL_STD * config.stream_width**0.5 if drowns else INITIAL_STD
        positions = PositionEmbedding(config.max_length, config.stream_width, std, norms_tokens=drowns)
    return attention_backbone(
        config.stream_width, config.layers, config.heads, config.feedforward_multiple, config.dropout, positions
    )
