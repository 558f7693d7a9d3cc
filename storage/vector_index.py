"""Inner-product search through FAISS, with the items a user has seen left out.

The score of two vectors is their inner product, as everywhere in the project. Exclusion is exact with every index: no
excluded row is answered with, and a query gets k rows if so many are left. A query asks for as many rows more as it
excludes; one that excludes very many, or that an approximate index gave too few rows, is searched exactly among the
rows it may have. With the exact index, the default, all results are exact.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from storage.approximate_index import IndexConfig, build_index
from storage.folders import whole_folder

if TYPE_CHECKING:
    import faiss

NO_ROW = -1
"""Stands where a query has fewer than k rows left; its score is -inf."""

_LARGEST_FETCH = 1024  # rows a query over-fetches at most; a GPU index answers 2048
_QUERIES_PER_BLOCK = 1024
_QUERIES_FOR_A_PRODUCT = 32  # fewer are as fast one by one: 20 took the same either way, 64 a fifth as a product
_ROWS_PER_CHECK = 65_536


class VectorError(ValueError):
    """Vectors that can't be searched; the message names the row."""


@dataclass(frozen=True)
class Excluded:
    """Rows that each of Q queries must not be answered with.

    Args:
        offsets: int64 [Q + 1]; query q's rows stand at offsets[q]:offsets[q + 1].
        rows: int64 positions of vectors; one may stand there twice.
    """

    offsets: np.ndarray
    rows: np.ndarray

    @classmethod
    def nothing(cls, queries: int) -> "Excluded":
        return cls(np.zeros(queries + 1, np.int64), np.zeros(0, np.int64))

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]]) -> "Excluded":
        lengths = np.array([len(rows) for rows in lists], dtype=np.int64)
        flat = np.array([row for rows in lists for row in rows], dtype=np.int64)
        return cls(np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), flat)

    @property
    def counts(self) -> np.ndarray:
        return np.diff(self.offsets)

    def of(self, query: int) -> np.ndarray:
        return self.rows[self.offsets[query] : self.offsets[query + 1]]

    def select(self, queries_B: np.ndarray) -> "Excluded":
        """Return what these queries exclude, in their order."""
        lengths_B = self.counts[queries_B]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_B)])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths_B)
        return Excluded(offsets, self.rows[np.repeat(self.offsets[queries_B], lengths_B) + within])


