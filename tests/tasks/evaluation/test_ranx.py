import numpy as np
import pytest
from ranx import Qrels, Run
from ranx import evaluate as ranx_evaluate

from dmesr_model.sequences import HeldOut, Sequences
from storage.vector_index import VectorIndex
from tasks.evaluation.measures import PER_USER
from tasks.evaluation.protocols import HeldOutUsers, rank_among_all


def test_metrics_equal_ranx_on_random_rankings_with_ties() -> None:
    random = np.random.default_rng(5)
    items = random.integers(-2, 3, size=(60, 4)).astype(np.float32)
    vectors = random.integers(-2, 3, size=(300, 4)).astype(np.float32)
    targets = random.integers(0, 60, size=300)
    histories = Sequences.from_histories([[1]] * 300, [str(user) for user in range(300)])
    users = HeldOutUsers.of(HeldOut(histories, (targets + 1).astype(np.int32)), 60)
    ranks = rank_among_all(VectorIndex(items), items, vectors, users, np.arange(300), depth=20).rank_B
    # ranx breaks ties its own way; a half point less makes the target the last of those it ties with.
    scores = vectors @ items.T
    scores[np.arange(300), targets] -= 0.5
    scores[:, 0] = np.where(targets == 0, scores[:, 0], -1e9)  # item 0 is in every history
    qrels = Qrels({str(user): {str(target): 1} for user, target in enumerate(targets)})
    run = Run({str(user): {str(row): float(score) for row, score in enumerate(scores[user])} for user in range(300)})
    for k in (5, 10, 20):
        names = {"hr": f"hit_rate@{k}", "ndcg": f"ndcg@{k}", "mrr": f"mrr@{k}"}
        wanted = ranx_evaluate(qrels, run, list(names.values()))
        for metric, gain in PER_USER.items():
            assert gain(ranks, k).mean() == pytest.approx(wanted[names[metric]], abs=1e-9)
