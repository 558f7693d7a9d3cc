"""Fits a DMESR model: the training loop, early stopping, checkpoints, and what is written beside them."""

import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from dmesr_model.checkpoint import (
    RunState,
    best_weights_path,
    read_newest_checkpoint,
    replace_text,
    write_best_weights,
    write_checkpoint,
)
from dmesr_model.encoding import gatherer_for
from dmesr_model.features import ItemFeatures
from dmesr_model.metrics import ndcg_at_k
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.objective import LossConfig, Objective, StepLosses
from dmesr_model.optimizer import OptimizerConfig, build_optimizer, schedule_factor, seed_step
from dmesr_model.progress import ProgressLog, ProgressRecord, describe_progress, write_curves
from dmesr_model.ranking import rank_targets
from dmesr_model.sequences import HeldOut, Sequences, count_events, hold_out_last, leave_one_out, select_users
from dmesr_model.steps import StepBuilder, StepSettings

LOG = logging.getLogger(__name__)
Share = Annotated[float, Field(ge=0, le=1)]


class TrainConfig(BaseModel):
    """How a model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["leave_one_out", "last_event", "none"] = Field(
        default="leave_one_out",
        description="Events kept from training: two a user for evaluation, one to serve, or none.",
    )
    loss: LossConfig = Field(default=LossConfig(), description="The next-item loss.")
    batch_size: int = Field(default=128, ge=1, description="Sequences a step, over all processes.")
    max_epochs: int = Field(
        default=200, ge=1, description="Passes over all users at the most; early stopping ends sooner."
    )
    patience: int = Field(
        default=10, ge=1, description="Epochs without a better validation NDCG@10 before training stops."
    )
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="How weights follow gradients.")
    mask_share: Share = Field(default=0.2, description="BERT4Rec: share of positions masked in training.")
    mask_last_share: Share = Field(
        default=0.1, description="BERT4Rec: share of sequences with only the last event masked."
    )
    alignment_items: int = Field(
        default=1024, ge=2, description="Items compared a step at the most; its cost is quadratic."
    )
    seed: int = Field(default=0, ge=0, description="Decides initial weights, order, dropout, masks and negatives.")
    mixed_precision: Literal["no", "bf16"] = Field(
        default="no", description="'bf16' halves activations on GPUs that have it."
    )
    checkpoint_seconds: float = Field(
        default=60.0, ge=0, description="Least time between checkpoints; 0: after each step."
    )
    checkpoints_kept: int = Field(default=2, ge=1, description="Newest checkpoints on disk; older ones are deleted.")
    log_every_steps: int = Field(
        default=50, ge=1, description="Steps between two lines of progress.jsonl within an epoch."
    )


class TrainSummary(BaseModel):
    """How a run ended.

    Args:
        best_epoch: whose weights were kept, from 0; the last one where there is nothing to validate on.
        validation_ndcg_at_10: of those weights; None where no user has a validation event.
        seconds: of training and validation, over all attempts, without what a kill threw away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int
    steps: int
    best_epoch: int
    validation_ndcg_at_10: float | None
    stopped_early: bool
    trained_items: int
    parameters: int
    seconds: float


