"""Slices: which test users a metric is averaged over. Every threshold comes from training events alone."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.sequences import Split, count_events

ALL = "all"


def slices_of(
    split: Split, features: ItemFeatures, facts: pl.DataFrame, head_share: float, history_edges: Sequence[int]
) -> dict[str, np.ndarray]:
    """Return a mask bool [H] over the test users for each slice, in the order of the report.

    Args:
        facts: has_picture and failed_view of each item, in the order of the features.
        head_share: share of the items (users) that have training events and are called head: the busiest ones.
        history_edges: upper bounds, in training events, of the history-length slices; one more slice is above the last.
    """
    target_H = np.asarray(split.test.target_index_H) - 1
    events_N = count_events(split.train, features.item_count)[1:]
    train_length_H = split.test.histories.lengths - 1  # a test history is the training events and the validation event
    masks = {ALL: np.ones(len(target_H), dtype=bool)}
    masks |= _head_and_tail("items", events_N, head_share, events_N[target_H])
    masks["items_cold"] = events_N[target_H] == 0
    masks["items_no_picture"] = ~facts["has_picture"].to_numpy()[target_H]
    masks["items_failed_view"] = facts["failed_view"].to_numpy()[target_H]
    masks["items_missing_view"] = (np.asarray(features.coarse_index_NV) == ABSENT).any(axis=1)[target_H]
    masks |= _head_and_tail("users", split.train.lengths, head_share, train_length_H)
    return masks | _by_length(train_length_H, history_edges)


def head_threshold(counts: np.ndarray, head_share: float) -> float:
    """Return the fewest events of a head item (or user): those of the item at the last place of the head.

    The head is the `head_share` of all that have any event, rounded up; whoever ties with its last place belongs to
    it. Infinite where nobody has an event.
    """
    busiest = np.sort(counts[counts > 0])[::-1]
    if len(busiest) == 0:
        return float("inf")
    return float(busiest[int(np.ceil(head_share * len(busiest))) - 1])


def _head_and_tail(what: str, counts: np.ndarray, head_share: float, counts_H: np.ndarray) -> dict[str, np.ndarray]:
    threshold = head_threshold(counts, head_share)
    return {f"{what}_head": counts_H >= threshold, f"{what}_tail": (counts_H > 0) & (counts_H < threshold)}


def _by_length(length_H: np.ndarray, edges: Sequence[int]) -> dict[str, np.ndarray]:
    bounds = [0, *edges]
    masks = {
        f"history_{low + 1}_{high}": (length_H > low) & (length_H <= high)
        for low, high in zip(bounds, edges, strict=False)
    }
    return masks | {f"history_over_{bounds[-1]}": length_H > bounds[-1]}
