"""Which users go into which step, and the arrays of a step: histories, targets, and its unique items.

Everything random here comes from (seed, epoch, step), so any step can be rebuilt alone: that is what lets a killed run
resume in the middle of an epoch, and several processes share out one batch.
"""

from dataclasses import dataclass

import numpy as np

from dmesr_model.features import PAD_INDEX
from dmesr_model.sequences import Sequences

FEWEST_TRAINING_EVENTS = 2
"""A sequence trains only if it has an event to start from and one to predict."""
_BATCHES_PER_POOL = 16


@dataclass(frozen=True)
class SequenceBatch:
    """B rows, training sequences padded on the right with PAD_INDEX.

    Args:
        history_BT: int64 item_index.
        target_BT: int64 item_index to predict at each position; PAD_INDEX where nothing is predicted.
        masked_BT: bool, positions that a bidirectional backbone sees as masks; all False for a causal one.
        copies: rows that show the same sequence, one after the other.
    """

    history_BT: np.ndarray
    target_BT: np.ndarray
    masked_BT: np.ndarray
    copies: int = 1

    def part(self, rank: int, processes: int) -> "SequenceBatch":
        """Sequences rank, rank + processes, ... with all their copies."""
        rows_B = np.arange(len(self.history_BT))
        own_B = rows_B // self.copies % processes == rank
        return SequenceBatch(self.history_BT[own_B], self.target_BT[own_B], self.masked_BT[own_B], self.copies)


def plan_epoch(lengths_U: np.ndarray, batch_size: int, max_length: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Users of each step of an epoch, as positions; every user with enough events once.

    Users are shuffled, sorted by length within pools of a few batches so that little is padding, and the batches are
    shuffled again.
    """
    random = np.random.default_rng([seed, epoch])
    users = random.permutation(np.flatnonzero(lengths_U >= FEWEST_TRAINING_EVENTS))
    pool_size = batch_size * _BATCHES_PER_POOL
    batches: list[np.ndarray] = []
    for start in range(0, len(users), pool_size):
        pool = users[start : start + pool_size]
        by_length = pool[np.argsort(np.minimum(lengths_U[pool], max_length + 1), kind="stable")]
        batches.extend(by_length[first : first + batch_size] for first in range(0, len(by_length), batch_size))
    return [batches[position] for position in random.permutation(len(batches))]


def causal_batch(sequences: Sequences, users_B: np.ndarray, max_length: int) -> SequenceBatch:
    """Every event but the last is history, every event but the first is a target, of the last max_length + 1."""
    window_BT = pad_histories(sequences, users_B, max_length + 1)
    history_BT, target_BT = window_BT[:, :-1], window_BT[:, 1:]
    history_BT = np.where(target_BT == PAD_INDEX, PAD_INDEX, history_BT)
    return SequenceBatch(history_BT, target_BT, np.zeros(history_BT.shape, dtype=bool))


def cloze_batch(
    sequences: Sequences,
    users_B: np.ndarray,
    max_length: int,
    mask_share: float,
    last_share: float,
    random: np.random.Generator,
    copies: int = 1,
) -> SequenceBatch:
    """Masked positions are targets (Sun et al. 2019, section 3.6).

    Some sequences end early, at a random event, which is masked: it is predicted from what came before it alone, as in
    serving. Masks elsewhere are filled from both sides, which is an easier task, and another one.

    Args:
        mask_share: share of positions masked; at least one a sequence.
        last_share: share of rows that end at a random event.
        copies: rows of each sequence, each with masks and an end of its own.
    """
    users_B = np.repeat(users_B, copies)
    whole_BT = pad_histories(sequences, users_B, max_length)
    length_B = (whole_BT != PAD_INDEX).sum(axis=1)
    ends_early_B = random.random(len(users_B)) < last_share
    end_B = np.where(ends_early_B, _draw_ends(length_B, random), length_B)
    valid_BT = np.arange(max(int(end_B.max(initial=0)), 1)) < end_B[:, None]
    history_BT = np.where(valid_BT, whole_BT[:, : valid_BT.shape[1]], PAD_INDEX)
    draw_BT = np.where(valid_BT, random.random(history_BT.shape), np.inf)
    masked_BT = draw_BT < mask_share
    rows = np.arange(len(users_B))
    masked_BT[rows[ends_early_B], end_B[ends_early_B] - 1] = True
    none_B = ~masked_BT.any(axis=1)
    masked_BT[rows[none_B], draw_BT.argmin(axis=1)[none_B]] = True
    return SequenceBatch(history_BT, np.where(masked_BT, history_BT, PAD_INDEX), masked_BT, copies)


def _draw_ends(length_B: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How many events each sequence keeps: from FEWEST_TRAINING_EVENTS to all, each as likely."""
    choices_B = np.maximum(length_B - FEWEST_TRAINING_EVENTS + 1, 1)
    drawn_B = np.floor(random.random(len(length_B)) * choices_B).astype(np.int64)
    return np.minimum(FEWEST_TRAINING_EVENTS + drawn_B, length_B)


def pad_histories(sequences: Sequences, users_B: np.ndarray, longest: int) -> np.ndarray:
    """The last `longest` events of each user, int64 [B, T], padded on the right; T is the longest that occurs."""
    ends_B = np.asarray(sequences.offsets)[users_B + 1]
    lengths_B = np.minimum(ends_B - np.asarray(sequences.offsets)[users_B], longest)
    steps_T = np.arange(max(int(lengths_B.max(initial=0)), 1))
    valid_BT = steps_T < lengths_B[:, None]
    events_BT = np.where(valid_BT, (ends_B - lengths_B)[:, None] + steps_T, 0)
    padded_BT = np.full(valid_BT.shape, PAD_INDEX, dtype=np.int64)
    padded_BT[valid_BT] = np.asarray(sequences.item_index)[events_BT[valid_BT]]
    return padded_BT


def distinct_events(batch: SequenceBatch) -> tuple[np.ndarray, np.ndarray]:
    """(sequence, item_index) of each item that a sequence holds in any of its copies, event or target, once."""
    events_BE = np.concatenate([batch.history_BT, batch.target_BT], axis=1)
    stride = int(events_BE.max(initial=PAD_INDEX)) + 1
    sequence_B = np.arange(len(events_BE)) // batch.copies
    key_BE = sequence_B[:, None] * stride + events_BE
    sequence_X, item_index_X = np.divmod(np.unique(key_BE[events_BE != PAD_INDEX]), stride)
    return sequence_X, item_index_X


def unique_items(*item_index: np.ndarray) -> np.ndarray:
    """The different item_index in these arrays, ascending, without PAD_INDEX; flags take less time than sorting."""
    found = np.zeros(max(int(part.max(initial=PAD_INDEX)) for part in item_index) + 1, dtype=bool)
    for part in item_index:
        found[part.ravel()] = True
    found[PAD_INDEX] = False
    return np.flatnonzero(found)


def rows_of(item_index: np.ndarray, unique_N: np.ndarray) -> np.ndarray:
    """Where each item stands in the ascending `unique_N`, which has it; 0 for PAD_INDEX, which callers mask."""
    row_of = np.zeros(int(unique_N.max(initial=PAD_INDEX)) + 1, dtype=np.int64)
    row_of[unique_N] = np.arange(len(unique_N))
    return row_of[item_index]