class VectorIndex:
    """N vectors to search, on the GPU where FAISS finds one and has the index for it, else on the CPU."""

    def __init__(self, vectors_ND: np.ndarray, config: IndexConfig | None = None) -> None:
        """Raises VectorError naming the first row that holds NaN or infinity; IndexUnavailable for CAGRA on a CPU."""
        self._take(build_index(_searchable(vectors_ND, "vector"), config or IndexConfig()))

    def _take(self, built: "faiss.Index") -> None:
        import faiss

        # FAISS multiplies matrices only from so many queries on, and takes ten times as long for a block just below;
        # its own limit is near 1,000. Set for the whole process, of the same effect each time.
        faiss.cvar.distance_compute_blas_threshold = _QUERIES_FOR_A_PRODUCT
        self._built = built
        self._index = _on_gpu(built)

    @property
    def count(self) -> int:
        return int(self._built.ntotal)

    def search(self, queries_QD: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best rows of each query: (scores float32 [Q, k] descending, rows int64 [Q, k])."""
        return self.search_without(queries_QD, k, Excluded.nothing(len(queries_QD)))

    def search_without(self, queries_QD: np.ndarray, k: int, excluded: Excluded) -> tuple[np.ndarray, np.ndarray]:
        """Return the k best rows of each query that it does not exclude, in bounded memory.

        A query with fewer than k rows left ends in NO_ROW with the score -inf. Raises VectorError for NaN queries.
        """
        queries_QD = _searchable(queries_QD, "query")
        scores_QK = np.full((len(queries_QD), k), -np.inf, dtype=np.float32)
        rows_QK = np.full((len(queries_QD), k), NO_ROW, dtype=np.int64)
        if self.count == 0:
            return scores_QK, rows_QK
        fetch_Q = k + excluded.counts
        many_Q = (fetch_Q > _LARGEST_FETCH) & (self.count > _LARGEST_FETCH)
        fewest_first = np.argsort(fetch_Q, kind="stable")
        few = fewest_first[~many_Q[fewest_first]]
        for start in range(0, len(few), _QUERIES_PER_BLOCK):
            queries_B = few[start : start + _QUERIES_PER_BLOCK]
            fetch = min(int(fetch_Q[queries_B[-1]]), self.count)
            found_scores, found_rows = self._over_fetch(queries_QD[queries_B], queries_B, k, fetch, excluded)
            scores_QK[queries_B, : found_rows.shape[1]] = found_scores
            rows_QK[queries_B, : found_rows.shape[1]] = found_rows
        for query in np.flatnonzero(many_Q | self._too_few(rows_QK, excluded)):
            scores_QK[query], rows_QK[query] = self._select(queries_QD[query], k, excluded.of(query))
        return scores_QK, rows_QK

    def _too_few(self, rows_QK: np.ndarray, excluded: Excluded) -> np.ndarray:
        """Which queries, bool [Q], an approximate index gave fewer rows than they may have."""
        found_Q = (rows_QK != NO_ROW).sum(axis=1)
        short_Q = found_Q < rows_QK.shape[1]
        for query in np.flatnonzero(short_Q):
            short_Q[query] = found_Q[query] < self.count - len(np.unique(excluded.of(query)))
        return short_Q

    def save(self, folder: Path, ids: Sequence[str]) -> None:
        """Write the index and the id of each row to a folder that appears whole; an existing one stays."""
        import faiss

        if len(ids) != self.count:
            raise ValueError(f"{len(ids)} ids for {self.count} vectors")
        with whole_folder(folder) as unfinished:
            faiss.write_index(_on_cpu(self._built), str(unfinished / "vectors.faiss"))
            (unfinished / "ids.json").write_text(json.dumps(list(ids)))

    @classmethod
    def open(cls, folder: Path) -> tuple["VectorIndex", list[str]]:
        """Read what `save` wrote: the index, and the id of each of its rows."""
        import faiss

        index = cls.__new__(cls)
        index._take(faiss.read_index(str(folder / "vectors.faiss")))
        return index, json.loads((folder / "ids.json").read_text())

    def _over_fetch(
        self, queries_BD: np.ndarray, queries_B: np.ndarray, k: int, fetch: int, excluded: Excluded
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search for `fetch` rows, enough for k that stay, and drop the excluded ones."""
        scores_BF, rows_BF = self._index.search(queries_BD, fetch)
        dropped_BF = _is_excluded(rows_BF, queries_B, excluded, self.count) | (rows_BF == NO_ROW)
        kept_first = np.argsort(dropped_BF, axis=1, kind="stable")[:, :k]
        dropped_BK = np.take_along_axis(dropped_BF, kept_first, axis=1)
        scores_BK = np.where(dropped_BK, -np.inf, np.take_along_axis(scores_BF, kept_first, axis=1))
        return scores_BK, np.where(dropped_BK, NO_ROW, np.take_along_axis(rows_BF, kept_first, axis=1))

    def _select(self, query_D: np.ndarray, k: int, excluded_rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Search exactly among the rows that are not excluded; on the CPU, since GPU indexes take no selector."""
        import faiss

        searched: Any = faiss.downcast_index(_on_cpu(self._built))
        parameters: Any = faiss.SearchParameters()
        if isinstance(searched, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF()
            parameters.nprobe = searched.nlist
        elif isinstance(searched, faiss.IndexHNSW):
            searched = faiss.downcast_index(searched.storage)
        unwanted = faiss.IDSelectorBatch(excluded_rows)
        allowed = faiss.IDSelectorNot(unwanted)  # named: FAISS holds bare pointers to both
        parameters.sel = allowed
        scores_1K, rows_1K = searched.search(query_D[None], k, params=parameters)
        return np.where(rows_1K[0] == NO_ROW, -np.inf, scores_1K[0]), rows_1K[0]


def _is_excluded(rows_BF: np.ndarray, queries_B: np.ndarray, excluded: Excluded, count: int) -> np.ndarray:
    """bool [B, F]; a pair of query and row is one integer, so that one sorted search answers for the block."""
    of_block = excluded.select(queries_B)
    pairs = np.sort(np.repeat(np.arange(len(queries_B)), of_block.counts) * count + of_block.rows)
    if len(pairs) == 0:
        return np.zeros(rows_BF.shape, dtype=bool)
    asked_BF = np.arange(len(queries_B))[:, None] * count + rows_BF
    found_BF = np.searchsorted(pairs, asked_BF)
    return pairs[np.minimum(found_BF, len(pairs) - 1)] == asked_BF


def _searchable(vectors_ND: np.ndarray, what: str) -> np.ndarray:
    """Contiguous float32, checked in blocks."""
    vectors_ND = np.ascontiguousarray(vectors_ND, dtype=np.float32)
    for start in range(0, len(vectors_ND), _ROWS_PER_CHECK):
        finite = np.isfinite(vectors_ND[start : start + _ROWS_PER_CHECK]).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise VectorError(
                f"{what} {row} of {len(vectors_ND)} holds NaN or infinity and can't be searched; "
                "train or embed again, and see the training log for a loss that is not a number"
            )
    return vectors_ND


def _on_gpu(built: "faiss.Index") -> Any:
    """The index as it is searched: FAISS has GPU forms of the exact index and of inverted lists."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return built
    if not isinstance(faiss.downcast_index(built), faiss.IndexFlat | faiss.IndexIVFFlat):
        return built
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, built)


def _on_cpu(built: "faiss.Index") -> Any:
    """The index as it is saved, and searched exactly."""
    import faiss

    is_on_gpu = hasattr(faiss, "GpuIndex") and isinstance(built, faiss.GpuIndex)
    return faiss.index_gpu_to_cpu(built) if is_on_gpu else built
