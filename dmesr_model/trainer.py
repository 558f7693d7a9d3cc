"""Fits a DMESR model: the training loop, early stopping, checkpoints, and what is written beside them."""

import logging
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, cast

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from tqdm import tqdm

from dmesr_model.checkpoint import (
    RunState,
    best_weights_path,
    read_newest_checkpoint,
    write_best_weights,
    write_checkpoint,
)
from dmesr_model.encoding import gatherer_for
from dmesr_model.features import ItemFeatures
from dmesr_model.files import replace_text, sync_folder
from dmesr_model.metrics import ndcg_at_k
from dmesr_model.model import DMESR
from dmesr_model.model_config import ModelConfig, Seed
from dmesr_model.objective import LossConfig, Objective, StepBatch, StepLosses
from dmesr_model.optimizer import (
    OptimizerConfig,
    average_weights,
    build_optimizer,
    schedule_factor,
    seed_step,
    set_pace,
)
from dmesr_model.progress import ProgressLog, ProgressRecord, describe_progress, open_curves, write_curves
from dmesr_model.ranking import rank_gathered
from dmesr_model.run_setup import (
    SplitName,
    build_model,
    check_items,
    claim_output,
    own_accelerator,
    place_on_gpu,
    share_of_process,
    split_events,
    use_deterministic_kernels,
)
from dmesr_model.sequences import Sequences
from dmesr_model.steps import StepBuilder, StepSettings

LOG = logging.getLogger(__name__)
Share = Annotated[float, Field(ge=0, le=1)]


class TrainConfig(BaseModel):
    """How a model is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: SplitName = Field(
        default="leave_one_out",
        description="Events kept from training: two a user for evaluation, one to serve, or none.",
    )
    loss: LossConfig = Field(default=LossConfig(), description="The next-item loss.")
    batch_size: int = Field(default=128, ge=1, description="Sequences a step, over all processes.")
    max_epochs: int = Field(
        default=200, ge=1, description="Passes over all users at the most; early stopping ends sooner."
    )
    patience: int = Field(
        default=10,
        ge=1,
        description="Epochs without a better validation NDCG@10 before training stops, and at least `patience_steps`.",
    )
    patience_steps: int = Field(
        default=1000,
        ge=0,
        description="Steps without a better validation NDCG@10 before training stops, and at least `patience` epochs: "
        "a small log has few steps an epoch and a noisy validation.",
    )
    all_events: bool = Field(
        default=True,
        description="Cut histories longer than the model reads into windows, so that every event trains (with BERT4Rec "
        "not an oldest one left alone in its window); else the most recent ones alone do, as in the papers.",
    )
    average_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Validate and keep a mean of the weights over this share of the steps so far; 0: the last weights.",
    )
    optimizer: OptimizerConfig = Field(default=OptimizerConfig(), description="How weights follow gradients.")
    mask_share: Share = Field(default=0.2, description="BERT4Rec: share of positions masked in training.")
    mask_last_share: Share = Field(
        default=0.5,
        description="BERT4Rec: share of sequences that end at a random event, which is masked, as in serving.",
    )
    mask_copies: int = Field(
        default=4,
        ge=1,
        description="BERT4Rec: times that a step shows each of its sequences, masked anew; items are encoded once.",
    )
    alignment_items: int = Field(
        default=1024, ge=2, description="Items compared a step at the most; its cost is quadratic."
    )
    seed: Seed = Field(default=0, description="Decides initial weights, order, dropout, masks and negatives.")
    mixed_precision: Literal["no", "bf16"] = Field(
        default="no",
        description="'bf16': products in bfloat16. No faster at width 64; up to 12 % less of a GPU's memory.",
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

    Sets torch's global seed and, on a GPU, torch's deterministic kernels.

    Called again with the same arguments it resumes from the newest checkpoint of `output_dir`, and returns at once
    where the run has finished. Under `torchrun` each process calls it with the same arguments, and they train together.

    Raises:
        ValueError: a text vector holds NaN; the sequences are of other items; no user has two training events;
            `output_dir` holds another run; an Accelerator of the caller's has another precision; several processes
            were started, and each would train alone.
        FloatingPointError: the loss is NaN or infinite; no checkpoint of it is kept.
    """
    with own_accelerator(train_config.mixed_precision) as accelerator:
        use_deterministic_kernels(accelerator.device)
        settings = {"model": model_config.model_dump(mode="json"), "train": train_config.model_dump(mode="json")}
        with accelerator.main_process_first():
            output_dir.mkdir(parents=True, exist_ok=True)
            claim_output(output_dir, features, sequences, settings)
        summary_path = output_dir / "summary.json"
        if summary_path.exists():
            LOG.info("%s: already trained", output_dir)
            return TrainSummary.model_validate_json(summary_path.read_text())
        return Trainer(accelerator, features, sequences, model_config, train_config, output_dir).run()