def fit(
    features: ItemFeatures,
    sequences: Sequences,
    model_config: ModelConfig,
    train_config: TrainConfig,
    output_dir: Path,
) -> TrainSummary:
    """Train a model and save it under `output_dir / "model"`.

    Called again with the same arguments it resumes from the newest checkpoint of `output_dir`, and returns at once
    where the run has finished. Under `accelerate launch` or `torchrun` each process calls it with the same arguments.

    Raises:
        ValueError: a text vector holds NaN; no user has two training events; `output_dir` holds another run.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    claim_output(output_dir, features, sequences, model_config, train_config)
    summary_path = output_dir / "summary.json"
    if summary_path.exists():
        LOG.info("%s: already trained", output_dir)
        return TrainSummary.model_validate_json(summary_path.read_text())
    return Trainer(features, sequences, model_config, train_config, output_dir).run()


def claim_output(
    output_dir: Path,
    features: ItemFeatures,
    sequences: Sequences,
    model_config: ModelConfig,
    train_config: TrainConfig,
) -> None:
    """Note whose run this folder holds; raise ValueError where it already holds another."""
    histories = hashlib.sha256(np.ascontiguousarray(sequences.item_index).tobytes())
    histories.update(np.ascontiguousarray(sequences.offsets).tobytes())
    identity = {
        "model": model_config.model_dump(mode="json"),
        "train": train_config.model_dump(mode="json"),
        "items": hashlib.sha256(json.dumps(features.item_ids).encode()).hexdigest(),
        "histories": histories.hexdigest(),
        "vectors": list(features.vectors_UE.shape),
    }
    path = output_dir / "run.json"
    if path.exists() and json.loads(path.read_text()) != identity:
        raise ValueError(f"{output_dir} holds a run with other settings or data; name another output folder")
    replace_text(path, json.dumps(identity, indent=2))


class Trainer:
    """One run in one output folder; see `fit`."""

    def __init__(
        self,
        features: ItemFeatures,
        sequences: Sequences,
        model_config: ModelConfig,
        train_config: TrainConfig,
        output_dir: Path,
    ) -> None:
        features.check_finite()
        self.config = train_config
        self.features = features
        self.output_dir = output_dir
        self.checkpoints = output_dir / "checkpoints"
        self.accelerator = Accelerator(mixed_precision=train_config.mixed_precision)
        train, validation = split_events(sequences, train_config)
        self.validation = None if validation is None else self._own_share(validation)
        self.validation_users = 0 if validation is None else len(validation.target_index_H)
        self.model = build_model(features, train, model_config, train_config.seed)
        self.steps = self._step_builder(train)
        self.total_steps = train_config.max_epochs * len(self.steps.plan(0))
        if not self.total_steps:
            raise ValueError("no user has two training events, so there is nothing to predict; give longer histories")
        objective = Objective(
            self.model, train_config.loss, len(self.steps.trained_index_N), self.accelerator.num_processes
        )
        self.objective, self.optimizer = self.accelerator.prepare(
            objective, build_optimizer(objective, train_config.optimizer)
        )

    def run(self) -> TrainSummary:
        state = read_newest_checkpoint(self.checkpoints, self.model, self.optimizer)
        main = self.accelerator.is_main_process
        progress = ProgressLog(self.output_dir / "progress.jsonl", resume_after=state.step) if main else None
        curves = SummaryWriter(str(self.output_dir / "tensorboard"), purge_step=state.step) if main else None
        self._saved_at = time.monotonic()
        while not state.finished:
            state = self._train_epoch(state, progress)
            state, record = self._close_epoch(state)
            if progress is not None and curves is not None:
                progress.write(record)
                write_curves(curves, record)
            if main and (state.finished or self._checkpoint_due()):
                self._save(state)
        if progress is not None and curves is not None:
            progress.close()
            curves.close()
        return self._finish(state)

    def _train_epoch(self, state: RunState, progress: ProgressLog | None) -> RunState:
        """The rest of the epoch that `state` stands in."""
        self.objective.train()
        plan = self.steps.plan(state.epoch)
        bar = tqdm(
            total=sum(len(users_B) for users_B in plan),
            initial=state.samples,
            desc=f"epoch {state.epoch}",
            unit="seq",
            leave=False,
            disable=None if progress is not None else True,
        )
        with bar:
            for step_in_epoch in range(state.step_in_epoch, len(plan)):
                started = time.monotonic()
                losses = self._train_step(plan[step_in_epoch], state)
                state = advance(state, losses, len(plan[step_in_epoch]), time.monotonic() - started)
                bar.update(len(plan[step_in_epoch]))
                if progress is not None and state.step % self.config.log_every_steps == 0:
                    progress.write(describe_progress(state, validation=None, epoch_ended=False))
                if self.accelerator.is_main_process and self._checkpoint_due():
                    self._save(state)
        return state

    def _train_step(self, users_B: np.ndarray, state: RunState) -> StepLosses:
        seed_step(self.config.seed, state.step, self.accelerator.process_index)
        batch = self.steps.build(users_B, state.epoch, state.step_in_epoch).to(self.accelerator.device)
        recipe = self.config.optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * schedule_factor(state.step, self.total_steps, recipe)
        losses: StepLosses = self.objective(batch)
        self.accelerator.backward(losses.total)
        self.accelerator.clip_grad_norm_(self.objective.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses

    def _close_epoch(self, state: RunState) -> tuple[RunState, ProgressRecord]:
        """Validate, decide whether to go on; the state at the start of the next epoch."""
        started = time.monotonic()
        ndcg = self._validate()
        best = state.best_ndcg_at_10
        gained = ndcg is None or best is None or ndcg > best
        if gained and self.accelerator.is_main_process:
            write_best_weights(self.checkpoints, self.model, state.epoch)
        idle = 0 if gained else state.epochs_without_gain + 1
        seconds = state.seconds + time.monotonic() - started
        means = self.accelerator.reduce(
            torch.tensor([state.loss_sum, state.alignment_sum], dtype=torch.float64), "mean"
        )
        closed = state.model_copy(
            update={"loss_sum": float(means[0]), "alignment_sum": float(means[1]), "seconds": seconds}
        )
        after = RunState(
            epoch=state.epoch + 1,
            step=state.step,
            seconds=seconds,
            seconds_before_epoch=seconds,
            best_epoch=state.epoch if gained else state.best_epoch,
            best_ndcg_at_10=ndcg if gained else best,
            epochs_without_gain=idle,
            finished=idle >= self.config.patience or state.epoch + 1 == self.config.max_epochs,
        )
        return after, describe_progress(closed, validation=ndcg, epoch_ended=True)

    def _validate(self) -> float | None:
        """Mean NDCG@10 over all processes' users, by full ranking; None without validation users."""
        if self.validation is None or self.validation_users == 0:
            return None
        gains_H = ndcg_at_k(rank_targets(self.model, self.features, self.validation), k=10)
        total = self.accelerator.reduce(torch.tensor(gains_H.sum(), dtype=torch.float64), "sum")
        return float(total) / self.validation_users

    def _finish(self, state: RunState) -> TrainSummary:
        assert state.best_epoch is not None, "a finished run has closed an epoch"
        summary = TrainSummary(
            epochs=state.epoch,
            steps=state.step,
            best_epoch=state.best_epoch,
            validation_ndcg_at_10=state.best_ndcg_at_10,
            stopped_early=state.epochs_without_gain >= self.config.patience,
            trained_items=len(self.model.item_ids),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            seconds=round(state.seconds, 3),
        )
        if self.accelerator.is_main_process:
            self.model.load_state_dict(load_file(best_weights_path(self.checkpoints, state.best_epoch)))
            self.model.save_pretrained(self.output_dir / "model")
            replace_text(self.output_dir / "summary.json", summary.model_dump_json(indent=2))
        self.accelerator.wait_for_everyone()
        LOG.info("trained %d epochs in %.0f s; best epoch %d", state.epoch, state.seconds, state.best_epoch)
        return summary

    def _step_builder(self, train: Sequences) -> StepBuilder:
        settings = StepSettings(
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            max_length=self.model.config.max_length,
            bidirectional=self.model.mask_SD is not None,
            mask_share=self.config.mask_share,
            mask_last_share=self.config.mask_last_share,
            alignment_items=self.config.alignment_items,
            loss=self.config.loss,
        )
        gatherer = gatherer_for(self.model, self.features)
        return StepBuilder(train, gatherer, settings, self.accelerator.process_index, self.accelerator.num_processes)

    def _own_share(self, held_out: HeldOut) -> HeldOut:
        users = np.arange(len(held_out.target_index_H))[
            self.accelerator.process_index :: self.accelerator.num_processes
        ]
        return HeldOut(select_users(held_out.histories, users), held_out.target_index_H[users])

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self.config.checkpoint_seconds

    def _save(self, state: RunState) -> None:
        write_checkpoint(self.checkpoints, self.model, self.optimizer, state, self.config.checkpoints_kept)
        self._saved_at = time.monotonic()


