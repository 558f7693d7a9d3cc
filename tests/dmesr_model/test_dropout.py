"""Dropout: the share that is zeroed, the scale of the rest, the gradient, that the seed decides; and where it acts."""

import pytest
import torch
from torch import nn

from dmesr_model.adapters import Adapter, SourceRows
from dmesr_model.attention import CrossAttentionBlock, FeedForward, SelfAttentionBlock
from dmesr_model.backbones import build_backbone
from dmesr_model.dropout import Dropout
from dmesr_model.model_config import ModelConfig


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_share_scale_and_gradient(share):
    torch.manual_seed(0)
    values = torch.ones(400, 1001, requires_grad=True)
    dropped = Dropout(share).train()(values)
    rounded = round(share * 256) / 256
    assert float((dropped == 0).float().mean()) == pytest.approx(rounded, abs=0.003)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - rounded)])
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, dropped.detach())
    by_lane = (dropped.detach().flatten()[: 400 * 1000].view(-1, 8) == 0).float().mean(dim=0)
    assert by_lane.tolist() == pytest.approx([rounded] * 8, abs=0.01)  # all eight bytes of a draw are alike


def test_a_share_near_one_is_the_most_that_a_byte_can_say():
    dropped = Dropout(0.999).train()(torch.ones(2000))
    assert set(dropped.unique().tolist()) <= {0.0, 256.0}


def test_seed_decides_and_evaluation_keeps_all():
    layer, values = Dropout(0.5), torch.randn(7, 9)
    torch.manual_seed(1)
    first = layer(values)
    torch.manual_seed(1)
    assert torch.equal(first, layer(values))
    assert torch.equal(layer.eval()(values), values)


def drops_all(module: nn.Module) -> nn.Module:
    """The module with each of its dropout layers zeroing all that it gets."""
    for layer in module.modules():
        if isinstance(layer, Dropout):
            layer.forward = torch.zeros_like  # type: ignore[method-assign]
    return module


def with_random_weights(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def test_all_that_a_block_adds_is_dropped_out():
    states_BTD, memory_BSD = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    block = drops_all(with_random_weights(SelfAttentionBlock(8, 2, 4, dropout=0.1)))
    assert torch.equal(block(states_BTD, torch.ones(1, 1, 3, 3, dtype=torch.bool)), states_BTD)
    block = drops_all(with_random_weights(CrossAttentionBlock(8, 2, 4, dropout=0.1)))
    assert torch.equal(block(states_BTD, memory_BSD), states_BTD)


def test_hidden_activations_are_dropped_out():
    layer = drops_all(with_random_weights(FeedForward(8, 4, dropout=0.1)))
    torch.testing.assert_close(layer(torch.randn(3, 8)), layer.outer.bias.expand(3, 8))
    adapter = drops_all(with_random_weights(Adapter(5, 8, 4, dropout=0.1, input_dropout=0.0)))
    rows = SourceRows(torch.randn(3, 5), torch.arange(3)[:, None], torch.ones(3, 1, dtype=torch.bool), torch.arange(3))
    torch.testing.assert_close(adapter(rows), adapter.layers[-1].bias.expand(3, 1, 4))


@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec", "gru4rec"])
def test_what_a_backbone_reads_is_dropped_out(backbone):
    module = with_random_weights(build_backbone(ModelConfig(backbone=backbone, width=8, layers=2, dropout=0.2)))
    tokens_BTD, read = torch.randn(2, 3, 8), []

    def drop_first(values):
        read.append(values)
        return torch.zeros_like(values) if len(read) == 1 else values

    module.dropout.forward = drop_first
    dropped_BTD = module.eval()(tokens_BTD, torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(read[0], tokens_BTD)
    torch.testing.assert_close(dropped_BTD[0], dropped_BTD[1])  # which history it was is gone
    if backbone == "gru4rec":
        assert len(read) == 2 and module.recurrence.dropout == 0.2  # its states, too, and between its layers
