"""Which FAISS index searches the items: exact, or an approximate one for catalogs too large for that.

All search by inner product. An approximate index misses some of the best items; how many is measured wherever it is
used (`tasks.evaluation.index_recall`), and `benchmarks/approximate_indexes.md` has the trade-off on 100,000 items.
"""

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import faiss

FEWEST_APPROXIMATED = 256
"""Below so many vectors an approximate index has nothing to save: it is exact."""

_POINTS_PER_LIST = 39  # what FAISS asks of k-means
_CLUSTERING_SEED = 1234


class IndexConfig(BaseModel):
    """How items are searched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["flat", "ivf", "hnsw", "cagra"] = Field(
        "flat",
        description="flat: exact; ivf: inverted lists, builds fast; hnsw: a graph, searches fast, more memory; "
        "cagra: a graph on an NVIDIA GPU, needs a FAISS built with cuVS",
    )
    lists: int | None = Field(
        None, ge=1, description="ivf: inverted lists; None: 4 · √items, with at least 39 items a list"
    )
    probes: int = Field(32, ge=1, description="ivf: lists looked at for a user; more is slower and finds more")
    neighbours: int = Field(32, ge=2, description="hnsw, cagra: links of an item; memory is 8 bytes a link and item")
    build_effort: int = Field(128, ge=1, description="hnsw: candidates weighed for an item's links (efConstruction)")
    search_effort: int = Field(256, ge=1, description="hnsw: candidates kept while searching (efSearch)")
    recall_users: int = Field(
        1000, ge=1, description="users whose lists an evaluation also searches exactly, to report the index's recall"
    )

    @property
    def is_exact(self) -> bool:
        return self.kind == "flat"


class IndexUnavailable(ValueError):
    """An index that this machine's FAISS can't build; the message says what to configure instead."""


def build_index(vectors_ND: np.ndarray, config: IndexConfig) -> "faiss.Index":
    """Return an index of these checked float32 vectors; the same vectors give the same index on a CPU."""
    count, width = vectors_ND.shape
    kind = config.kind if count >= FEWEST_APPROXIMATED else "flat"
    index = _EMPTY[kind](count, width, config)
    index.train(vectors_ND)  # which completes CAGRA's graph
    if kind != "cagra":
        index.add(vectors_ND)
    return index


def _empty_flat(count: int, width: int, config: IndexConfig) -> "faiss.Index":
    import faiss

    return faiss.IndexFlatIP(width)


def _empty_hnsw(count: int, width: int, config: IndexConfig) -> "faiss.Index":
    import faiss

    index = faiss.IndexHNSWFlat(width, config.neighbours, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = config.build_effort
    index.hnsw.efSearch = config.search_effort
    return index


def _empty_ivf(count: int, width: int, config: IndexConfig) -> "faiss.Index":
    import faiss

    lists = config.lists or max(1, min(int(4 * count**0.5), count // _POINTS_PER_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, min(lists, count), faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = _CLUSTERING_SEED
    index.nprobe = config.probes
    return index


def _empty_cagra(count: int, width: int, config: IndexConfig) -> "faiss.Index":
    import faiss

    if not hasattr(faiss, "GpuIndexCagra") or faiss.get_num_gpus() == 0:
        raise IndexUnavailable(
            "index kind cagra needs an NVIDIA GPU and a FAISS built with cuVS (such as faiss-gpu-cuvs); "
            "set kind to hnsw or ivf"
        )
    settings = faiss.GpuIndexCagraConfig()  # type: ignore[attr-defined]
    settings.graph_degree = config.neighbours
    return faiss.GpuIndexCagra(faiss.StandardGpuResources(), width, faiss.METRIC_INNER_PRODUCT, settings)


_EMPTY = {"flat": _empty_flat, "ivf": _empty_ivf, "hnsw": _empty_hnsw, "cagra": _empty_cagra}
