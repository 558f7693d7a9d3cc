"""AdamW, its learning-rate schedule, the mean of its weights, and the random seed of a step."""

import math
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from dmesr_model.item_encoder import ItemIdentity

_ARE_IDS = "are_ids"
_Tensors = tuple[Tensor, ...] | list[Tensor]


class OptimizerConfig(BaseModel):
    """How weights follow gradients."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(
        default=2e-3, gt=0, description="Peak step size of AdamW; small logs have few steps an epoch and need it high."
    )
    weight_decay: float = Field(
        default=0.01, ge=0, description="AdamW's decay of matrices; not of norms, biases, embeddings."
    )
    id_decay: float = Field(
        default=2.0,
        ge=0,
        description="AdamW's decay of ID embeddings, times the share of items that a step encodes: an item departs "
        "from its content, or from nothing, only as far as its events insist.",
    )
    warmup_steps: int = Field(
        default=20, ge=0, description="Steps of linear rise to the peak; Adam's moments settle in them."
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="After warm-up; 'cosine' falls to 0 at max_epochs, so set that near what is needed.",
    )
    clip_norm: float = Field(default=5.0, gt=0, description="Largest gradient norm; guards against a rare steep step.")


def build_optimizer(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) with three decays: of matrices of linear and recurrent layers, none, of IDs.

    Held near 0, an ID embedding beside content is the offset of collaborative topic regression (Wang & Blei 2011); IDs
    alone gain as much by it on small logs (docs/decisions/model-id-decay.md). `set_pace` sets the rate, and the decay
    of the IDs, of each step.
    """
    embeddings = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    identities = {id(child.table.weight) for child in module.modules() if isinstance(child, ItemIdentity)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    ids: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        is_table = id(parameter) in embeddings or name.endswith(("position_TD", "mask_SD"))
        if id(parameter) in identities:
            ids.append(parameter)
        else:
            (plain if parameter.ndim < 2 or is_table else decayed).append(parameter)
    kinds = [(decayed, config.weight_decay, False), (plain, 0.0, False), (ids, config.id_decay, True)]
    groups = [
        {"params": parameters, "weight_decay": decay, _ARE_IDS: are_ids}
        for parameters, decay, are_ids in kinds
        if parameters
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)


def set_pace(optimizer: torch.optim.Optimizer, config: OptimizerConfig, rate_factor: float, item_share: float) -> None:
    """Learning rate and ID decay of the coming step.

    An item is taught by the steps that encode it alone, and AdamW decays all rows in every step, so decay is spread out
    by the share of items encoded (docs/decisions/model-id-decay.md).

    Args:
        rate_factor: of `schedule_factor`.
        item_share: share of the trained items that the step encodes, 1 where the loss compares all of them.
    """
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate * rate_factor
        if group[_ARE_IDS]:
            group["weight_decay"] = config.id_decay * item_share


def average_weights(module: nn.Module, share: float) -> AveragedModel | None:
    """A mean of the weights that leans on the latest `share` of the steps so far, or None with share 0.

    After n steps the next one weighs 1 / (1 + share · n): polynomial-decay averaging (Shamir & Zhang 2013) with
    η = 1 / share - 1. It grows with the run, whatever the steps of an epoch are, and is the plain mean with share 1.
    """
    if share == 0:
        return None

    def follow(means: _Tensors, weights: _Tensors, _: object) -> None:
        steps = int(average.n_averaged)  # on the CPU wherever the weights are, so reading it waits for nothing
        torch._foreach_lerp_(means, weights, 1 / (1 + share * steps))

    average = AveragedModel(module, multi_avg_fn=follow)
    for child in average.modules():
        if isinstance(child, nn.RNNBase):
            child.flatten_parameters()  # a copy loses the one block of memory that cuDNN wants
    return average


def schedule_factor(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then constant or half a cosine down to 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Make the dropout of a step follow from (seed, step, process) alone, so that no generator state need be saved."""
    number = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(number)  # torch.manual_seed notes the whole stack where there is no GPU: 1 ms
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
