"""Optimisers, learning rates and resumable state, shared by both stages of training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

ADAMW_RATE = 1.5e-3
MUON_DECAY = 0.02
WARM_UP_STEPS = 50


class Optimisers:
    """Muon for the weight matrices of the two towers, AdamW for everything else."""

    def __init__(self, modules: Mapping[str, nn.Module], muon_rates: Mapping[str, float], adamw_rate: float) -> None:
        """muon_rates: the full Muon rate of each module's matrices; adamw_rate: that of all else."""
        muon_groups: list[dict[str, object]] = []
        others: list[nn.Parameter] = []
        for name, module in modules.items():
            parameters = list(module.named_parameters())
            others += [p for key, p in parameters if not _is_matrix(key, p)]
            matrices = [p for key, p in parameters if _is_matrix(key, p)]
            if matrices:
                muon_groups.append({"params": matrices, "lr": muon_rates[name]})
        self.both: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(muon_groups, weight_decay=MUON_DECAY),
            torch.optim.AdamW(others, lr=adamw_rate, betas=(0.9, 0.98), weight_decay=0.0),
        )
        self.full_rates = [[float(group["lr"]) for group in optimiser.param_groups] for optimiser in self.both]

    def step(self, scale: float) -> None:
        """One update at `scale` times the full rates, then forget the gradients."""
        for optimiser, rates in zip(self.both, self.full_rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * scale
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The optimisers' memory as named tensors."""
        return {
            f"optimiser.{i}.{index}.{key}": value
            for i, optimiser in enumerate(self.both)
            for index, entry in optimiser.state_dict()["state"].items()
            for key, value in entry.items()
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take back what `tensors` gave."""
        for i, optimiser in enumerate(self.both):
            state: dict[int, dict[str, torch.Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(f"optimiser.{i}."):
                    _, _, index, key = name.split(".")
                    state.setdefault(int(index), {})[key] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state, "param_groups": groups})


def rate_scale(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < WARM_UP_STEPS:
        return (step + 1) / WARM_UP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP_STEPS) / max(1, steps - WARM_UP_STEPS)))


def save_state(path: Path, step: int, modules: Mapping[str, nn.Module], optimisers: Optimisers) -> None:
    """Write everything a killed run needs, replacing the file in one move."""
    tensors = {"step": torch.tensor(step), **optimisers.tensors()}
    for name, module in modules.items():
        tensors |= {f"module.{name}.{key}": value for key, value in _own_tensors(module).items()}
    waiting = path.with_suffix(".part")
    save_file({key: value.contiguous() for key, value in tensors.items()}, waiting)
    waiting.replace(path)


def load_state(path: Path, modules: Mapping[str, nn.Module], optimisers: Optimisers | None = None) -> int:
    """Put a saved state back and return the number of steps it had taken."""
    tensors = load_file(path)
    for name, module in modules.items():
        prefix = f"module.{name}."
        own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        _check_only_tied_missing(module.load_state_dict(own, strict=False).missing_keys)
    if optimisers is not None:
        optimisers.load(tensors)
    return int(tensors["step"])


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's state without the output head, which is the input embedding again."""
    return {key: value for key, value in module.state_dict().items() if not key.startswith("lm_head.")}


def _check_only_tied_missing(missing: Sequence[str]) -> None:
    unexpected = [key for key in missing if not key.startswith("lm_head.")]
    assert not unexpected, f"saved state lacks {unexpected}"


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and (".layers." in name or "modality_projection" in name)
