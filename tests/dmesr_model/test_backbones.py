"""Backbones against PyTorch's own modules with copied weights, and what may not leak."""

import pytest
import torch
from torch import nn

from dmesr_model.backbones import BERT4Rec, GRU4Rec, PositionEmbedding, SASRec, build_backbone, distance_bias
from dmesr_model.model_config import ModelConfig

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


def attention_backbone(kind, embeds_positions=False):
    torch.manual_seed(0)
    positions = PositionEmbedding(LENGTH, WIDTH, 1.0, norms_tokens=kind is BERT4Rec) if embeds_positions else None
    backbone = kind(WIDTH, 2, HEADS, 4, 0.0, positions)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.5)
    return backbone


def ragged(lengths):
    tokens = torch.randn(len(lengths), LENGTH, WIDTH)
    return tokens, torch.arange(LENGTH) < torch.tensor(lengths)[:, None]


def bias_by_hand():
    """Two heads, the outermost of Press et al.'s eight: 1/256 and 1/2 for each event between."""
    return torch.tensor(
        [[[-slope * abs(t - s) for s in range(LENGTH)] for t in range(LENGTH)] for slope in (1 / 256, 1 / 2)]
    )


def test_slopes_are_those_of_the_paper():
    torch.testing.assert_close(distance_bias(8, 2)[:, 0, 1], -torch.tensor([0.5**power for power in range(8, 0, -1)]))
    torch.testing.assert_close(distance_bias(2, LENGTH), bias_by_hand())
    assert distance_bias(1, 2)[0, 0, 1] == -1 / 256


@pytest.mark.parametrize("embeds_positions", [False, True])
def test_sasrec_equals_torch_layers(embeds_positions):
    backbone = attention_backbone(SASRec, embeds_positions)
    tokens, valid = ragged([6, 6])
    future = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    states, mask = tokens, bias_by_hand().masked_fill(future, -torch.inf).repeat(2, 1, 1)
    if embeds_positions:
        states, mask = tokens + backbone.positions.position_TD.flip(0), future
    for block in backbone.blocks:
        states = torch_layer(block)(states, src_mask=mask)
    torch.testing.assert_close(backbone(tokens, valid), backbone.norm(states), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("embeds_positions", [False, True])
def test_bert4rec_equals_torch_layers(embeds_positions):
    backbone = attention_backbone(BERT4Rec, embeds_positions)
    tokens, valid = ragged([6, 4])
    states, mask = tokens, bias_by_hand().repeat(2, 1, 1)
    if embeds_positions:
        numbers = torch.tensor([[5, 4, 3, 2, 1, 0], [3, 2, 1, 0, 0, 0]])  # from the most recent event
        positions = backbone.positions
        states, mask = positions.token_norm(tokens) + positions.position_TD[numbers], torch.zeros(LENGTH, LENGTH)
    padding = torch.zeros(2, LENGTH).masked_fill(~valid, -torch.inf)
    for block in backbone.blocks:
        states = torch_layer(block)(states, src_mask=mask, src_key_padding_mask=padding)
    torch.testing.assert_close(backbone(tokens, valid)[valid], backbone.norm(states)[valid], rtol=1e-4, atol=1e-5)


def test_bert4rec_sees_positions_however_long_its_tokens_are():
    torch.manual_seed(0)
    config = ModelConfig(backbone="bert4rec", positions="from_end", width=WIDTH, views=())
    backbone = build_backbone(config).eval()
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


CAUSAL = {
    "sasrec": attention_backbone(SASRec),
    "sasrec with positions": attention_backbone(SASRec, embeds_positions=True),
    "gru4rec": GRU4Rec(WIDTH, 2, 0.0),
}
BACKBONES = CAUSAL | {
    "bert4rec": attention_backbone(BERT4Rec),
    "bert4rec with positions": attention_backbone(BERT4Rec, embeds_positions=True),
}


@pytest.mark.parametrize("backbone", CAUSAL.values(), ids=CAUSAL)
@pytest.mark.parametrize("changed", range(1, LENGTH))
def test_no_leak_from_the_future(backbone, changed):
    tokens, valid = ragged([6, 6])
    before = backbone(tokens, valid)
    tokens = tokens.clone()
    tokens[:, changed] = torch.randn(2, WIDTH)  # a shift by a constant would be normed away
    after = backbone(tokens, valid)
    torch.testing.assert_close(after[:, :changed], before[:, :changed])
    assert (after[:, changed] - before[:, changed]).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_events_to_come_change_nothing(name):
    """Not even how many they are, which a position counted from the most recent event would tell."""
    tokens, valid = ragged([6, 6])
    whole = CAUSAL[name](tokens, valid)
    for length in range(1, LENGTH):
        torch.testing.assert_close(CAUSAL[name](tokens[:, :length], valid[:, :length]), whole[:, :length])


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES)
def test_padding_changes_nothing(backbone):
    tokens, valid = ragged([4, 2, 6])
    padded = backbone(tokens, valid)
    for row, length in enumerate([4, 2, 6]):
        alone = backbone(tokens[row : row + 1, :length], valid[row : row + 1, :length])
        torch.testing.assert_close(padded[row : row + 1, :length], alone)
