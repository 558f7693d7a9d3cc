"""User histories as one flat array with offsets, and how they are split into training, validation and test events."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dmesr_model.features import PAD_INDEX
from dmesr_model.files import replace_array, replace_text

EVENTS_TO_HOLD_OUT = 3
"""The fewest events of a user that leave one for training beside one for validation and one for test."""


@dataclass(frozen=True)
class Sequences:
    """The events of U users, each user's in time order.

    Args:
        offsets: int64 [U + 1]; user u's events stand at offsets[u]:offsets[u + 1].
        item_index: int32 [E]; 1-based positions in an ItemFeatures, never PAD_INDEX.
        user_ids: U ids of the caller's.
    """

    offsets: np.ndarray
    item_index: np.ndarray
    user_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "user_ids", tuple(str(user_id) for user_id in self.user_ids))
        if len(self.offsets) != len(self.user_ids) + 1 or self.offsets[0] != 0:
            raise ValueError(f"{len(self.user_ids)} users need {len(self.user_ids) + 1} offsets starting with 0")
        if (np.diff(self.offsets) < 0).any() or self.offsets[-1] != len(self.item_index):
            raise ValueError(f"offsets must not decrease and must end at the {len(self.item_index)} events")
        if len(self.item_index) and self.item_index.min() <= PAD_INDEX:
            raise ValueError(f"item_index must be above PAD_INDEX ({PAD_INDEX}); drop events of unknown items first")

    @property
    def user_count(self) -> int:
        return len(self.user_ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Events of each user, int64 [U]."""
        return np.diff(self.offsets)

    def history(self, user: int) -> np.ndarray:
        """Events of the user at this position, oldest first, int32."""
        return self.item_index[self.offsets[user] : self.offsets[user + 1]]

    def save(self, folder: Path) -> None:
        """Write the folder, an existing one file by file; what is mapped keeps the bytes of before."""
        folder.mkdir(parents=True, exist_ok=True)
        replace_array(folder / "offsets.npy", np.ascontiguousarray(self.offsets, dtype=np.int64))
        replace_array(folder / "item_index.npy", np.ascontiguousarray(self.item_index, dtype=np.int32))
        replace_text(folder / "sequences.json", json.dumps({"user_ids": self.user_ids}))

    @classmethod
    def open(cls, folder: Path) -> "Sequences":
        """Map a folder that `save` wrote."""
        about = json.loads((folder / "sequences.json").read_text())
        offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        item_index = np.load(folder / "item_index.npy", mmap_mode="r", allow_pickle=False)
        return cls(offsets=offsets, item_index=item_index, user_ids=tuple(about["user_ids"]))

    @classmethod
    def from_events(cls, user_ids: Sequence[str], item_ids: Sequence[str], catalog: Sequence[str]) -> "Sequences":
        """Group events, given in time order, by user; users in order of their first event. Ids are compared as texts.

        Events of items that are not in `catalog` (the item_ids of an ItemFeatures) are dropped, and so is a user
        who has no other events.
        """
        index_of = {str(item_id): position + 1 for position, item_id in enumerate(catalog)}
        histories: dict[str, list[int]] = {}
        for user_id, item_id in zip(user_ids, item_ids, strict=True):
            if (item_index := index_of.get(str(item_id))) is not None:
                histories.setdefault(str(user_id), []).append(item_index)
        return cls.from_histories(list(histories.values()), list(histories))

    @classmethod
    def from_histories(cls, histories: Sequence[Sequence[int]], user_ids: Sequence[str]) -> "Sequences":
        """One list of item_index a user, oldest event first."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        flat = [int(item_index) for history in histories for item_index in history]
        return cls(
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            item_index=np.array(flat, dtype=np.int32),
            user_ids=tuple(user_ids),
        )


@dataclass(frozen=True)
class HeldOut:
    """One event a user to be predicted, and what was known before it.

    Args:
        histories: events before the target, of the H users who have a target.
        target_index_H: int32, the item_index to predict.
    """

    histories: Sequences
    target_index_H: np.ndarray


@dataclass(frozen=True)
class Split:
    """Training events of all users, and the held-out events of those with EVENTS_TO_HOLD_OUT or more."""

    train: Sequences
    validation: HeldOut
    test: HeldOut


def leave_one_out(sequences: Sequences) -> Split:
    """Last event of a user: test; the one before: validation; the rest: training.

    A user with fewer than EVENTS_TO_HOLD_OUT events gives all of them to training and is not evaluated. A test history
    holds the training events and the validation event.
    """
    held_out = sequences.lengths >= EVENTS_TO_HOLD_OUT
    return Split(
        train=_drop_last(sequences, np.where(held_out, 2, 0)),
        validation=_hold_out(sequences, held_out, events_from_end=2),
        test=_hold_out(sequences, held_out, events_from_end=1),
    )


def hold_out_last(sequences: Sequences) -> tuple[Sequences, HeldOut]:
    """Training events and validation events for a model that will serve: no event is kept from it for a test.

    The last event of a user with two or more is validation; all others are training.
    """
    held_out = sequences.lengths >= EVENTS_TO_HOLD_OUT - 1
    train = _drop_last(sequences, held_out.astype(np.int64))
    return train, _hold_out(sequences, held_out, events_from_end=1)


def cut_into_windows(sequences: Sequences, most: int, shared: int) -> Sequences:
    """Histories of more than `most` events as several rows, counted from the newest event; user ids repeat.

    Neighbouring windows share `shared` events. With 1, the oldest event of a window is the newest of the one before it,
    so that every event but a user's first follows another in exactly one window.
    """
    step = most - shared
    count_U = np.maximum(-(-(sequences.lengths - shared) // step), 1)
    user_W = np.repeat(np.arange(sequences.user_count), count_U)
    newer_W = np.arange(len(user_W)) - np.repeat(np.cumsum(count_U) - count_U, count_U)  # windows of the user before it
    ends_W = sequences.offsets[1:][user_W] - newer_W * step
    starts_W = np.maximum(ends_W - most, sequences.offsets[:-1][user_W])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(ends_W - starts_W)])
    event = np.arange(offsets[-1]) + np.repeat(starts_W - offsets[:-1], ends_W - starts_W)
    user_ids = tuple(sequences.user_ids[user] for user in user_W)
    return Sequences(offsets=offsets, item_index=np.asarray(sequences.item_index)[event], user_ids=user_ids)


def count_events(sequences: Sequences, item_count: int) -> np.ndarray:
    """Popularity: events of each item, int64 [item_count + 1], indexed by item_index."""
    return np.bincount(sequences.item_index, minlength=item_count + 1)


def _drop_last(sequences: Sequences, dropped_U: np.ndarray) -> Sequences:
    end_E = np.repeat(sequences.offsets[1:] - dropped_U, sequences.lengths)
    return keep_events(sequences, np.arange(len(end_E)) < end_E)


def _hold_out(sequences: Sequences, held_out_U: np.ndarray, events_from_end: int) -> HeldOut:
    users = np.flatnonzero(held_out_U)
    histories = select_users(_drop_last(sequences, np.where(held_out_U, events_from_end, 0)), users)
    targets = np.asarray(sequences.item_index)[sequences.offsets[1:][users] - events_from_end]
    return HeldOut(histories=histories, target_index_H=targets.astype(np.int32))


def keep_events(sequences: Sequences, kept_E: np.ndarray) -> Sequences:
    """Without the events at which `kept_E` is False; all users stay."""
    if kept_E.all():
        return sequences
    kept_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept_E)])
    return Sequences(
        offsets=kept_before[np.asarray(sequences.offsets)],
        item_index=np.asarray(sequences.item_index)[kept_E],
        user_ids=sequences.user_ids,
    )


def select_users(sequences: Sequences, users: np.ndarray) -> Sequences:
    """The histories of the users at these positions, in this order."""
    lengths = sequences.lengths[users]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    events = np.repeat(np.asarray(sequences.offsets)[users], lengths) + within
    return Sequences(
        offsets=offsets,
        item_index=np.asarray(sequences.item_index)[events],
        user_ids=tuple(sequences.user_ids[user] for user in users),
    )
