"""Cross-attention fusion against PyTorch's attention with copied weights; pooling; causality between views."""

import pytest
import torch
from torch import nn

from dmesr_model.attention import CrossAttentionBlock, MultiHeadAttention
from dmesr_model.fusion import AttentionPool, ItemFusion, SequenceFusion

WIDTH, HEADS = 8, 2


def torch_attention(attention: MultiHeadAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    projections = [attention.query, attention.key, attention.value]
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
        theirs.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
    theirs.out_proj.load_state_dict(attention.output.state_dict())
    return theirs


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    return ItemFusion(WIDTH, HEADS, multiple=0, dropout=0.0)


def test_item_fusion_equals_torch_attention_in_both_directions(fusion):
    coarse, fine = torch.randn(3, 2, WIDTH), torch.randn(3, 4, WIDTH)
    present = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    fused_coarse, fused_fine = fusion(coarse, fine, present)

    block = fusion.coarse_to_fine
    memory = block.memory_norm(fine)
    attended, weights = torch_attention(block.attention)(
        block.query_norm(coarse), memory, memory, key_padding_mask=~present
    )
    torch.testing.assert_close(fused_coarse, coarse + 0.1 * attended)
    torch.testing.assert_close(fusion.segment_weights(coarse, fine, present), weights)

    block = fusion.fine_to_coarse
    memory = block.memory_norm(coarse)
    attended = torch_attention(block.attention)(block.query_norm(fine), memory, memory)[0]
    torch.testing.assert_close(fused_fine, fine + 0.1 * attended)


def test_a_feed_forward_layer_is_added_with_its_own_scale():
    torch.manual_seed(0)
    block = CrossAttentionBlock(WIDTH, HEADS, multiple=2, dropout=0.0)
    assert block.feed_forward is not None
    norm, layer, scale = block.feed_forward
    with torch.no_grad():
        scale.scale_D.copy_(torch.arange(1.0, WIDTH + 1))
    states, memory = torch.randn(3, 2, WIDTH), torch.randn(3, 4, WIDTH)
    attended = states + 0.1 * block.attention(block.query_norm(states), block.memory_norm(memory))
    hidden = nn.functional.gelu(nn.functional.linear(norm(attended), layer.inner.weight, layer.inner.bias))
    added = nn.functional.linear(hidden, layer.outer.weight, layer.outer.bias)
    torch.testing.assert_close(block(states, memory), attended + torch.arange(1.0, WIDTH + 1) * added)


def test_absent_segments_change_nothing(fusion):
    coarse, fine = torch.randn(1, 2, WIDTH), torch.randn(1, 4, WIDTH)
    present = torch.tensor([[True, True, False, False]])
    whole, short = fusion(coarse, fine, present)[0], fusion(coarse, fine[:, :2], present[:, :2])[0]
    torch.testing.assert_close(whole, short)


def test_pool_is_a_weighted_mean_of_present_tokens():
    pool = AttentionPool(2)
    tokens = torch.tensor([[[1.0, -1.0], [3.0, 5.0], [9.0, 9.5]]])
    present = torch.tensor([[True, True, False]])
    with torch.no_grad():
        pool.score.weight.copy_(torch.tensor([[1.0, 0.0]]))
    first, second = torch.tensor([1.0, -1.0]).softmax(dim=0)  # normed, the tokens are (1, -1) and (-1, 1)
    expected = torch.stack([first + 3 * second, -first + 5 * second])
    torch.testing.assert_close(pool(tokens, present)[0], expected, atol=1e-4, rtol=0)


def test_each_sequence_looks_at_the_other():
    torch.manual_seed(0)
    fusion = SequenceFusion(WIDTH, HEADS, 0, 0.0)
    tokens, valid = torch.randn(2, 3, 5, WIDTH), torch.arange(5) < torch.tensor([[5], [3], [4]])
    first, second = tokens
    expected = [
        fusion.first_to_second(first, second, valid[:, None]),
        fusion.second_to_first(second, first, valid[:, None]),
    ]
    torch.testing.assert_close(fusion(tokens, valid, causal=False), torch.stack(expected))


@pytest.mark.parametrize("changed", [1, 3])
def test_sequence_fusion_does_not_leak(changed):
    torch.manual_seed(0)
    fusion = SequenceFusion(WIDTH, HEADS, 2, 0.0)
    tokens, valid = torch.randn(2, 3, 5, WIDTH), torch.ones(3, 5, dtype=torch.bool)
    before = fusion(tokens, valid, causal=True)
    tokens = tokens.clone()
    tokens[1, :, changed] = torch.randn(3, WIDTH)  # of the second view
    after = fusion(tokens, valid, causal=True)
    torch.testing.assert_close(after[:, :, :changed], before[:, :, :changed])
    assert (after[0, :, changed] - before[0, :, changed]).abs().max() > 1e-5  # the first view saw it, at its time
    both_ways = fusion(tokens, valid, causal=False)
    assert (both_ways[:, :, :changed] - after[:, :, :changed]).abs().max() > 1e-5
