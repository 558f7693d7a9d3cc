from pathlib import Path

import numpy as np
import pytest
import torch

from storage import vector_index
from storage.approximate_index import IndexConfig, IndexUnavailable
from storage.vector_index import NO_ROW, Excluded, VectorError, VectorIndex

ITEMS = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)


def test_scores_are_inner_products() -> None:
    # Query (2, 1): scores 2, 1, 3, so rows 2, 0, 1.
    scores, rows = VectorIndex(ITEMS).search(np.array([[2, 1]], dtype=np.float32), 2)
    assert scores.tolist() == [[3.0, 2.0]]
    assert rows.tolist() == [[2, 0]]


def test_excluded_rows_make_room_for_the_next() -> None:
    # Without row 2, query 0 has rows 0 (2) and 1 (1); query 1, (0, 1), excludes nothing: rows 1 and 2 tie at 1.
    queries = np.array([[2, 1], [0, 1]], dtype=np.float32)
    scores, rows = VectorIndex(ITEMS).search_without(queries, 2, Excluded.from_lists([[2, 2], []]))
    assert rows[0].tolist() == [0, 1]
    assert sorted(rows[1].tolist()) == [1, 2]
    assert scores.tolist() == [[2.0, 1.0], [1.0, 1.0]]


def test_fewer_rows_than_k_end_in_no_row() -> None:
    queries = np.array([[2, 1], [2, 1]], dtype=np.float32)
    scores, rows = VectorIndex(ITEMS).search_without(queries, 5, Excluded.from_lists([[0, 2], [0, 1, 2]]))
    assert rows.tolist() == [[1, NO_ROW, NO_ROW, NO_ROW, NO_ROW], [NO_ROW] * 5]
    assert scores[0].tolist() == [1.0, -np.inf, -np.inf, -np.inf, -np.inf]
    assert np.isneginf(scores[1]).all()


def test_one_vector_and_none() -> None:
    assert VectorIndex(ITEMS[:1]).search(ITEMS[:1], 1)[1].tolist() == [[0]]
    scores, rows = VectorIndex(ITEMS[:0]).search(ITEMS[:1], 2)
    assert rows.tolist() == [[NO_ROW, NO_ROW]]
    assert np.isneginf(scores).all()


@pytest.mark.parametrize("largest_fetch", [8, 1024], ids=["selector", "over-fetch"])
def test_equals_torch(largest_fetch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_index, "_LARGEST_FETCH", largest_fetch)
    monkeypatch.setattr(vector_index, "_QUERIES_PER_BLOCK", 7)
    random = np.random.default_rng(0)
    items, queries = random.normal(size=(60, 8)).astype(np.float32), random.normal(size=(40, 8)).astype(np.float32)
    seen = [random.choice(60, size=random.integers(0, 60), replace=False).tolist() for _ in range(40)]
    scores, rows = VectorIndex(items).search_without(queries, 5, Excluded.from_lists(seen))
    wanted = torch.from_numpy(queries) @ torch.from_numpy(items).T
    for query, rows_seen in enumerate(seen):
        wanted[query, rows_seen] = -torch.inf
    top = torch.topk(wanted, 5)
    found = torch.isfinite(top.values)
    np.testing.assert_allclose(scores, top.values.numpy(), atol=1e-5)
    assert rows[found.numpy()].tolist() == top.indices[found].tolist()
    assert (rows[~found.numpy()] == NO_ROW).all()


def test_nan_is_refused_by_row() -> None:
    broken = ITEMS.copy()
    broken[1, 0] = np.nan
    with pytest.raises(VectorError, match="vector 1 of 3 holds NaN"):
        VectorIndex(broken)
    with pytest.raises(VectorError, match="query 1 of 3 holds NaN"):
        VectorIndex(ITEMS).search(broken, 1)


def test_saved_index_answers_the_same(tmp_path: Path) -> None:
    VectorIndex(ITEMS).save(tmp_path / "index", ["a", "b", "c"])
    index, ids = VectorIndex.open(tmp_path / "index")
    _, rows = index.search(np.array([[2, 1]], dtype=np.float32), 3)
    assert [ids[row] for row in rows[0]] == ["c", "a", "b"]
    with pytest.raises(ValueError, match="2 ids for 3 vectors"):
        VectorIndex(ITEMS).save(tmp_path / "other", ["a", "b"])


@pytest.mark.parametrize(
    "config",
    [IndexConfig(kind="ivf", probes=1), IndexConfig(kind="ivf", lists=7, probes=7), IndexConfig(kind="hnsw")],
    ids=["one list", "all lists", "graph"],
)
def test_approximate_indexes_leave_out_what_was_seen_and_give_enough(config: IndexConfig, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    items, queries = random.normal(size=(400, 8)).astype(np.float32), random.normal(size=(30, 8)).astype(np.float32)
    # Up to 399 of 400 seen; one query has seen everything, one names a row twice.
    seen = [random.choice(400, size=count, replace=False).tolist() for count in random.integers(0, 400, size=28)]
    excluded = Excluded.from_lists([*seen, list(range(400)), [5, 5]])
    VectorIndex(items, config).save(tmp_path / "index", [str(row) for row in range(400)])
    _, wanted = VectorIndex(items).search_without(queries, 20, excluded)
    for index in (VectorIndex(items, config), VectorIndex.open(tmp_path / "index")[0]):
        scores, rows = index.search_without(queries, 20, excluded)
        for query in range(30):
            found = rows[query][rows[query] != NO_ROW]
            assert not np.isin(found, excluded.of(query)).any()
            assert len(set(found.tolist())) == len(found) == (wanted[query] != NO_ROW).sum()
            assert scores[query, : len(found)] == pytest.approx(items[found] @ queries[query], abs=1e-5)
        if config.lists:
            assert rows.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("hasty", "thorough"),
    [
        (IndexConfig(kind="ivf", lists=20, probes=1), IndexConfig(kind="ivf", lists=20, probes=20)),
        (IndexConfig(kind="hnsw", search_effort=1), IndexConfig(kind="hnsw", search_effort=2000)),
    ],
    ids=["lists", "graph"],
)
def test_an_approximate_index_looks_as_far_as_it_is_told(hasty: IndexConfig, thorough: IndexConfig) -> None:
    random = np.random.default_rng(0)
    items, queries = random.normal(size=(2000, 16)).astype(np.float32), random.normal(size=(50, 16)).astype(np.float32)
    _, wanted = VectorIndex(items).search(queries, 1)
    found = [(VectorIndex(items, config).search(queries, 1)[1] == wanted).mean() for config in (hasty, thorough)]
    assert found[0] < found[1] == 1


def test_few_vectors_are_searched_exactly_and_cagra_needs_a_gpu() -> None:
    assert VectorIndex(ITEMS, IndexConfig(kind="cagra")).search(ITEMS[:1], 1)[1].tolist() in ([[0]], [[2]])
    with pytest.raises(IndexUnavailable, match="set kind to hnsw or ivf"):
        VectorIndex(np.ones((300, 2), np.float32), IndexConfig(kind="cagra"))
