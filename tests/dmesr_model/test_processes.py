"""Two CPU processes over gloo train along the same loss curve as one, within rounding."""

import json
import os
import subprocess
import sys

import pytest

NO_DROPOUT = {"dropout": 0.0, "id_dropout": 0.0, "input_dropout": 0.0}


def train_curve(folder, output, processes):
    job = {
        "features": str(folder / "features"),
        "sequences": str(folder / "sequences"),
        "output": str(output),
        "model": {"width": 16, "adapter_width": 16, "layers": 1, "max_length": 16, **NO_DROPOUT},
        "train": {"max_epochs": 4, "batch_size": 16, "loss": {"kind": "sampled_softmax", "negatives": 12}},
    }
    path = folder / f"job-{processes}.json"
    path.write_text(json.dumps(job))
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_machines=1", "--mixed_precision=no"]
    launcher += ["--dynamo_backend=no", f"--num_processes={processes}", "--main_process_port=29653"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "dmesr_model.train", str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (output / "progress.jsonl").read_text().splitlines()]
    return [(line["loss"], line["alignment_loss"], line["validation_ndcg_at_10"]) for line in lines]


def test_two_processes_follow_one(toy_features, toy_sequences, tmp_path):
    toy_features().save(tmp_path / "features")
    toy_sequences().save(tmp_path / "sequences")
    alone = train_curve(tmp_path, tmp_path / "alone", processes=1)
    pair = train_curve(tmp_path, tmp_path / "pair", processes=2)
    assert len(alone) == 4
    for one, two in zip(alone, pair, strict=True):
        assert two == pytest.approx(one, rel=2e-4)
