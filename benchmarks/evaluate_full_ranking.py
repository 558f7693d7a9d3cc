"""Seconds, CPU seconds and peak memory of a whole evaluation (both protocols, list statistics) over made vectors.

python benchmarks/evaluate_full_ranking.py --users 100000 --items 100000 --width 128
"""

import argparse
import resource
import time

import numpy as np
import polars as pl

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences, leave_one_out
from tasks.evaluation.measures import TestSet, measure
from tasks.evaluation.scorers import Scorer

_EVENTS = 20  # of each user
_ENCODER_WIDTH = 384


def made_test_set(users: int, items: int, random: np.random.Generator) -> TestSet:
    offsets = np.arange(users + 1, dtype=np.int64) * _EVENTS
    events = random.integers(1, items + 1, size=users * _EVENTS).astype(np.int32)
    sequences = Sequences(offsets, events, tuple(str(user) for user in range(users)))
    features = ItemFeatures(
        item_ids=tuple(str(item) for item in range(items)),
        views=("image",),
        vectors_UE=random.normal(size=(min(items, 10_000), _ENCODER_WIDTH)).astype(np.float32),
        coarse_index_NV=random.integers(0, min(items, 10_000), size=(items, 1)).astype(np.int32),
        segment_index_NL=np.zeros((items, 0), np.int32),
    )
    facts = pl.DataFrame({"has_picture": [True] * items, "failed_view": [False] * items})
    return TestSet.of(leave_one_out(sequences), features, facts, 0.2, (5, 10, 20, 50))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("users", 100_000), ("items", 100_000), ("width", 128)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--full-only", action="store_true", help="leave out the second pass, with 100 negatives")
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    test = made_test_set(arguments.users, arguments.items, random)
    items_ND = random.normal(size=(arguments.items, arguments.width)).astype(np.float32)
    users_UD = random.normal(size=(arguments.users, arguments.width)).astype(np.float32)
    passes = ((0, "full ranking"), (100, "full ranking and 100 negatives"))
    for negatives, what in passes[:1] if arguments.full_only else passes:
        started, started_cpu = time.monotonic(), time.process_time()
        measure(Scorer(items_ND, lambda users_B: users_UD[users_B]), test, (5, 10, 20), negatives, seed=0)
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - started_cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what}: {seconds:.1f} s ({cpu_seconds:.1f} s of CPU), peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
