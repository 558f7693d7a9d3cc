"""What a run tells of where it stands, by hand."""

import torch

from dmesr_model.checkpoint import RunState
from dmesr_model.objective import StepLosses
from dmesr_model.progress import describe_progress


def losses(next_item, alignment):
    return StepLosses(torch.tensor(0.0), torch.tensor(next_item), torch.tensor(alignment))


def test_losses_and_speed_are_those_of_the_epoch_so_far():
    state = RunState().after_step(samples=8).after_losses([losses(9.0, 5.0)], seconds=20.0)
    state = state.after_epoch(0.1, patience=9, patience_steps=9, max_epochs=9)
    state = state.after_step(samples=4).after_step(samples=4).after_losses([losses(3.0, 1.0), losses(5.0, 2.0)], 3.0)
    state = state.after_step(samples=2).after_losses([losses(4.0, 3.0)], seconds=1.0)
    record = describe_progress(state, validation=0.2, epoch_ended=True)
    assert (record.epoch, record.step, record.validation_ndcg_at_10) == (1, 4, 0.2)
    assert (record.loss, record.alignment_loss) == (4.0, 2.0)  # (3 + 5 + 4) / 3, (1 + 2 + 3) / 3
    assert (record.samples_per_second, record.seconds) == (2.5, 24.0)  # 10 sequences in 4 of the 24 seconds
