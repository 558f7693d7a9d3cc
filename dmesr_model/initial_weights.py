"""Weights before training."""

import torch
from torch import nn

from dmesr_model.attention import CrossAttentionBlock, SelfAttentionBlock

INITIAL_STD = 0.02
"""Standard deviation of initial weights, as in BERT and GPT-2.

Item vectors are both input and output here: with long ones the untrained model predicts the last item again, and is
slow to unlearn it (on ML-100K, ID only, an initial 0.125 ended at validation NDCG@10 0.090, 0.02 at 0.110).
"""


def draw_initial_weights(module: nn.Module) -> None:
    """Normal weights and zero biases for all linear layers and embeddings within; other layers keep PyTorch's.

    Queries and keys of a fusion get 1/√d instead, so that its attention starts with logits of about 1. From
    INITIAL_STD it stayed as good as uniform through a short training: entropy 0.997 of the most on ML-100K, 0.895 so.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear | nn.Embedding):
            nn.init.normal_(child.weight, std=INITIAL_STD)
        if isinstance(child, nn.Linear) and child.bias is not None:
            nn.init.zeros_(child.bias)
    for child in module.modules():
        if isinstance(child, CrossAttentionBlock):
            for projection in (child.attention.query, child.attention.key):
                _draw_unit_weights(projection)


def draw_open_attention(module: nn.Module) -> None:
    """1/√d for values and outputs of all self-attention within: what is read arrives with the variance it had.

    For BERT4Rec, where a mask knows of its sequence only what attention brings: from INITIAL_STD, with 100 events, that
    is 60 times shorter than the mask itself. Queries and keys stay small, so that at first attention is a plain mean.
    """
    for child in module.modules():
        if isinstance(child, SelfAttentionBlock):
            for projection in (child.attention.value, child.attention.output):
                _draw_unit_weights(projection)


def start_as_sum(linear: nn.Linear) -> None:
    """[I ; I]: two vectors side by side come out as their sum (docs/decisions/model-id-decay.md)."""
    with torch.no_grad():
        linear.weight.copy_(torch.eye(linear.out_features).repeat(1, 2))


def _draw_unit_weights(linear: nn.Linear) -> None:
    nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
