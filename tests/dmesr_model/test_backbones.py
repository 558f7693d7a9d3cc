"""Backbones against PyTorch's own modules with copied weights, and what may not leak."""

import pytest
import torch
from torch import nn

from dmesr_model.backbones import BERT4Rec, GRU4Rec, PositionEmbedding, SASRec

WIDTH, HEADS, LENGTH = 8, 2, 6


def torch_layer(block):
    """The same pre-norm layer from PyTorch, with the block's weights."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    attention = block.attention
    projections = [attention.query, attention.key, attention.value]
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
        layer.self_attn.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
    layer.self_attn.out_proj.load_state_dict(attention.output.state_dict())
    layer.linear1.load_state_dict(block.feed_forward.inner.state_dict())
    layer.linear2.load_state_dict(block.feed_forward.outer.state_dict())
    layer.norm1.load_state_dict(block.attention_norm.state_dict())
    layer.norm2.load_state_dict(block.feed_forward_norm.state_dict())
    return layer.train()  # eval mode would take a fused path without the mask


def attention_backbone(kind, positions="from_end"):
    torch.manual_seed(0)
    backbone = kind(WIDTH, 2, HEADS, 4, 0.0, PositionEmbedding(LENGTH, WIDTH, positions, 1.0))
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.5)
    return backbone


def ragged(lengths):
    tokens = torch.randn(len(lengths), LENGTH, WIDTH)
    return tokens, torch.arange(LENGTH) < torch.tensor(lengths)[:, None]


def test_sasrec_equals_torch_layers_with_a_causal_mask():
    backbone = attention_backbone(SASRec, "from_start")
    tokens, valid = ragged([6, 6])
    states = tokens + backbone.positions.position_TD
    future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    for block in backbone.blocks:
        states = torch_layer(block)(states, src_mask=future)
    torch.testing.assert_close(backbone(tokens, valid), backbone.norm(states), rtol=1e-4, atol=1e-5)


def test_bert4rec_equals_torch_layers_with_a_padding_mask():
    backbone = attention_backbone(BERT4Rec)
    tokens, valid = ragged([6, 4])
    numbers = torch.tensor([[5, 4, 3, 2, 1, 0], [3, 2, 1, 0, 0, 0]])  # from the most recent event
    states = backbone.token_norm(tokens) + backbone.positions.position_TD[numbers]
    for block in backbone.blocks:
        states = torch_layer(block)(states, src_key_padding_mask=~valid)
    torch.testing.assert_close(backbone(tokens, valid)[valid], backbone.norm(states)[valid], rtol=1e-4, atol=1e-5)


def test_bert4rec_sees_positions_however_long_its_tokens_are():
    backbone = attention_backbone(BERT4Rec).eval()
    tokens, valid = ragged([6, 4])
    torch.testing.assert_close(backbone(30 * tokens, valid), backbone(tokens, valid), rtol=1e-3, atol=1e-3)


def test_gru4rec_equals_its_equations():
    """Cho et al. 2014 as PyTorch writes it: n uses r after the hidden product."""
    torch.manual_seed(0)
    backbone = GRU4Rec(WIDTH, 1, 0.0)
    tokens, valid = ragged([6])
    cell = backbone.recurrence
    state = torch.zeros(WIDTH)
    expected = []
    for token in tokens[0]:
        from_input = (cell.weight_ih_l0 @ token + cell.bias_ih_l0).chunk(3)
        from_state = (cell.weight_hh_l0 @ state + cell.bias_hh_l0).chunk(3)
        reset, update = torch.sigmoid(from_input[0] + from_state[0]), torch.sigmoid(from_input[1] + from_state[1])
        candidate = torch.tanh(from_input[2] + reset * from_state[2])
        state = (1 - update) * candidate + update * state
        expected.append(state)
    torch.testing.assert_close(backbone(tokens, valid)[0], backbone.norm(torch.stack(expected)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", [attention_backbone(SASRec), GRU4Rec(WIDTH, 2, 0.0)], ids=["sasrec", "gru4rec"])
@pytest.mark.parametrize("changed", range(1, LENGTH))
def test_no_leak_from_the_future(backbone, changed):
    tokens, valid = ragged([6, 6])
    before = backbone(tokens, valid)
    tokens = tokens.clone()
    tokens[:, changed] = torch.randn(2, WIDTH)  # a shift by a constant would be normed away
    after = backbone(tokens, valid)
    torch.testing.assert_close(after[:, :changed], before[:, :changed])
    assert (after[:, changed] - before[:, changed]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "backbone",
    [attention_backbone(SASRec), attention_backbone(BERT4Rec), GRU4Rec(WIDTH, 2, 0.0)],
    ids=["sasrec", "bert4rec", "gru4rec"],
)
def test_padding_changes_nothing(backbone):
    tokens, valid = ragged([4, 2, 6])
    padded = backbone(tokens, valid)
    for row, length in enumerate([4, 2, 6]):
        alone = backbone(tokens[row : row + 1, :length], valid[row : row + 1, :length])
        torch.testing.assert_close(padded[row : row + 1, :length], alone)
