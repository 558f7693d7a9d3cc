"""Which sentence of an item's own text its coarse views looked at."""

from collections.abc import Sequence

import numpy as np
import torch

from dmesr_model.encoding import gatherer_for
from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.model import DMESR


@torch.no_grad()
def segment_attention(model: DMESR, features: ItemFeatures, item_ids: Sequence[str]) -> np.ndarray:
    """Attention weights from coarse tokens to segments, averaged over heads, float32 [n, V, L].

    Axis V follows model.config.views, axis L the columns of features.segment_index_NL. The weights of an item's own
    segments sum to 1 in each view; absent segments have 0, and so has every segment of an item without text. An absent
    view's row shows what its learned token looks at.

    Raises:
        ValueError: the model has no fusion at the level of the item.
        KeyError: names ids that the features don't hold.
    """
    if model.items.fusion is None:
        raise ValueError("attention to segments needs fusion='item', a coarse view and use_segments")
    model.eval()
    position_of = {item_id: position for position, item_id in enumerate(features.item_ids)}
    if unknown := [item_id for item_id in item_ids if item_id not in position_of]:
        raise KeyError(f"the features hold no items {unknown[:5]}; give strings of features.item_ids")
    positions_N = np.array([position_of[item_id] for item_id in item_ids], dtype=np.int64)
    items = gatherer_for(model, features).gather(positions_N + 1).to(next(model.parameters()).device)
    assert items.segments is not None, "a model with item fusion reads segments"
    fine_NLD, visible_NL = model.items.adapt_segments(items.segments)
    weights_NVL = model.items.fusion.segment_weights(model.items.adapt_views(items), fine_NLD, visible_NL)
    padded_NVL = np.zeros((*weights_NVL.shape[:2], features.segment_index_NL.shape[1]), dtype=np.float32)
    shown = min(weights_NVL.shape[2], padded_NVL.shape[2])
    padded_NVL[:, :, :shown] = weights_NVL[:, :, :shown].float().cpu().numpy()
    present_NL = np.asarray(features.segment_index_NL[positions_N]) != ABSENT
    return np.where(present_NL[:, None, :], padded_NVL, np.float32(0))


def attention_entropy(weights_NVL: np.ndarray, segment_count_N: np.ndarray) -> np.ndarray:
    """Entropy of each view's attention over the log of the item's segments: 0 looks at one, 1 at all alike. [N, V]

    Args:
        segment_count_N: segments of each item; an item with fewer than two gives 0.
    """
    logs_NVL = np.log(np.where(weights_NVL > 0, weights_NVL, 1.0))
    entropy_NV = -(weights_NVL * logs_NVL).sum(axis=-1)
    most_N = np.log(np.maximum(segment_count_N, 2))
    return entropy_NV / most_N[:, None]
