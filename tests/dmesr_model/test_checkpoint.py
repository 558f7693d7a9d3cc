"""What a power cut leaves: a checkpoint has its name only once all of it is on the disk."""

import os
from pathlib import Path

import pytest
import torch

from dmesr_model.checkpoint import RunState, write_best_weights, write_checkpoint
from dmesr_model.model_config import ModelConfig
from dmesr_model.trainer import TrainConfig, fit


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what is synced, and of what is moved, in the order in which that happens."""
    told: list[str] = []
    sync, move = os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        sync(descriptor)
        told.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def note_move(path: Path, target: Path) -> Path:
        told.append(f"{path.name} -> {target.name}")
        return move(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_move)
    return told


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(events, tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    folder = tmp_path / "checkpoints"
    write_best_weights(folder, model, epoch=3)
    assert events == [
        "best-epoch-00003.partial",
        "best-epoch-00003.partial -> best-epoch-00003.safetensors",
        "checkpoints",
    ]
    events.clear()
    write_checkpoint(folder, model, optimizer, None, RunState(step=7, best_epoch=3), kept=1)
    assert set(events[:3]) == {"weights.safetensors", "optimizer.safetensors", "state.json"}
    assert events[3:] == ["partial-00000007", "partial-00000007 -> step-00000007", "checkpoints"]


def test_a_model_is_on_the_disk_before_its_summary(events, toy_features, toy_sequences, tmp_path):
    fit(toy_features(), toy_sequences(), ModelConfig(width=4), TrainConfig(max_epochs=1), tmp_path)
    end = events.index("summary.json.partial -> summary.json")
    assert {"model.safetensors", "config.json", "item_ids.json", "model"} <= set(events[:end])
