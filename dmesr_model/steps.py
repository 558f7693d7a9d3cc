"""Builds the StepBatch of any (epoch, step) of a run: sequences, targets, candidates, and the step's unique items."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from dmesr_model.batches import (
    SequenceBatch,
    causal_batch,
    cloze_batch,
    distinct_events,
    plan_epoch,
    rows_of,
    unique_items,
)
from dmesr_model.candidates import CandidateRows, Candidates, HistoryCounts, draw_candidates
from dmesr_model.features import PAD_INDEX
from dmesr_model.item_batches import ItemBatch, ItemGatherer
from dmesr_model.objective import LossConfig, StepBatch
from dmesr_model.sequences import Sequences, count_events, cut_into_windows


@dataclass(frozen=True)
class StepSettings:
    """What decides a step beside the data; see TrainConfig and ModelConfig for the meaning of each."""

    seed: int
    batch_size: int
    max_length: int
    bidirectional: bool
    all_events: bool
    mask_share: float
    mask_last_share: float
    mask_copies: int
    alignment_items: int
    loss: LossConfig


class StepBuilder:
    """Steps of one process of `processes`.

    Args:
        train: training events.
        gatherer: reads the items' texts.
        settings: see StepSettings.
        rank, processes: this process takes rows rank, rank + processes, ... of each batch.
        device: where `build_ahead` puts steps, and where the whole catalog is kept when the loss needs all of it.

    The candidates of the loss are the items with a training event: an item that nobody has met yet is no evidence of
    anything, and as a negative it would only learn to be ranked last. With a causal backbone that is what an item
    learns which only ever begins histories.
    """

    def __init__(
        self,
        train: Sequences,
        gatherer: ItemGatherer,
        settings: StepSettings,
        rank: int = 0,
        processes: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.train = train if not settings.all_events else _windows(train, settings)
        self.gatherer = gatherer
        self.settings = settings
        self.rank = rank
        self.processes = processes
        self.device = device or torch.device("cpu")
        self.trained_index_N = np.flatnonzero(count_events(train, gatherer.features.item_count))
        self._catalog: ItemBatch | None = None

    @cached_property
    def history_counts(self) -> HistoryCounts:
        """Rows of `self.train` that show each item; sorts all events, and only sampled losses ask."""
        return HistoryCounts.count(self.train, self.gatherer.features.item_count, self._longest)

    @property
    def _longest(self) -> int:
        """Events of a row that a step shows at the most."""
        return self.settings.max_length + (not self.settings.bidirectional)

    def plan(self, epoch: int) -> list[np.ndarray]:
        """Rows of `self.train` in each step of an epoch: users, or windows of their histories."""
        settings = self.settings
        return plan_epoch(self.train.lengths, settings.batch_size, settings.max_length, settings.seed, epoch)

    def build_ahead(self, plan: list[np.ndarray], epoch: int, first: int) -> Generator[StepBatch, None, None]:
        """The steps of a plan from `first` on, on the device; a thread builds the next one while one is trained."""

        def build_on_device(step_in_epoch: int) -> StepBatch:
            return self.build(plan[step_in_epoch], epoch, step_in_epoch).to(self.device)

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="steps") as thread:
            coming: deque[Future[StepBatch]] = deque()
            for step_in_epoch in range(first, len(plan)):
                coming.append(thread.submit(build_on_device, step_in_epoch))
                if len(coming) > 1:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def build(self, users_B: np.ndarray, epoch: int, step_in_epoch: int) -> StepBatch:
        """This process's part of the step."""
        random = np.random.default_rng([self.settings.seed, epoch, step_in_epoch])
        whole = self._draw_sequences(users_B, random)
        parts = [whole.part(rank, self.processes) for rank in range(self.processes)]
        part = parts[self.rank]
        items_of = [unique_items(own.history_BT, own.target_BT) for own in parts]
        batch_items_N = unique_items(*items_of)
        candidates = self._draw_candidates(users_B, whole, batch_items_N, random)
        aligned = self._draw_aligned(items_of, batch_items_N, random)
        step_index_N = self._items_of_step(items_of[self.rank], candidates)
        target_BT = part.target_BT
        scored_M = np.flatnonzero(target_BT != PAD_INDEX)
        return StepBatch(
            items=self._gather(step_index_N, all_items=candidates is None),
            history_BT=torch.from_numpy(rows_of(part.history_BT, step_index_N)),
            valid_BT=torch.from_numpy(part.history_BT != PAD_INDEX),
            masked_BT=torch.from_numpy(part.masked_BT),
            scored_M=torch.from_numpy(scored_M),
            target_M=torch.from_numpy(rows_of(target_BT.ravel()[scored_M], step_index_N)),
            candidates=self._place(candidates, part, step_index_N),
            aligned_A=torch.from_numpy(rows_of(aligned[self.rank], step_index_N)),
            aligned_most=max(len(own) for own in aligned),
            target_count=int((whole.target_BT != PAD_INDEX).sum()),
            item_share=len(self._items_of_step(batch_items_N, candidates)) / len(self.trained_index_N),
        )

    def _draw_sequences(self, users_B: np.ndarray, random: np.random.Generator) -> SequenceBatch:
        settings = self.settings
        if not settings.bidirectional:
            return causal_batch(self.train, users_B, settings.max_length)
        shares = settings.mask_share, settings.mask_last_share
        return cloze_batch(self.train, users_B, settings.max_length, *shares, random, settings.mask_copies)

    def _draw_candidates(
        self, users_B: np.ndarray, whole: SequenceBatch, batch_items_N: np.ndarray, random: np.random.Generator
    ) -> Candidates | None:
        """None: all items."""
        loss = self.settings.loss
        if loss.kind == "softmax":
            return None
        if loss.kind != "sampled_softmax":  # gBCE's calibration is for negatives that are drawn uniformly
            batch_items_N = batch_items_N[:0]
        length_B = np.minimum(self.train.lengths[users_B], self._longest)
        shown_L = np.bincount(length_B[distinct_events(whole)[0]], minlength=self._longest + 1)
        share_L = self.history_counts.share_of_others(shown_L, len(users_B))
        return draw_candidates(
            self.trained_index_N, self.history_counts, batch_items_N, share_L, loss.negatives, random
        )

    def _place(
        self, candidates: Candidates | None, part: SequenceBatch, step_index_N: np.ndarray
    ) -> CandidateRows | None:
        """The candidates as rows of the step's items, and their chances for each of this process's sequences."""
        if candidates is None:
            return None
        log_chance_SC = np.tile(
            np.log(candidates.chance_C).astype(np.float32), (len(part.history_BT) // part.copies, 1)
        )
        sequence_X, item_index_X = distinct_events(part)
        is_candidate_X = np.isin(item_index_X, candidates.item_index_C, kind="table")
        own_X = np.searchsorted(candidates.item_index_C, item_index_X[is_candidate_X])
        log_chance_SC[sequence_X[is_candidate_X], own_X] = np.log(candidates.own_chance)
        rows_C = rows_of(candidates.item_index_C, step_index_N)
        log_chance_BC = torch.from_numpy(log_chance_SC).repeat_interleave(part.copies, dim=0)
        return CandidateRows(torch.from_numpy(rows_C), log_chance_BC)

    def _items_of_step(self, batch_items_N: np.ndarray, candidates: Candidates | None) -> np.ndarray:
        return self.trained_index_N if candidates is None else unique_items(batch_items_N, candidates.item_index_C)

    def _draw_aligned(
        self, items_of: list[np.ndarray], chosen_N: np.ndarray, random: np.random.Generator
    ) -> list[np.ndarray]:
        """Items that each process aligns: a bounded draw of the batch, each item with the first process that has it.

        Args:
            items_of: each process's different items.
            chosen_N: all of them.
        """
        if len(chosen_N) > self.settings.alignment_items:
            chosen_N = np.sort(random.choice(chosen_N, self.settings.alignment_items, replace=False))
        aligned = []
        for own_N in items_of:
            taken = np.isin(chosen_N, own_N, kind="table")
            aligned.append(chosen_N[taken])
            chosen_N = chosen_N[~taken]
        return aligned

    def _gather(self, step_index_N: np.ndarray, all_items: bool) -> ItemBatch:
        if not all_items:
            return self.gatherer.gather(step_index_N)
        if self._catalog is None:
            self._catalog = self.gatherer.gather(step_index_N).to(self.device)
        return self._catalog


def _windows(train: Sequences, settings: StepSettings) -> Sequences:
    if settings.bidirectional:  # every event of a window can be masked, but one left alone in the oldest
        return cut_into_windows(train, settings.max_length, shared=0)
    return cut_into_windows(train, settings.max_length + 1, shared=1)
