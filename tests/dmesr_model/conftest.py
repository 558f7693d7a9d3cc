"""Small data sets that the model's tests share."""

from collections.abc import Callable

import numpy as np
import pytest

from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.sequences import Sequences


def make_toy_features(items: int = 24, width: int = 12, segments: int = 3, seed: int = 0) -> ItemFeatures:
    """Random vectors; item 2 has no image view, item 3 no segments, item 4 nothing, items 5 and 6 the same texts."""
    random = np.random.default_rng(seed)
    rows_per_item = 2 + segments
    vectors_UE = random.normal(size=(items * rows_per_item, width)).astype(np.float32)
    rows = np.arange(items * rows_per_item, dtype=np.int32).reshape(items, rows_per_item)
    coarse_NV, segment_NL = rows[:, :2].copy(), rows[:, 2:].copy()
    if items > 6:
        coarse_NV[2, 0] = ABSENT
        segment_NL[3] = ABSENT
        coarse_NV[4], segment_NL[4] = ABSENT, ABSENT
        coarse_NV[6], segment_NL[6] = coarse_NV[5], segment_NL[5]
        segment_NL[7, 1:] = ABSENT
    item_ids = tuple(f"item-{position}" for position in range(items))
    return ItemFeatures(item_ids, ("image", "text"), vectors_UE, coarse_NV, segment_NL)


def make_toy_sequences(users: int = 50, items: int = 24, length: int = 9, seed: int = 0) -> Sequences:
    """Each user walks round the catalog with a step of their own start: the next item follows from the last one."""
    random = np.random.default_rng(seed)
    starts = random.integers(items, size=users)
    lengths = random.integers(4, length + 1, size=users)
    histories = [[(start + step) % items + 1 for step in range(n)] for start, n in zip(starts, lengths, strict=True)]
    return Sequences.from_histories(histories, [f"user-{user}" for user in range(users)])


@pytest.fixture
def toy_features() -> Callable[..., ItemFeatures]:
    return make_toy_features


@pytest.fixture
def toy_sequences() -> Callable[..., Sequences]:
    return make_toy_sequences
