"""What a run tells while it runs: lines of `progress.jsonl`, log lines, TensorBoard curves."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from dmesr_model.checkpoint import RunState
from dmesr_model.files import replace_text

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProgressRecord:
    """One line of `progress.jsonl`.

    Args:
        epoch: from 0.
        step: steps of the whole run so far.
        loss, alignment_loss: means over the epoch so far, nats.
        validation_ndcg_at_10: None within an epoch, and without validation users.
        samples_per_second: sequences of the epoch so far over its seconds, at its end with those of validation.
        seconds: of training and validation so far.
        epoch_ended: whether this line closes the epoch.
    """

    epoch: int
    step: int
    loss: float
    alignment_loss: float
    validation_ndcg_at_10: float | None
    samples_per_second: float
    seconds: float
    epoch_ended: bool


def describe_progress(state: RunState, validation: float | None, epoch_ended: bool) -> ProgressRecord:
    """The record of where a run stands. `state` is that of the epoch in progress, after at least one step."""
    return ProgressRecord(
        epoch=state.epoch,
        step=state.step,
        loss=state.loss_sum / state.step_in_epoch,
        alignment_loss=state.alignment_sum / state.step_in_epoch,
        validation_ndcg_at_10=validation,
        samples_per_second=round(state.samples / max(state.seconds - state.seconds_before_epoch, 1e-9), 1),
        seconds=round(state.seconds, 3),
        epoch_ended=epoch_ended,
    )


class ProgressLog:
    """Appends records to a file and to the log.

    Args:
        start: where the run goes on from; what an earlier attempt told of later steps, and of the end of an epoch that
            this one ends again, is dropped.
    """

    def __init__(self, path: Path, start: RunState) -> None:
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _is_before(line, start)]
        replace_text(path, "".join(f"{line}\n" for line in kept))
        self._file = path.open("a")

    def write(self, record: ProgressRecord) -> None:
        self._file.write(json.dumps(asdict(record)) + "\n")
        self._file.flush()
        validation = record.validation_ndcg_at_10
        LOG.info(
            "epoch %d step %d loss %.4f alignment %.4f validation ndcg@10 %s, %.0f samples/s",
            record.epoch,
            record.step,
            record.loss,
            record.alignment_loss,
            "-" if validation is None else f"{validation:.4f}",
            record.samples_per_second,
        )

    def close(self) -> None:
        self._file.close()


def open_curves(folder: Path, start: RunState) -> SummaryWriter:
    """TensorBoard curves that go on at `start`; what an earlier attempt drew after it is hidden."""
    first_to_draw = start.step + 1 if start.step_in_epoch == 0 else start.step  # an epoch is drawn at its last step
    return SummaryWriter(str(folder), purge_step=first_to_draw)


def write_curves(curves: SummaryWriter, record: ProgressRecord) -> None:
    """Add the record to the TensorBoard curves."""
    curves.add_scalar("loss/next_item", record.loss, record.step)
    curves.add_scalar("loss/alignment", record.alignment_loss, record.step)
    curves.add_scalar("speed/samples_per_second", record.samples_per_second, record.step)
    if record.validation_ndcg_at_10 is not None:
        curves.add_scalar("validation/ndcg_at_10", record.validation_ndcg_at_10, record.step)


def _is_before(line: str, start: RunState) -> bool:
    """False for what the run will tell again, and for the half line of a killed writer."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return False
    return bool(record["epoch"] < start.epoch if record["epoch_ended"] else record["step"] <= start.step)
