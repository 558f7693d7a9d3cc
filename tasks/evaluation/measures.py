"""From vectors to metrics: ranks of all test users, and what they come to in each slice."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from dmesr_model.features import ItemFeatures
from dmesr_model.metrics import hit_rate_at_k, mrr_at_k, ndcg_at_k
from dmesr_model.sequences import Split, count_events
from storage.approximate_index import IndexConfig
from storage.digests import digest_of, digest_of_bytes, digest_of_text
from storage.vector_index import NO_ROW, VectorIndex
from tasks.evaluation.content import ContentVectors, intra_list_diversity
from tasks.evaluation.index_recall import recall_against_exact
from tasks.evaluation.protocols import HeldOutUsers, rank_among_all, rank_among_negatives
from tasks.evaluation.scorers import Scorer
from tasks.evaluation.slices import ALL, slices_of

FULL = "full"
SAMPLED = "sampled"
LIST_LENGTH = 10
"""Items of a list that coverage, diversity and novelty look at."""

PER_USER = {"hr": hit_rate_at_k, "ndcg": ndcg_at_k, "mrr": mrr_at_k}


@dataclass(frozen=True)
class TestSet:
    """The same for every model: who is tested, on what, and what training knew.

    Args:
        train_events_N: training events of each item.
        masks: for each slice, which test users belong to it, bool [H].
    """

    __test__ = False  # no test case, whatever its name says

    split: Split
    features: ItemFeatures
    users: HeldOutUsers
    train_events_N: np.ndarray
    masks: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        split: Split,
        features: ItemFeatures,
        facts: pl.DataFrame,
        head_share: float,
        history_edges: Sequence[int],
    ) -> "TestSet":
        return cls(
            split=split,
            features=features,
            users=HeldOutUsers.of(split.test, features.item_count),
            train_events_N=count_events(split.train, features.item_count)[1:],
            masks=slices_of(split, features, facts, head_share, history_edges),
        )

    @cached_property
    def digest(self) -> str:
        """Digest of who is tested on what among which items; the same for every model."""
        seen = self.users.seen
        arrays = (self.users.target_row_H, seen.offsets, seen.rows)
        ids = (self.split.test.histories.user_ids, self.features.item_ids)
        texts = [digest_of_text("\n".join(f"{len(name)}:{name}" for name in names)) for names in ids]
        return digest_of([*texts, *(digest_of_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays)])


@dataclass(frozen=True)
class Measured:
    """One model's results.

    Args:
        ranks: for each protocol, the rank of each test user's target, int32 [H].
        beyond_accuracy: coverage, diversity and novelty of the best LIST_LENGTH; None where undefined.
        index_recall: for each k, the share of the exact best k that an approximate index found; empty for the exact.
        recall_users: test users that this was measured on.
    """

    ranks: dict[str, np.ndarray]
    beyond_accuracy: dict[str, float | None]
    index_recall: dict[str, float] = field(default_factory=dict)
    recall_users: int = 0

    def mean_ndcg(self, k: int) -> float | None:
        return _mean(ndcg_at_k(self.ranks[FULL], k))


def measure(
    scorer: Scorer, test: TestSet, ks: Sequence[int], negatives: int, seed: int, config: IndexConfig | None = None
) -> Measured:
    """Rank every test user's target under each protocol, a block of users at a time.

    Raises VectorError where the model's vectors hold NaN.
    """
    config = config or IndexConfig()
    index = VectorIndex(scorer.items_ND, config)
    depth = max(*ks, LIST_LENGTH)
    full, sampled, lists = [], [], ListStatistics(test)
    for users_B in test.users.blocks():
        users_BD = scorer.users(users_B)
        ranking = rank_among_all(index, scorer.items_ND, users_BD, test.users, users_B, depth)
        full.append(ranking.rank_B)
        lists.add(ranking.best_BK[:, :LIST_LENGTH])
        if negatives:
            sampled.append(rank_among_negatives(scorer.items_ND, users_BD, test.users, users_B, negatives, seed))
    ranks = {FULL: _joined(full)} | ({SAMPLED: _joined(sampled)} if negatives else {})
    if config.is_exact:
        return Measured(ranks, lists.means())
    recall, users = recall_against_exact(
        index,
        scorer.items_ND,
        np.arange(test.users.count),
        scorer.users,
        test.users.seen.select,
        ks,
        config.recall_users,
    )
    return Measured(ranks, lists.means(), recall, users)


class ListStatistics:
    """Gathers what the recommended lists look like, apart from whether they are right."""

    def __init__(self, test: TestSet) -> None:
        self._content = ContentVectors(test.features)
        self._shown_N = np.zeros(test.users.item_count, dtype=bool)
        events_N = test.train_events_N
        # As if each item had one event more, so that an item never seen is novel and not infinitely so.
        self._surprise_N = -np.log2((events_N + 1) / (events_N.sum() + max(len(events_N), 1)))
        self._diversity: list[np.ndarray] = []
        self._novelty: list[np.ndarray] = []

    def add(self, best_BK: np.ndarray) -> None:
        present_BK = best_BK != NO_ROW
        rows_K, place = np.unique(best_BK[present_BK], return_inverse=True)
        self._shown_N[rows_K] = True
        self._novelty.append(self._surprise_N[best_BK[present_BK]])
        local_BK = np.full(best_BK.shape, NO_ROW)
        local_BK[present_BK] = place
        if len(rows_K):
            self._diversity.append(intra_list_diversity(self._content.of(rows_K), local_BK))

    def means(self) -> dict[str, float | None]:
        diversity = _joined(self._diversity)
        return {
            f"coverage@{LIST_LENGTH}": _mean(self._shown_N.astype(np.float64)) if self._novelty else None,
            f"diversity@{LIST_LENGTH}": _mean(diversity[~np.isnan(diversity)]),
            f"novelty@{LIST_LENGTH}": _mean(_joined(self._novelty)),
        }


def metric_rows(measured: Measured, test: TestSet, ks: Sequence[int]) -> pl.DataFrame:
    """Return protocol, slice, metric, value, users: null where a slice has no user."""
    rows = [
        (protocol, name, f"{metric}@{k}", _mean(gain(ranks, k)[mask]), int(mask.sum()))
        for protocol, ranks in measured.ranks.items()
        for metric, gain in PER_USER.items()
        for k in ks
        for name, mask in test.masks.items()
    ]
    rows += [(FULL, ALL, name, value, test.users.count) for name, value in measured.beyond_accuracy.items()]
    rows += [(FULL, ALL, name, value, measured.recall_users) for name, value in measured.index_recall.items()]
    schema = {"protocol": pl.String, "slice": pl.String, "metric": pl.String, "value": pl.Float64, "users": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _joined(blocks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(blocks) if blocks else np.zeros(0)
