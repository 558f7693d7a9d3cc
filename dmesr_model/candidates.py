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
        log_chance_BC: float32, log of the chance of being a candidate, for the positions of each sequence.
    """

    rows_C: Tensor
    log_chance_BC: Tensor

    def to(self, device: torch.device) -> "CandidateRows":
        return CandidateRows(self.rows_C.to(device), self.log_chance_BC.to(device))


def draw_candidates(
    trained_index_N: np.ndarray,
    histories_N: np.ndarray,
    step_items_X: np.ndarray,
    share: float,
    negatives: int,
    random: np.random.Generator,
) -> Candidates:
    """`negatives` trained items, each as likely as any other, and at most as many of the step's own.

    The step's own items are encoded in any case. Their chance follows from their popularity: an item is in a step
    unless all histories that hold it are elsewhere.

    Args:
        trained_index_N: item_index of the items that have training events.
        histories_N: how many training histories hold each of them.
        step_items_X: item_index of the step's sequences, ascending, each once; empty: candidates are drawn ones alone.
        share: share that the step has of all pairs of a history and an item that it holds.
    """
    drawn = min(negatives, len(trained_index_N))
    drawn_K = random.choice(trained_index_N, size=drawn, replace=False)
    drawn_chance = drawn / len(trained_index_N)
    kept = min(negatives, len(step_items_X))
    kept_chance = kept / max(len(step_items_X), 1)
    kept_X = random.choice(step_items_X, size=kept, replace=False) if kept < len(step_items_X) else step_items_X
    item_index_C = unique_items(drawn_K, kept_X)
    in_step_C = 1 - (1 - share) ** histories_N[np.searchsorted(trained_index_N, item_index_C)]
    return Candidates(
        item_index_C=item_index_C,
        chance_C=1 - (1 - kept_chance * in_step_C) * (1 - drawn_chance),
        own_chance=1 - (1 - kept_chance) * (1 - drawn_chance),
    )
