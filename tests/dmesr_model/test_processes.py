"""Two and three CPU processes over gloo train along the same loss curve as one, within rounding; resumed, too."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dmesr_model.features import ABSENT, ItemFeatures
from dmesr_model.model_config import ModelConfig
from dmesr_model.trainer import TrainConfig, fit

NO_DROPOUT = {"dropout": 0.0, "id_dropout": 0.0, "input_dropout": 0.0}


def train_curve(folder: Path, processes: int) -> list[tuple[float, float, float]]:
    """Losses and validation, 0 within an epoch, of the lines of progress.jsonl: one a step and one an epoch."""
    output = folder / f"of-{processes}"
    job = {
        "features": str(folder / "features"),
        "sequences": str(folder / "sequences"),
        "output": str(output),
        "model": {"width": 16, "adapter_width": 16, "layers": 1, "max_length": 16, **NO_DROPOUT},
        "train": {
            "max_epochs": 4,
            "batch_size": 16,
            "loss": {"kind": "sampled_softmax", "negatives": 12},
            "log_every_steps": 1,
            "checkpoint_seconds": 0,
            "checkpoints_kept": 99,
        },
    }
    path = folder / f"job-{processes}.json"
    path.write_text(json.dumps(job))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "dmesr_model.train", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert f"training on cpu, processes: {processes}" in done.stderr
    lines = [json.loads(line) for line in (output / "progress.jsonl").read_text().splitlines()]
    return [(line["loss"], line["alignment_loss"], line["validation_ndcg_at_10"] or 0.0) for line in lines]


def forget_after(output: Path, step: int) -> None:
    """Leave what a kill after this step would have left."""
    for path in output.glob("checkpoints/step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    (output / "summary.json").unlink()
    shutil.rmtree(output / "model")


def with_a_rare_view(features: ItemFeatures) -> ItemFeatures:
    """A third view, that one item has: most steps, and most processes of a step, see none of it."""
    rare_N1 = np.full((features.item_count, 1), ABSENT, dtype=np.int32)
    rare_N1[9] = features.coarse_index_NV[9, 0]
    coarse_NV = np.concatenate([features.coarse_index_NV, rare_N1], axis=1)
    views = (*features.views, "rare")
    return ItemFeatures(features.item_ids, views, features.vectors_UE, coarse_NV, features.segment_index_NL)


def test_two_and_three_processes_follow_one(toy_features, toy_sequences, tmp_path):
    with_a_rare_view(toy_features()).save(tmp_path / "features")
    toy_sequences().save(tmp_path / "sequences")
    alone = train_curve(tmp_path, processes=1)
    assert len(alone) == 16 + 4
    for processes in (3, 2):
        together = train_curve(tmp_path, processes)
        for one, many in zip(alone, together, strict=True):
            assert many == pytest.approx(one, rel=2e-4)

    output = tmp_path / "of-2"
    weights = (output / "model" / "model.safetensors").read_bytes()
    forget_after(output, step=7)  # in the middle of the second epoch
    assert train_curve(tmp_path, processes=2) == together
    assert (output / "model" / "model.safetensors").read_bytes() == weights


def test_processes_that_would_each_train_alone_are_refused(toy_features, toy_sequences, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("LOCAL_RANK", raising=False)  # without it accelerate takes a process for the only one
    with pytest.raises(ValueError, match="says 2 processes, but accelerate finds 1"):
        fit(toy_features(), toy_sequences(), ModelConfig(), TrainConfig(), tmp_path)
    assert not list(tmp_path.iterdir())
