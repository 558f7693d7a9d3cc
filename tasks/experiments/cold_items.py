"""Items that training never saw: which they are, what training sees without them, and who is tested on finding them.

A share of the items that have events is held out whole. A user's last event on one of them is the test event. Training
sees the user's events before it, without those on other held-out items; nothing that came after it, so that no model
knows the user's future. The target is ranked among all other items, held-out ones too, but for those the user had.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dmesr_model.features import ABSENT
from dmesr_model.sequences import (
    HeldOut,
    Sequences,
    Split,
    count_events,
    hold_out_last,
    keep_events,
    select_users,
)
from storage.digests import digest_of
from storage.folders import whole_folder
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluate import EvaluateStage
from tasks.evaluation.measures import TestSet
from tasks.evaluation.protocols import HeldOutUsers, seen_rows
from tasks.evaluation.slices import ALL
from tasks.experiments.config import ColdItemsConfig
from tasks.features import Dataset, DatasetKeys, check_unchanged, open_features, sequences_digest
from tasks.ingest.filters import FilterConfig

_FORMAT = 1  # raise it when the same events come to be split otherwise
TRAINER_SPLIT = "last_event"
"""How the trainer splits what it sees: the test events are not in it, so only validation is held out."""


@dataclass(frozen=True)
class ColdSplit:
    """Events without cold items, and the test events on cold items.

    Args:
        known: what training sees, of all users.
        test: of each tested user, the known events, and the cold item to be found.
        had: of each tested user, every event before the target, cold items too: not to be recommended again.
    """

    known: Sequences
    test: HeldOut
    had: Sequences


def choose_cold_items(events_N: np.ndarray, config: ColdItemsConfig) -> np.ndarray:
    """Return which items are cold, bool [N]: `share` of those with events, rounded up, but never all of them."""
    seen = np.flatnonzero(events_N)
    count = min(int(np.ceil(config.share * len(seen))), max(len(seen) - 1, 0))
    cold_N = np.zeros(len(events_N), dtype=bool)
    cold_N[np.random.default_rng(config.seed).choice(seen, size=count, replace=False)] = True
    return cold_N


def split_cold(sequences: Sequences, cold_N: np.ndarray) -> ColdSplit:
    """Split at each user's last event on a cold item."""
    items_E = np.asarray(sequences.item_index)
    user_E = np.repeat(np.arange(sequences.user_count), sequences.lengths)
    place_E = np.arange(len(items_E))
    cold_E = cold_N[items_E - 1]
    end_U = np.asarray(sequences.offsets[1:]).copy()
    last_cold_U = np.full(sequences.user_count, -1)
    np.maximum.at(last_cold_U, user_E[cold_E], place_E[cold_E])
    has_target_U = last_cold_U >= 0
    end_U[has_target_U] = last_cold_U[has_target_U]
    before_E = place_E < end_U[user_E]
    known = keep_events(sequences, before_E & ~cold_E)
    tested = np.flatnonzero(has_target_U & (known.lengths > 0))
    return ColdSplit(
        known=known,
        test=HeldOut(select_users(known, tested), items_E[last_cold_U[tested]].astype(np.int32)),
        had=select_users(keep_events(sequences, before_E), tested),
    )


class ExperimentDataset(Dataset):
    """A dataset that stays as it was first read: trainings take hours, and nights commit meanwhile."""

    def as_it_is_now(self) -> "ExperimentDataset":
        return self

    def keep(self) -> None:
        """Read all of it from the store now."""
        self.sequences_folder()
        self.features_folder()


class DatasetWithoutColdItems(ExperimentDataset):
    """A dataset whose training sequences lack the cold items' events; the features still hold every item."""

    def __init__(
        self,
        store: Store,
        describe: DescribeConfig,
        embed: EmbedConfig,
        filters: FilterConfig,
        work_folder: Path,
        cold: ColdItemsConfig,
    ) -> None:
        super().__init__(store, describe, embed, filters, work_folder)
        self._cold = cold

    @cached_property
    def keys(self) -> DatasetKeys:
        whole = super().keys
        # Models of another choice of cold items, or of none, were trained on some of these: they are of another kind.
        configuration = digest_of([whole.configuration, self._choice])
        return replace(whole, sequences=self._without_cold(whole.sequences), configuration=configuration)

    @property
    def _choice(self) -> dict[str, object]:
        return {"format": _FORMAT, **self._cold.model_dump(mode="json")}

    def _without_cold(self, sequences_key: str) -> str:
        return digest_of(["without cold items", sequences_key, self._choice])

    @cached_property
    def cold_split(self) -> ColdSplit:
        sequences = self._read_sequences(self._filters)
        check_unchanged(self._without_cold(sequences_digest(sequences)), self.keys.sequences)
        return split_cold(sequences, choose_cold_items(count_events(sequences, self.keys.items)[1:], self._cold))

    def sequences_folder(self) -> Path:
        """Return the folder of the known events, made now if it isn't there."""
        folder, known = self._work_folder / "sequences" / self.keys.sequences, self.cold_split.known
        if not folder.exists():
            with whole_folder(folder) as unfinished:
                known.save(unfinished)
        return folder


class EvaluateColdItems(EvaluateStage):
    """Evaluates on the cold items; its `dataset` is a DatasetWithoutColdItems, which its keys follow."""

    name = "experiment_evaluate"
    dataset: Dataset

    def _test_set(self) -> TestSet:
        assert isinstance(self.dataset, DatasetWithoutColdItems)
        features, facts = open_features(self.dataset.features_folder())
        cold = self.dataset.cold_split
        train, validation = hold_out_last(cold.known)
        target_row_H = cold.test.target_index_H.astype(np.int64) - 1
        missing_view_N = (np.asarray(features.coarse_index_NV) == ABSENT).any(axis=1)
        return TestSet(
            split=Split(train, validation, cold.test),
            features=features,
            users=HeldOutUsers(seen_rows(cold.had, target_row_H), target_row_H, features.item_count),
            train_events_N=count_events(train, features.item_count)[1:],
            masks={
                ALL: np.ones(len(target_row_H), dtype=bool),
                "items_no_picture": ~facts["has_picture"].to_numpy()[target_row_H],
                "items_missing_view": missing_view_N[target_row_H],
            },
        )
