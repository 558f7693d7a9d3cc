"""The edges of an evaluation: no user, no history, one item, lists longer than the catalog, approximate search, NaN."""

import numpy as np
import polars as pl
import pytest

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import HeldOut, Sequences, Split
from storage.approximate_index import IndexConfig
from storage.vector_index import VectorError
from tasks.evaluation.index_recall import share_found
from tasks.evaluation.measures import TestSet, measure, metric_rows
from tasks.evaluation.protocols import MISSED, HeldOutUsers
from tasks.evaluation.scorers import Scorer, content_scorer
from tasks.evaluation.slices import ALL


def made_set(histories: list[list[int]], targets: list[int], items: int) -> TestSet:
    """Histories and targets by item_index, which starts at 1; training is the histories."""
    known = Sequences.from_histories(histories, [f"u{user}" for user in range(len(histories))])
    features = ItemFeatures(
        item_ids=tuple(str(item) for item in range(items)),
        views=("image",),
        vectors_UE=np.eye(items, 4, dtype=np.float32),
        coarse_index_NV=np.arange(items, dtype=np.int32)[:, None],
        segment_index_NL=np.zeros((items, 0), np.int32),
    )
    test = HeldOut(known, np.array(targets, dtype=np.int32))
    masks = {ALL: np.ones(len(targets), bool), "items_cold": np.zeros(len(targets), bool)}
    return TestSet(Split(known, test, test), features, HeldOutUsers.of(test, items), np.ones(items, np.int64), masks)


def scorer_of(items_ND: np.ndarray, users_UD: np.ndarray) -> Scorer:
    return Scorer(items_ND.astype(np.float32), lambda users_B: users_UD[users_B].astype(np.float32))


def values(test: TestSet, scorer: Scorer, ks: tuple[int, ...] = (5, 20)) -> dict[tuple[str, str, str], float | None]:
    rows = metric_rows(measure(scorer, test, ks, negatives=100, seed=0), test, ks)
    return {row[:3]: row[3] for row in rows.select("protocol", "slice", "metric", "value").iter_rows()}


def test_lists_longer_than_the_catalog() -> None:
    # Scores 3, 2, 1; item 1 is seen. Targets 2 and 3 rank first and second among the two that are left.
    test = made_set([[1], [1]], [2, 3], items=3)
    found = values(test, scorer_of(np.array([[3], [2], [1]]), np.ones((2, 1))))
    assert found["full", ALL, "hr@20"] == 1
    assert found["full", ALL, "mrr@20"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["sampled", ALL, "mrr@20"] == pytest.approx((1 + 1 / 2) / 2)  # fewer negatives than asked: all others
    assert found["full", ALL, "coverage@10"] == pytest.approx(2 / 3)
    assert found["full", "items_cold", "hr@20"] is None  # an empty slice


def test_one_item() -> None:
    found = values(made_set([[]], [1], items=1), scorer_of(np.ones((1, 1)), np.ones((1, 1))))
    assert (found["full", ALL, "ndcg@5"], found["sampled", ALL, "ndcg@5"]) == (1, 1)
    assert (found["full", ALL, "coverage@10"], found["full", ALL, "diversity@10"]) == (1, None)


def test_a_user_without_a_history_ties_with_every_item_and_is_last() -> None:
    test = made_set([[], [1]], [3, 3], items=4)
    scorer = content_scorer(test.features, test.split.test.histories)
    # The user's vector is 0: all four items score 0, the target is fourth. The other's likeness to item 3 is 0, too,
    # as that of items 2 and 4: third of the three that are unseen.
    assert measure(scorer, test, (4,), 0, 0).ranks["full"].tolist() == [4, 3]
    assert measure(scorer, test, (20,), 0, 0).ranks["full"].tolist() == [4, 3]


def test_no_users() -> None:
    found = values(made_set([], [], items=3), scorer_of(np.ones((3, 1)), np.ones((0, 1))))
    assert set(found.values()) == {None}


def test_nan_vectors_are_refused_by_row() -> None:
    test = made_set([[1]], [2], items=3)
    with pytest.raises(VectorError, match="vector 1 of 3 holds NaN"):
        measure(scorer_of(np.array([[1.0], [np.nan], [1]]), np.ones((1, 1))), test, (5,), 0, 0)
    with pytest.raises(VectorError, match="query 0 of 1 holds NaN"):
        measure(scorer_of(np.ones((3, 1)), np.array([[np.nan]])), test, (5,), 0, 0)


def test_the_recall_of_an_approximate_index_stands_beside_the_metrics() -> None:
    random = np.random.default_rng(0)
    items, users = random.normal(size=(500, 8)), random.normal(size=(40, 8))
    test = made_set([[1, 2, 3]] * 40, [4] * 40, items=500)
    config = IndexConfig(kind="ivf", lists=12, probes=2, recall_users=25)
    measured = measure(scorer_of(items, users), test, (5, 10), 0, 0, config)
    rows = metric_rows(measured, test, (5, 10)).filter(pl.col("metric").str.starts_with("index_recall"))
    assert rows.select("metric", "users").rows() == [("index_recall@5", 25), ("index_recall@10", 25)]
    assert all(0.2 < value < 1 for value in rows["value"])
    exact = measure(scorer_of(items, users), test, (5, 10), 0, 0)
    assert exact.index_recall == {}
    # What the index does not find is missed: no target can gain more than a few places from items it misses.
    assert (measured.ranks["full"] == MISSED).sum() >= (exact.ranks["full"] == MISSED).sum() - 3
    all_lists = measure(scorer_of(items, users), test, (5, 10), 0, 0, IndexConfig(kind="ivf", lists=12, probes=12))
    assert set(all_lists.index_recall.values()) == {1.0}
    assert all_lists.ranks["full"].tolist() == exact.ranks["full"].tolist()


def test_share_found() -> None:
    wanted = np.array([[1, 2], [3, -1], [-1, -1]])
    assert share_found(np.array([[2, 9], [-1, 3], [-1, -1]]), wanted).tolist()[:2] == [0.5, 1.0]
    assert np.isnan(share_found(np.array([[-1, -1]]), np.array([[-1, -1]])))[0]


def test_the_digest_of_a_test_set_knows_users_targets_items_and_what_is_left_out() -> None:
    digests = {
        made_set([[1], [2]], [2, 3], items=3).digest,
        made_set([[1], [2]], [3, 3], items=3).digest,
        made_set([[1], [1]], [2, 3], items=3).digest,
        made_set([[1], [2]], [2, 3], items=4).digest,
        made_set([[1]], [2], items=3).digest,
    }
    assert len(digests) == 5
    assert made_set([[1], [2]], [2, 3], items=3).digest in digests
