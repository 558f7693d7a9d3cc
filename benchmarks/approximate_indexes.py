"""Approximate indexes against the exact one: seconds to build, users a second, memory, recall, on made vectors.

OMP_NUM_THREADS=2 python benchmarks/approximate_indexes.py --users 1000 --items 100000

Vectors are drawn around 1,000 centres, as items of a catalog lie in groups, their lengths spread as those of trained
items do; a user's vector lies between three items'. Each user has 20 seen items to leave out. The indexes are searched
in turn, `rounds` times; the best time of each counts.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from storage.approximate_index import IndexConfig
from storage.vector_index import Excluded, VectorIndex
from tasks.evaluation.index_recall import share_found

_GROUPS = 1000
_SEEN = 20
_CONFIGS = {
    "flat": IndexConfig(),
    "ivf, 8 probes": IndexConfig(kind="ivf", probes=8),
    "ivf, 32 probes": IndexConfig(kind="ivf", probes=32),
    "ivf, 128 probes": IndexConfig(kind="ivf", probes=128),
    "hnsw, effort 64": IndexConfig(kind="hnsw", search_effort=64),
    "hnsw, effort 256": IndexConfig(kind="hnsw", search_effort=256),
}


def made_vectors(users: int, items: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(users_UD, items_ND)."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(_GROUPS, width))
    items_ND = centres[random.integers(0, _GROUPS, size=items)] + random.normal(size=(items, width))
    items_ND *= np.exp(0.2 * random.normal(size=(items, 1)))
    users_UD = items_ND[random.integers(0, items, size=(users, 3))].mean(axis=1) + random.normal(size=(users, width))
    return users_UD.astype(np.float32), items_ND.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("users", 1000), ("items", 100_000), ("width", 128), ("k", 20), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    users_UD, items_ND = made_vectors(arguments.users, arguments.items, arguments.width)
    seen = np.random.default_rng(1).integers(0, arguments.items, size=(arguments.users, _SEEN))
    excluded = Excluded.from_lists(seen.tolist())
    indexes, built, sizes = {}, {}, {}
    for name, config in _CONFIGS.items():
        started = time.monotonic()
        indexes[name] = VectorIndex(items_ND, config)
        built[name], sizes[name] = time.monotonic() - started, saved_bytes(indexes[name])
    seconds: dict[str, list[float]] = {name: [] for name in indexes}
    rows = {}
    for _ in range(arguments.rounds):
        for name, index in indexes.items():
            started = time.monotonic()
            _, rows[name] = index.search_without(users_UD, arguments.k, excluded)
            seconds[name].append(time.monotonic() - started)
    print(f"| index | built in s | MiB | users/s | faster than exact | recall@{arguments.k} |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in indexes:
        best, recall = min(seconds[name]), share_found(rows[name], rows["flat"]).mean()
        ratio = min(seconds["flat"]) / best
        size = sizes[name] / 2**20
        rate = arguments.users / best
        print(f"| {name} | {built[name]:.1f} | {size:.0f} | {rate:,.0f} | {ratio:.1f} | {recall:.3f} |")


def saved_bytes(index: VectorIndex) -> int:
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "index", [str(row) for row in range(index.count)])
        return (Path(folder) / "index" / "vectors.faiss").stat().st_size


if __name__ == "__main__":
    main()
