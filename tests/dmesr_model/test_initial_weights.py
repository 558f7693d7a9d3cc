"""What an untrained model already tells apart."""

import numpy as np
import torch

from dmesr_model.encoding import gatherer_for
from dmesr_model.model import DMESR, ModelConfig


def test_a_concatenated_id_starts_as_an_added_one(toy_features):
    features = toy_features()
    config = ModelConfig(views=("image", "text"), id_mode="concatenated")
    model = DMESR(config, features.encoder_width, features.item_ids).eval()
    assert model.items.identity is not None
    torch.nn.init.normal_(model.items.identity.table.weight)
    items = gatherer_for(model, features).gather(np.arange(24) + 1)
    joined_SND = model.items(items).streams_SND
    model.items.joint = None
    torch.testing.assert_close(joined_SND, model.items(items).streams_SND)


def test_a_mask_tells_histories_apart_before_training():
    """Two users of BERT4Rec with 40 other events each: from weights of 0.02 their vectors would differ by 2 %."""
    torch.manual_seed(0)
    config = ModelConfig(backbone="bert4rec", views=(), use_segments=False)
    model = DMESR(config, encoder_width=1, item_ids=[str(item) for item in range(80)]).eval()
    identity = model.items.identity
    assert identity is not None
    events_BTD = identity(torch.arange(1, 81), has_unknown=False)[0].view(2, 40, -1)
    tokens_SBTD = torch.nn.functional.pad(events_BTD, (0, 0, 0, 1))[None]
    masked_BT = torch.arange(41).expand(2, -1) == 40
    first_W, second_W = model.encode_sequences(tokens_SBTD, torch.ones_like(masked_BT), masked_BT)[:, -1]
    assert (first_W - second_W).norm() > 0.2 * first_W.norm()
