"""Checkpoints of a training run: written beside their final name and renamed, so that none is ever half-written.

A checkpoint is a folder `step-00000123` with `weights.safetensors`, `optimizer.safetensors`, `state.json` and, where
weights are averaged, `average.safetensors`. The best weights so far stand beside them as
`best-epoch-00003.safetensors`. Random state needs no file: it follows from the seed and the step.
"""

import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dmesr_model.files import move_whole, replace_text
from dmesr_model.objective import StepLosses

LOG = logging.getLogger(__name__)


class RunState(BaseModel):
    """Where a run stands, apart from weights and optimizer.

    Args:
        step: of the whole run; `step_in_epoch`, the sums and `samples` start anew with each epoch.
        loss_sum, alignment_sum: over the epoch's steps so far, each of all processes, nats.
        seconds: of training and validation, without what a kill threw away.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int = 0
    step_in_epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    alignment_sum: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    seconds_before_epoch: float = 0.0
    best_epoch: int | None = None
    best_ndcg_at_10: float | None = None
    epochs_without_gain: int = 0
    finished: bool = False

    def after_step(self, samples: int) -> "RunState":
        update = {"step": self.step + 1, "step_in_epoch": self.step_in_epoch + 1, "samples": self.samples + samples}
        return self.model_copy(update=update)

    def after_losses(self, losses: Sequence[StepLosses], seconds: float) -> "RunState":
        """With what one or more steps lost and took; waits once for a GPU to have done them.

        Raises:
            FloatingPointError: a loss is NaN or infinite.
        """
        next_item, alignment = torch.stack(
            [torch.stack([step.next_item for step in losses]), torch.stack([step.alignment for step in losses])]
        ).tolist()
        update = {
            "loss_sum": sum(next_item, start=self.loss_sum),
            "alignment_sum": sum(alignment, start=self.alignment_sum),
            "seconds": self.seconds + seconds,
        }
        if not math.isfinite(update["loss_sum"] + update["alignment_sum"]):
            raise FloatingPointError(
                f"the loss is NaN or infinite in epoch {self.epoch}, at step {self.step} or a little before; train "
                "with a lower learning_rate or clip_norm, or without mixed_precision"
            )
        return self.model_copy(update=update)

    def after_epoch(self, ndcg_at_10: float | None, patience: int, patience_steps: int, max_epochs: int) -> "RunState":
        """The start of the next epoch, or the end of the run. Without a validation value every epoch is the best."""
        gained = ndcg_at_10 is None or self.best_ndcg_at_10 is None or ndcg_at_10 > self.best_ndcg_at_10
        idle = 0 if gained else self.epochs_without_gain + 1
        spent = idle >= patience and idle * self.step_in_epoch >= patience_steps
        return RunState(
            epoch=self.epoch + 1,
            step=self.step,
            seconds=self.seconds,
            seconds_before_epoch=self.seconds,
            best_epoch=self.epoch if gained else self.best_epoch,
            best_ndcg_at_10=ndcg_at_10 if gained else self.best_ndcg_at_10,
            epochs_without_gain=idle,
            finished=spent or self.epoch + 1 == max_epochs,
        )


def write_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: AveragedModel | None,
    state: RunState,
    kept: int,
) -> None:
    """Write the checkpoint of `state.step`, and drop all but the newest `kept` and the best weights they refer to."""
    final = folder / f"step-{state.step:08d}"
    if (final / "state.json").exists():  # the last step of an epoch, then its end: the weights are the same
        replace_text(final / "state.json", state.model_dump_json(indent=2))
        _drop_old(folder, kept)
        return
    partial = folder / f"partial-{state.step:08d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(_copy_tensors(module.state_dict()), partial / "weights.safetensors")
    save_file(_flatten_optimizer(optimizer), partial / "optimizer.safetensors")
    if average is not None:
        save_file(_copy_tensors(average.state_dict()), partial / "average.safetensors")
    (partial / "state.json").write_text(state.model_dump_json(indent=2))
    shutil.rmtree(final, ignore_errors=True)  # what a kill left of one: without state.json it is none
    move_whole(partial, final)
    _drop_old(folder, kept)


def read_newest_checkpoint(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None
) -> RunState:
    """Load the newest checkpoint into what is given; a fresh state where there is none.

    One that a power cut left empty or torn is passed over, and the one before it is taken.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            state = RunState.model_validate_json((path / "state.json").read_bytes())
            weights = load_file(path / "weights.safetensors")
            moments = load_file(path / "optimizer.safetensors")
            mean = None if average is None else load_file(path / "average.safetensors")
        except FileNotFoundError:
            continue
        except (ValueError, SafetensorError) as error:
            LOG.warning("checkpoint %s is damaged, the one before it is taken: %s", path, error)
            (path / "state.json").unlink(missing_ok=True)  # so that it is none, and its step can be written again
            continue
        module.load_state_dict(weights)
        _restore_optimizer(optimizer, moments)
        if average is not None and mean is not None:
            average.load_state_dict(mean)
        return state
    return RunState()


def best_weights_path(folder: Path, epoch: int) -> Path:
    return folder / f"best-epoch-{epoch:05d}.safetensors"


def write_best_weights(folder: Path, module: nn.Module, epoch: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = best_weights_path(folder, epoch)
    partial = path.with_suffix(".partial")
    save_file(_copy_tensors(module.state_dict()), partial)
    move_whole(partial, path)


def _copy_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    per_parameter = optimizer.state_dict()["state"]
    return {
        f"{parameter}.{name}": tensor.detach().cpu().contiguous()
        for parameter, values in per_parameter.items()
        for name, tensor in values.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    per_parameter: dict[int, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        parameter, name = key.split(".", maxsplit=1)
        per_parameter.setdefault(int(parameter), {})[name] = tensor
    optimizer.load_state_dict({"state": per_parameter, "param_groups": optimizer.state_dict()["param_groups"]})


def _drop_old(folder: Path, kept: int) -> None:
    checkpoints = sorted(folder.glob("step-*/state.json"))
    for stale in checkpoints[:-kept]:
        stale.unlink()  # first: what a kill leaves of the rest is no checkpoint
    whole = {path.parent for path in checkpoints[-kept:]}
    for left in {*folder.glob("step-*"), *folder.glob("partial-*")} - whole:
        shutil.rmtree(left)
    states = [RunState.model_validate_json(path.read_text()) for path in checkpoints[-kept:]]
    needed = {best_weights_path(folder, state.best_epoch) for state in states if state.best_epoch is not None}
    for path in folder.glob("best-epoch-*.safetensors"):
        if path not in needed:
            path.unlink()
