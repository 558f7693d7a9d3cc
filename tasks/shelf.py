"""The items on offer, ready to be searched: what a model finds for a user, and what goes to one without a history."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import polars as pl

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences, select_users
from storage.approximate_index import IndexConfig
from storage.schemas import ITEM_ID, USER_ID
from storage.vector_index import NO_ROW, Excluded, VectorIndex
from tasks.evaluation.index_recall import recall_against_exact
from tasks.evaluation.protocols import seen_rows
from tasks.evaluation.scorers import Scorer

BY_MODEL, BY_POPULARITY = "model", "popularity"
_USERS_PER_BLOCK = 1024


class Shelf:
    """The items on offer.

    Args:
        offered: bool [N], in the order of the features.
        items_ND: vectors of all N items.
        events_N: how often each was chosen, by anyone.
        config: how they are searched.
    """

    def __init__(
        self,
        features: ItemFeatures,
        offered: np.ndarray,
        items_ND: np.ndarray,
        events_N: np.ndarray,
        config: IndexConfig | None = None,
    ) -> None:
        rows = np.flatnonzero(offered)
        self.item_ids = [features.item_ids[row] for row in rows]
        self._vectors_ND = items_ND[rows]
        self.index = VectorIndex(self._vectors_ND, config)
        self._events = events_N[rows]
        self._place_of_row = np.full(len(offered), NO_ROW, dtype=np.int64)
        self._place_of_row[rows] = np.arange(len(rows))

    def best(self, scorer: Scorer, histories: Sequences, users: np.ndarray, k: int) -> Iterator[pl.DataFrame]:
        """Yield user_id, rank, item_id, score, source for these users, a block of users at a time.

        A user with a history gets the k best unseen items by the model. To one without, a model has nothing to say:
        they get the k most popular ones.
        """
        for start in range(0, len(users), _USERS_PER_BLOCK):
            users_B = users[start : start + _USERS_PER_BLOCK]
            known_B = histories.lengths[users_B] > 0
            if known_B.any():
                yield self._by_model(scorer, histories, users_B[known_B], k)
            if not known_B.all():
                names = [histories.user_ids[user] for user in users_B[~known_B]]
                yield pl.DataFrame({USER_ID: names}).join(self.popular(k), how="cross")

    def recall(self, scorer: Scorer, histories: Sequences, k: int, sample: int) -> dict[str, float]:
        """`index_recall@k` of the index over a sample of the users with a history; empty where there is none."""
        users = np.flatnonzero(histories.lengths > 0)
        seen_by = partial(self._seen_by, histories)
        return recall_against_exact(self.index, self._vectors_ND, users, scorer.users, seen_by, (k,), sample)[0]

    def popular(self, k: int) -> pl.DataFrame:
        """rank, item_id, score, source of the k items with the most events; ties in the order of ids."""
        order = np.argsort(-self._events, kind="stable")[:k]
        return pl.DataFrame(
            {
                "rank": np.arange(1, len(order) + 1),
                ITEM_ID: pl.Series(self.item_ids, dtype=pl.String).gather(order),
                "score": self._events[order].astype(np.float32),
                "source": pl.Series([BY_POPULARITY] * len(order), dtype=pl.String),
            }
        )

    def _by_model(self, scorer: Scorer, histories: Sequences, users_B: np.ndarray, k: int) -> pl.DataFrame:
        seen = self._seen_by(histories, users_B)
        scores_BK, places_BK = self.index.search_without(scorer.users(users_B), k, seen)
        user_F, rank_F = np.nonzero(places_BK != NO_ROW)
        ids, names = pl.Series(self.item_ids, dtype=pl.String), [histories.user_ids[user] for user in users_B]
        return pl.DataFrame(
            {
                USER_ID: pl.Series(names, dtype=pl.String).gather(user_F),
                "rank": rank_F + 1,
                ITEM_ID: ids.gather(places_BK[user_F, rank_F]),
                "score": scores_BK[user_F, rank_F],
                "source": pl.Series([BY_MODEL] * len(user_F), dtype=pl.String),
            }
        )

    def _seen_by(self, histories: Sequences, users_B: np.ndarray) -> Excluded:
        """Places on the shelf of what these users have seen and is on it."""
        seen = seen_rows(select_users(histories, users_B))
        places = self._place_of_row[seen.rows]
        kept = places != NO_ROW
        kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return Excluded(kept_before[seen.offsets], places[kept])


def unseen_left(histories: Sequences, offered: np.ndarray) -> pl.Series:
    """How many items on offer each user has not seen."""
    seen = seen_rows(histories)
    kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(offered[seen.rows])])
    return pl.Series(int(offered.sum()) - np.diff(kept_before[seen.offsets]))
