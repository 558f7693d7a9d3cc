"""Alignment over the items of all processes: each encodes its own, all compare them with everyone's."""

import torch
from torch import Tensor, distributed


def gather_rows(own_AX: Tensor, most_rows: int) -> Tensor:
    """Rows of all processes, in the order of their ranks, [ΣA, X]; gradients reach this process's own rows only.

    Args:
        own_AX: this process's rows.
        most_rows: the most rows that any process has; the collective moves this many from each.
    """
    processes, rank = distributed.get_world_size(), distributed.get_rank()
    padded = own_AX.new_zeros(most_rows, *own_AX.shape[1:])
    padded[: len(own_AX)] = own_AX.detach()
    everyone = [torch.empty_like(padded) for _ in range(processes)]
    distributed.all_gather(everyone, padded)
    own_count = torch.tensor([len(own_AX)], device=own_AX.device)
    counts = [torch.empty_like(own_count) for _ in range(processes)]
    distributed.all_gather(counts, own_count)
    parts = [rows[: int(count)] for rows, count in zip(everyone, counts, strict=True)]
    return torch.cat([*parts[:rank], own_AX, *parts[rank + 1 :]])


def share_gradient(value: Tensor, processes: int) -> Tensor:
    """The same value with 1/processes of the gradient, for a parameter that every process uses in the same way."""
    return value.detach() + (value - value.detach()) / processes