class Trainer:
    """One run in one output folder; see `fit`."""

    def __init__(
        self,
        accelerator: Accelerator,
        features: ItemFeatures,
        sequences: Sequences,
        model_config: ModelConfig,
        train_config: TrainConfig,
        output_dir: Path,
    ) -> None:
        features.check_finite()
        check_items(features, sequences)
        self.accelerator = accelerator
        self.config = train_config
        self.features = features
        self.output_dir = output_dir
        self.checkpoints = output_dir / "checkpoints"
        rank, processes = accelerator.process_index, accelerator.num_processes
        train, validation = split_events(sequences, train_config.split)
        self.validation = None if validation is None else share_of_process(validation, rank, processes)
        self.validation_users = 0 if validation is None else len(validation.target_index_H)
        self.model = build_model(features, train, model_config, train_config.seed)
        self.gatherer = gatherer_for(self.model, features)
        place_on_gpu(self.gatherer, accelerator.device)
        settings = step_settings(self.model.config, train_config)
        self.steps = StepBuilder(train, self.gatherer, settings, rank, processes, accelerator.device)
        self.total_steps = train_config.max_epochs * len(self.steps.plan(0))
        if self.total_steps == 0:
            raise ValueError("no user has two training events, so there is nothing to predict; give longer histories")
        objective = Objective(self.model, train_config.loss, len(self.steps.trained_index_N), processes)
        optimizer = build_optimizer(objective, train_config.optimizer)
        self.objective, self.optimizer = accelerator.prepare(objective, optimizer)
        self.average = average_weights(self.model, train_config.average_share)
        self.saved_at = time.monotonic()

    def run(self) -> TrainSummary:
        """Train to the end, from the newest checkpoint where there is one."""
        state = read_newest_checkpoint(self.checkpoints, self.model, self.optimizer, self.average)
        main, processes = self.accelerator.is_main_process, self.accelerator.num_processes
        if main:
            LOG.info("training on %s, processes: %d", self.accelerator.device.type, processes)
        progress = ProgressLog(self.output_dir / "progress.jsonl", state) if main else None
        curves = open_curves(self.output_dir / "tensorboard", state) if main else None
        while not state.finished:
            state = self.train_epoch(state, progress)
            state, record = self._close_epoch(state)
            if progress is not None and curves is not None:
                progress.write(record)
                write_curves(curves, record)
            if state.finished or self._checkpoint_due():
                self._save(state)
        if progress is not None and curves is not None:
            progress.close()
            curves.close()
        return self._finish(state)

    def train_epoch(self, state: RunState, progress: ProgressLog | None) -> RunState:
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
        batches = self.steps.build_ahead(plan, state.epoch, state.step_in_epoch)
        unread: list[StepLosses] = []  # reading a loss waits for the GPU
        started = time.monotonic()
        with bar, closing(batches):
            for users_B, batch in zip(plan[state.step_in_epoch :], batches, strict=True):
                unread.append(self._train_step(batch, state.step))
                state = state.after_step(len(users_B))
                bar.update(len(users_B))
                logged, saved = state.step % self.config.log_every_steps == 0, self._checkpoint_due()
                if logged or saved or state.step_in_epoch == len(plan):
                    state = state.after_losses(unread, time.monotonic() - started)
                    unread, started = [], time.monotonic()
                if logged and progress is not None:
                    progress.write(describe_progress(state, validation=None, epoch_ended=False))
                if saved:
                    self._save(state)
        return state

    def _train_step(self, batch: StepBatch, step: int) -> StepLosses:
        """One step of the optimizer; the losses are those of all processes, whichever logs or keeps them, and when."""
        seed_step(self.config.seed, step, self.accelerator.process_index, self.accelerator.device)
        recipe = self.config.optimizer
        set_pace(self.optimizer, recipe, schedule_factor(step, self.total_steps, recipe), batch.item_share)
        losses: StepLosses = self.objective(batch)
        self.accelerator.backward(losses.total)
        self.accelerator.clip_grad_norm_(self.objective.parameters(), recipe.clip_norm)
        self.optimizer.step()
        self.model.bound_temperature()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.model)
        if self.accelerator.num_processes > 1:  # alignment is that of all processes already
            return replace(losses, next_item=self.accelerator.reduce(losses.next_item, "mean"))
        return losses

    @property
    def kept_model(self) -> DMESR:
        """What is validated and saved: the mean of the last steps' weights, or the last ones."""
        return self.model if self.average is None else cast(DMESR, self.average.module)

    def _close_epoch(self, state: RunState) -> tuple[RunState, ProgressRecord]:
        """Validate, keep the weights if they are the best: (state that the next epoch starts from, record)."""
        started = time.monotonic()
        ndcg = self.validate()
        closed = state.model_copy(update={"seconds": state.seconds + time.monotonic() - started})
        after = closed.after_epoch(ndcg, self.config.patience, self.config.patience_steps, self.config.max_epochs)
        if after.best_epoch == state.epoch and self.accelerator.is_main_process:
            write_best_weights(self.checkpoints, self.kept_model, state.epoch)
        return after, describe_progress(closed, validation=ndcg, epoch_ended=True)

    def validate(self) -> float | None:
        """Mean NDCG@10 over all processes' users, by full ranking; None without validation users."""
        if self.validation is None or self.validation_users == 0:
            return None
        gains_H = ndcg_at_k(rank_gathered(self.kept_model, self.gatherer, self.validation), k=10)
        total = torch.tensor(gains_H.sum(), dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(total, "sum")) / self.validation_users

    def _finish(self, state: RunState) -> TrainSummary:
        assert state.best_epoch is not None, "a finished run has closed an epoch"
        summary = TrainSummary(
            epochs=state.epoch,
            steps=state.step,
            best_epoch=state.best_epoch,
            validation_ndcg_at_10=state.best_ndcg_at_10,
            stopped_early=state.epoch < self.config.max_epochs,
            trained_items=len(self.model.item_ids),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            seconds=round(state.seconds, 3),
        )
        if self.accelerator.is_main_process:
            self.model.load_state_dict(load_file(best_weights_path(self.checkpoints, state.best_epoch)))
            self.model.save_pretrained(self.output_dir / "model")
            sync_folder(self.output_dir / "model")  # before the summary that says it is there
            replace_text(self.output_dir / "summary.json", summary.model_dump_json(indent=2))
            LOG.info("trained %d epochs in %.0f s; best epoch %d", state.epoch, state.seconds, state.best_epoch)
        self.accelerator.wait_for_everyone()
        return summary

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.config.checkpoint_seconds

    def _save(self, state: RunState) -> None:
        """Write a checkpoint on the main process; the others have nothing of their own to keep."""
        if self.accelerator.is_main_process:
            parts = self.model, self.optimizer, self.average
            write_checkpoint(self.checkpoints, *parts, state, self.config.checkpoints_kept)
        self.saved_at = time.monotonic()


def step_settings(model: ModelConfig, train: TrainConfig) -> StepSettings:
    """What of the two configs decides the batches."""
    return StepSettings(
        seed=train.seed,
        batch_size=train.batch_size,
        max_length=model.max_length,
        bidirectional=model.backbone == "bert4rec",
        all_events=train.all_events,
        mask_share=train.mask_share,
        mask_last_share=train.mask_last_share,
        mask_copies=train.mask_copies,
        alignment_items=train.alignment_items,
        loss=train.loss,
    )