def split_events(sequences: Sequences, config: TrainConfig) -> tuple[Sequences, HeldOut | None]:
    """(training events, validation events) under the config's split."""
    if config.split == "leave_one_out":
        split = leave_one_out(sequences)
        return split.train, split.validation
    if config.split == "last_event":
        return hold_out_last(sequences)
    return sequences, None


def build_model(features: ItemFeatures, train: Sequences, config: ModelConfig, seed: int) -> DMESR:
    """A model with weights from the seed, and an ID row for each item with a training event."""
    views = features.views if config.views is None else config.views
    trained = np.flatnonzero(count_events(train, features.item_count)[1:])
    torch.manual_seed(seed)
    item_ids = [features.item_ids[position] for position in trained]
    return DMESR(config.model_copy(update={"views": views}), features.encoder_width, item_ids)


def advance(state: RunState, losses: StepLosses, samples: int, seconds: float) -> RunState:
    """The state after a step."""
    return state.model_copy(
        update={
            "step": state.step + 1,
            "step_in_epoch": state.step_in_epoch + 1,
            "loss_sum": state.loss_sum + float(losses.next_item),
            "alignment_sum": state.alignment_sum + float(losses.alignment),
            "samples": state.samples + samples,
            "seconds": state.seconds + seconds,
        }
    )
