"""Loss of a training step: next item + α · alignment, from the step's unique items, each encoded once."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from dmesr_model.alignment import alignment_loss
from dmesr_model.candidates import CandidateRows
from dmesr_model.gathering import gather_rows, share_gradient
from dmesr_model.item_batches import ItemBatch
from dmesr_model.losses import full_softmax, gbce_beta, generalised_bce, sampled_softmax
from dmesr_model.model import DMESR


class LossConfig(BaseModel):
    """The next-item loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["softmax", "sampled_softmax", "bce", "gbce"] = Field(
        default="softmax",
        description="'softmax' scores every item of the catalog: the most accurate, for catalogs of some 10,000 items.",
    )
    negatives: int = Field(
        default=2048,
        ge=1,
        description="Items drawn a step, shared by its positions; 'sampled_softmax' takes at most as many of the "
        "step's own items, too. Not used by 'softmax'.",
    )
    calibration: float = Field(
        default=0.75, ge=0, le=1, description="t of gBCE; 0 is plain BCE, 1 undoes the sampling bias."
    )


@dataclass(frozen=True)
class StepBatch:
    """A step on one process. Rows are positions in the step's N unique items.

    Args:
        history_BT: int64 rows; any row on padding.
        valid_BT: bool, False on padding.
        masked_BT: bool, positions seen as masks.
        scored_M: int64, flat positions b · T + t that have a target.
        target_M: int64 rows.
        candidates: what targets are compared with, or None when it is all N items.
        aligned_A: int64 rows of the items that alignment compares; no item stands in two processes' lists.
        aligned_most: the most items in any process's `aligned_A`.
        target_count: targets of the step over all processes.
        item_share: share of the trained items that the step encodes, over all processes.
    """

    items: ItemBatch
    history_BT: Tensor
    valid_BT: Tensor
    masked_BT: Tensor
    scored_M: Tensor
    target_M: Tensor
    candidates: CandidateRows | None
    aligned_A: Tensor
    aligned_most: int
    target_count: int
    item_share: float

    def to(self, device: torch.device) -> "StepBatch":
        return StepBatch(
            **{name: value.to(device) if hasattr(value, "to") else value for name, value in vars(self).items()}
        )


@dataclass(frozen=True)
class StepLosses:
    """`total` is differentiated; the others are detached means for the log."""

    total: Tensor
    next_item: Tensor
    alignment: Tensor


class Objective(nn.Module):
    """The module that is trained; wraps the model so that one forward pass of it gives the loss.

    Args:
        item_count: items that negatives are drawn from, for the sampling rate of gBCE.
        processes: how many processes average their gradients.
    """

    def __init__(self, model: DMESR, loss: LossConfig, item_count: int, processes: int = 1) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.beta = gbce_beta(loss.negatives, item_count, loss.calibration) if loss.kind == "gbce" else 1.0
        self.processes = processes

    def forward(self, batch: StepBatch) -> StepLosses:
        tokens = self.model.encode_items(batch.items)
        history_SBTD = torch.stack([functional.embedding(batch.history_BT, stream) for stream in tokens.streams_SND])
        users_BTW = self.model.encode_sequences(history_SBTD, batch.valid_BT, batch.masked_BT)
        users_MW = functional.embedding(batch.scored_M, users_BTW.flatten(0, 1))
        item_NW = tokens.streams_SND.transpose(0, 1).flatten(start_dim=1)
        share = self.processes / max(batch.target_count, 1)
        next_item = self._next_item_loss(users_MW, item_NW, batch) * share
        alignment = self._alignment(tokens.coarse_NVD, batch)
        total = next_item + self.model.config.alignment_weight * alignment
        return StepLosses(total, next_item.detach(), alignment.detach())

    def _next_item_loss(self, users_MW: Tensor, item_NW: Tensor, batch: StepBatch) -> Tensor:
        """Summed over this process's targets."""
        candidates = batch.candidates
        if candidates is None:
            return full_softmax(users_MW, item_NW, batch.target_M)
        if self.loss.kind == "sampled_softmax":
            sequence_M = batch.scored_M // batch.history_BT.shape[1]
            return sampled_softmax(users_MW, item_NW, batch.target_M, candidates, sequence_M)
        positive_M = (users_MW * functional.embedding(batch.target_M, item_NW)).sum(dim=-1)
        negative_MC = users_MW @ functional.embedding(candidates.rows_C, item_NW).T
        hit_MC = batch.target_M[:, None] == candidates.rows_C
        return generalised_bce(positive_M, negative_MC, hit_MC, self.beta).sum()

    def _alignment(self, coarse_NVD: Tensor, batch: StepBatch) -> Tensor:
        """Over the aligned items of all processes, with the gradient of this process's items times the processes."""
        if self.model.log_temperature is None:
            return coarse_NVD.new_zeros(())
        rows = batch.aligned_A
        coarse_AVD = functional.embedding(rows, coarse_NVD.flatten(start_dim=1)).view(-1, *coarse_NVD.shape[1:])
        present_AV = torch.cat([source.present_NK for source in batch.items.coarse], dim=1)[rows]
        text_id_AV = torch.cat([source.text_id_NK for source in batch.items.coarse], dim=1)[rows]
        temperature = self.model.log_temperature.exp()
        if self.processes == 1:
            return alignment_loss(coarse_AVD, present_AV, text_id_AV, temperature)
        loss = alignment_loss(
            gather_rows(coarse_AVD, batch.aligned_most),
            gather_rows(present_AV, batch.aligned_most),
            gather_rows(text_id_AV, batch.aligned_most),
            share_gradient(temperature, self.processes),
        )
        return loss.detach() + self.processes * (loss - loss.detach())
