import numpy as np
import pytest

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences
from tasks.evaluation.content import ContentVectors, intra_list_diversity, mean_of_histories


def test_content_is_the_mean_of_what_is_there() -> None:
    features = ItemFeatures(
        item_ids=("a", "b", "c"),
        views=("image",),
        vectors_UE=np.array([[3, 0], [0, 4], [6, 4]], dtype=np.float32),
        coarse_index_NV=np.array([[0], [-1], [-1]], dtype=np.int32),
        segment_index_NL=np.array([[1, -1], [2, 1], [-1, -1]], dtype=np.int32),
    )
    # a: (3, 0) + (0, 4) = (3, 4), length 5. b: (6, 4) + (0, 4) = (6, 8), length 10. c has nothing.
    assert ContentVectors(features).all() == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8], [0, 0]]))


def test_mean_of_histories() -> None:
    items = np.array([[1, 0], [0, 1]], dtype=np.float32)
    histories = Sequences.from_histories([[], [1, 2, 1, 1], [], [2], []], ["a", "b", "c", "d", "e"])
    assert mean_of_histories(items, histories).tolist() == [[0, 0], [0.75, 0.25], [0, 0], [0, 1], [0, 0]]
    nobody = Sequences.from_histories([[], []], ["a", "b"])
    assert mean_of_histories(items, nobody).tolist() == [[0, 0], [0, 0]]


def test_diversity_is_one_minus_the_mean_cosine_of_pairs() -> None:
    content = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    # Pairs of rows 0, 1, 2: cosines 0, 0.6, 0.8, mean 1.4 / 3. Pair 0, 0: cosine 1. One item: undefined.
    found = intra_list_diversity(content, np.array([[0, 1, 2], [0, 0, -1], [1, -1, -1]]))
    assert found[:2] == pytest.approx([1 - 1.4 / 3, 0])
    assert np.isnan(found[2])
