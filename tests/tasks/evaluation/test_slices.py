import numpy as np
import polars as pl
import pytest

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences, leave_one_out
from tasks.evaluation.slices import head_threshold, slices_of


@pytest.mark.parametrize(
    ("counts", "share", "threshold"),
    [
        ([9, 5, 5, 2, 1, 0, 0], 0.2, 9),  # of 5 with events, 1 is head
        ([9, 5, 5, 2, 1, 0, 0], 0.4, 5),  # 2 are, and the third ties with the second
        ([9, 5, 5, 2, 1, 0, 0], 0.21, 5),  # 1.05 rounds up to 2
        ([3, 3, 3], 0.2, 3),  # all tie: all are head
        ([0, 0], 0.2, np.inf),
    ],
)
def test_head_threshold(counts: list[int], share: float, threshold: float) -> None:
    assert head_threshold(np.array(counts), share) == threshold


def test_slices_of_a_small_shop() -> None:
    # Histories by item_index; the last event is the test target, the one before it is for validation.
    histories = [[1, 1, 1, 2, 3], [1, 2, 2, 4], [2, 1, 1], [1, 5], [2, 1, 5]]
    split = leave_one_out(Sequences.from_histories(histories, ["a", "b", "c", "d", "e"]))
    # Training: a 1 1 1; b 1 2; c 2; d 1 5 (too short to be evaluated); e 2.
    # Events: item 1 five, 2 three, 5 one, 3 and 4 none.
    features = ItemFeatures(
        item_ids=("1", "2", "3", "4", "5"),
        views=("image", "text"),
        vectors_UE=np.zeros((1, 2), np.float32),
        coarse_index_NV=np.array([[0, 0], [0, 0], [-1, 0], [0, -1], [-1, -1]], dtype=np.int32),
        segment_index_NL=np.zeros((5, 0), np.int32),
    )
    facts = pl.DataFrame({"has_picture": [True, True, False, True, False], "failed_view": [False] * 3 + [True, False]})
    masks = slices_of(split, features, facts, head_share=0.2, history_edges=(1, 2))
    # Test targets: a 3, b 4, c 1, e 5; training lengths 3, 2, 1, 1.
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "all": [True, True, True, True],
        "items_head": [False, False, True, False],
        "items_tail": [False, False, False, True],
        "items_cold": [True, True, False, False],
        "items_no_picture": [True, False, False, True],
        "items_failed_view": [False, True, False, False],
        "items_missing_view": [True, True, False, True],
        "users_head": [True, False, False, False],
        "users_tail": [False, True, True, True],
        "history_1_1": [False, False, True, True],
        "history_2_2": [False, True, False, False],
        "history_over_2": [True, False, False, False],
    }
