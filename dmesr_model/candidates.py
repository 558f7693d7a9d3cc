"""The items that a sampled loss compares a step's targets with; all positions of the step share them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmesr_model.batches import unique_items


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
class CandidateRows:
    """Candidates as rows of a step's encoded items, for the losses.

    Args:
        rows_C: int64 rows.
        log_chance_C: float32, log probability of being a candidate, for sequences that don't hold the item.
        log_own_chance: float32 [], the same for items that the sequence holds.
        own_BC: bool, whether the sequence holds the item; [0, C] for losses that don't ask.
    """

    rows_C: Tensor
    log_chance_C: Tensor
    log_own_chance: Tensor
    own_BC: Tensor

    def to(self, device: torch.device) -> "CandidateRows":
        return CandidateRows(*(value.to(device) for value in vars(self).values()))


def draw_candidates(
    trained_index_N: np.ndarray,
    events_N: np.ndarray,
    step_items_X: np.ndarray,
    event_share: float,
    negatives: int,
    random: np.random.Generator,
) -> Candidates:
    """`negatives` trained items, each as likely as any other, and at most as many of the step's own.

    The step's own items are encoded in any case. Their chance follows from their popularity: an item is in a step
    unless all of its events are elsewhere. Twice in one history counts twice, which makes it a little high.

    Args:
        trained_index_N: item_index of the items that have training events.
        events_N: how many each of them has.
        step_items_X: item_index of the step's sequences, ascending, each once; empty: candidates are drawn ones alone.
        event_share: share of all training events that the step shows.
    """
    drawn = min(negatives, len(trained_index_N))
    drawn_K = random.choice(trained_index_N, size=drawn, replace=False)
    drawn_chance = drawn / len(trained_index_N)
    kept = min(negatives, len(step_items_X))
    kept_chance = kept / max(len(step_items_X), 1)
    kept_X = random.choice(step_items_X, size=kept, replace=False) if kept < len(step_items_X) else step_items_X
    item_index_C = unique_items(drawn_K, kept_X)
    in_step_C = 1 - (1 - event_share) ** events_N[np.searchsorted(trained_index_N, item_index_C)]
    return Candidates(
        item_index_C=item_index_C,
        chance_C=1 - (1 - kept_chance * in_step_C) * (1 - drawn_chance),
        own_chance=1 - (1 - kept_chance) * (1 - drawn_chance),
    )
