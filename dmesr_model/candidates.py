"""The items that a sampled loss compares a step's targets with; all positions of the step share them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmesr_model.batches import FEWEST_TRAINING_EVENTS, unique_items
from dmesr_model.sequences import Sequences


@dataclass(frozen=True)
class Candidates:
    """C candidates and how likely each was to be one, which keeps an estimated sum over all items free of bias.

    Args:
        item_index_C: int64, ascending.
        chance_C: probability of being a candidate, for positions of sequences that don't hold the item.
        own_chance: the same for the items of a position's own sequence, which are in the step for certain.
    """

    item_index_C: np.ndarray
    chance_C: np.ndarray
    own_chance: float


@dataclass(frozen=True)
class HistoryCounts:
    """How many histories of each length hold each item, which tells how likely a step is to show it.

    Batches are of similar lengths (`batches.plan_epoch`); what long histories hold is seldom in a batch of short ones.

    Args:
        offsets: int64 [I + 2]; the entries of the item with item_index i stand at offsets[i]:offsets[i + 1].
        length_X: int64, events that count of the histories of an entry.
        histories_X: int64, how many histories of that length hold the item.
        pairs_L: int64, pairs of a history and an item that it holds, by the history's length.
    """

    offsets: np.ndarray
    length_X: np.ndarray
    histories_X: np.ndarray
    pairs_L: np.ndarray

    @classmethod
    def count(cls, sequences: Sequences, item_count: int, most: int) -> "HistoryCounts":
        """Of each history with enough events to train the latest `most` events count."""
        lengths_U = np.where(sequences.lengths < FEWEST_TRAINING_EVENTS, 0, np.minimum(sequences.lengths, most))
        user_E = np.repeat(np.arange(sequences.user_count), sequences.lengths)
        from_end_E = np.repeat(sequences.offsets[1:], sequences.lengths) - np.arange(len(sequences.item_index))
        counts_E = from_end_E <= lengths_U[user_E]
        key_E = user_E * (item_count + 1) + np.asarray(sequences.item_index)
        user_P, item_P = np.divmod(np.unique(key_E[counts_E]), item_count + 1)
        entry_X, histories_X = np.unique(item_P * (most + 1) + lengths_U[user_P], return_counts=True)
        item_X, length_X = np.divmod(entry_X, most + 1)
        return cls(
            offsets=np.searchsorted(item_X, np.arange(item_count + 2)),
            length_X=length_X,
            histories_X=histories_X,
            pairs_L=np.bincount(lengths_U[user_P], minlength=most + 1),
        )

    def share_of_others(self, shown_L: np.ndarray, sequences: int) -> np.ndarray:
        """Share of `pairs_L` that a step shows, leaving out one of its sequences: what it doesn't hold, others show.

        Args:
            shown_L: pairs of a history and an item that the step shows, by the history's length.
            sequences: of the step.
        """
        own_L = shown_L / sequences
        others_L = self.pairs_L - own_L
        return np.divide(shown_L - own_L, others_L, out=np.zeros(len(others_L)), where=others_L > 0)

    def chance_in_step(self, item_index_C: np.ndarray, share_L: np.ndarray) -> np.ndarray:
        """Chance that a step shows an item: it does unless all histories that hold it are elsewhere. float64 [C].

        Args:
            share_L: share of `pairs_L` that the step shows.
        """
        first_C, entries_C = self.offsets[item_index_C], np.diff(self.offsets)[item_index_C]
        within_X = np.arange(entries_C.sum()) - np.repeat(np.cumsum(entries_C) - entries_C, entries_C)
        chosen_X = np.repeat(first_C, entries_C) + within_X
        with np.errstate(divide="ignore"):  # log 0: all histories of that length are in the step
            elsewhere_X = self.histories_X[chosen_X] * np.log1p(-share_L)[self.length_X[chosen_X]]
        candidate_X = np.repeat(np.arange(len(item_index_C)), entries_C)
        return -np.expm1(np.bincount(candidate_X, weights=elsewhere_X, minlength=len(item_index_C)))


@dataclass(frozen=True)
class CandidateRows:
    """Candidates as rows of a step's encoded items, for the losses.

    Args:
        rows_C: int64 rows.
        log_chance_BC: float32, log of the chance of being a candidate, for the positions of each sequence.
    """

    rows_C: Tensor
    log_chance_BC: Tensor

    def to(self, device: torch.device) -> "CandidateRows":
        return CandidateRows(self.rows_C.to(device), self.log_chance_BC.to(device))


def draw_candidates(
    trained_index_N: np.ndarray,
    history_counts: HistoryCounts,
    step_items_X: np.ndarray,
    share_L: np.ndarray,
    negatives: int,
    random: np.random.Generator,
) -> Candidates:
    """`negatives` trained items, each as likely as any other, and at most as many of the step's own.

    The step's own items are encoded in any case. Their chance follows from who holds them.

    Args:
        trained_index_N: item_index of the items that have training events.
        step_items_X: item_index of the step's sequences, ascending, each once; empty: candidates are drawn ones alone.
        share_L: of `HistoryCounts.share_of_others`.
    """
    drawn = min(negatives, len(trained_index_N))
    drawn_K = random.choice(trained_index_N, size=drawn, replace=False)
    drawn_chance = drawn / len(trained_index_N)
    kept = min(negatives, len(step_items_X))
    kept_chance = kept / max(len(step_items_X), 1)
    kept_X = random.choice(step_items_X, size=kept, replace=False) if kept < len(step_items_X) else step_items_X
    item_index_C = unique_items(drawn_K, kept_X)
    in_step_C = history_counts.chance_in_step(item_index_C, share_L)
    return Candidates(
        item_index_C=item_index_C,
        chance_C=1 - (1 - kept_chance * in_step_C) * (1 - drawn_chance),
        own_chance=1 - (1 - kept_chance) * (1 - drawn_chance),
    )
