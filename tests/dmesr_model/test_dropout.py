"""Dropout: the share that is zeroed, the scale of the rest, the gradient, and that the seed decides."""

import pytest
import torch

from dmesr_model.dropout import Dropout


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
