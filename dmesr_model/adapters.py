"""From frozen text vectors to tokens of the model's width: one adapter a source, a learned token for what is absent."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmesr_model.dropout import Dropout
from dmesr_model.initial_weights import INITIAL_STD


@dataclass(frozen=True)
class SourceRows:
    """The texts of one source (a coarse view, or the segments) of a step's N items, each text once.

    Args:
        vectors_RE: float32, the R distinct text vectors.
        row_NK: int64, which of them slot k of item n holds; 0 where absent. K is 1 for a view, L for segments.
        present_NK: bool, False where the item has no such text.
        text_id_NK: int64, identity of the text across steps and processes: equal for identical texts.
    """

    vectors_RE: Tensor
    row_NK: Tensor
    present_NK: Tensor
    text_id_NK: Tensor

    def to(self, device: torch.device) -> "SourceRows":
        return SourceRows(*(tensor.to(device) for tensor in vars(self).values()))


class Adapter(nn.Module):
    """x − mean → LayerNorm → Dropout → Linear(E→h) → GELU → Dropout → Linear(h→D), once for each text of the step.

    The mean of the source's vectors is set by `centre` before training and kept with the weights: those of a sentence
    encoder have a large part in common (Mu & Viswanath 2018), which tells no item from another
    (docs/decisions/model-centring.md). Items that share a text share its dropout mask within a step.
    """

    mean_E: Tensor

    def __init__(self, encoder_width: int, hidden_width: int, width: int, dropout: float, input_dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean_E", torch.zeros(encoder_width))
        self.layers = nn.Sequential(
            nn.LayerNorm(encoder_width),
            Dropout(input_dropout),
            nn.Linear(encoder_width, hidden_width),
            nn.GELU(),
            Dropout(dropout),
            nn.Linear(hidden_width, width),
        )
        self.absent_D = nn.Parameter(torch.randn(width) * INITIAL_STD)

    def centre(self, vectors_RE: Tensor) -> None:
        """Subtract the mean of these vectors from now on."""
        self.mean_E.copy_(vectors_RE.mean(dim=0))

    def forward(self, source: SourceRows) -> Tensor:
        """Tokens [N, K, D]; an absent slot holds the learned token.

        Where all are absent the layers read one vector of zeros: of several processes each has to use every parameter.
        """
        vectors_RE = source.vectors_RE.to(self.mean_E.dtype)
        if len(vectors_RE) == 0:
            vectors_RE = vectors_RE.new_zeros(1, vectors_RE.shape[1])
        tokens_NKD = functional.embedding(source.row_NK, self.layers(vectors_RE - self.mean_E))
        return torch.where(source.present_NK[..., None], tokens_NKD, self.absent_D.to(tokens_NKD.dtype))
