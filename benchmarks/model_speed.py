"""Seconds of a training epoch, side by side: ID-only SASRec, full DMESR-SASRec, RecTools' SASRec.

    python benchmarks/model_speed.py WORK_FOLDER/ml-100k --peer-python PEER_VENV/bin/python

Same training events, batch 128, dimension 64, length 100, 2 blocks, 2 heads, dropout 0.3, full softmax. The first epoch
warms up and is not counted. CPU seconds are of the process's own threads, so that other work counts less.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from dmesr_model.checkpoint import RunState
from dmesr_model.features import ItemFeatures
from dmesr_model.model_config import ModelConfig
from dmesr_model.sequences import Sequences, leave_one_out
from dmesr_model.trainer import TrainConfig, Trainer

ROWS = {
    "ID-only SASRec": {"views": [], "use_segments": False, "id_dropout": 0.0},
    "ID + one text vector": {"views": ["text"], "use_segments": False, "fusion": "none", "id_dropout": 0.0},
    "full DMESR-SASRec": {},
}


def time_epochs(dataset: Path, settings: dict[str, object], epochs: int) -> list[dict[str, float]]:
    features, sequences = ItemFeatures.open(dataset / "features"), Sequences.open(dataset / "sequences")
    with tempfile.TemporaryDirectory() as output:
        config = TrainConfig(checkpoint_seconds=1e9)
        trainer = Trainer(
            Accelerator(), features, sequences, ModelConfig.model_validate(settings), config, Path(output)
        )
        times = []
        for epoch in range(epochs):
            wall, cpu = time.perf_counter(), time.process_time()
            trainer.train_epoch(RunState(epoch=epoch, step=epoch * 8), progress=None)
            times.append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
    return times


def time_rectools(dataset: Path, peer_python: Path, epochs: int, threads: int) -> list[dict[str, float]]:
    train = leave_one_out(Sequences.open(dataset / "sequences")).train
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.npz"
        user = np.repeat(np.arange(train.user_count), train.lengths)
        order = np.arange(len(user))
        np.savez(path, user=user, item=train.item_index, order=order, max_length=100, threads=threads)
        command = [str(peer_python), str(Path(__file__).with_name("model_peer_rectools.py")), str(path), str(epochs)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    times: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"| model | wall s / epoch | CPU s / epoch | epochs timed | threads: {options.threads} |")
    print("| --- | --- | --- | --- | --- |")
    measured = {name: time_epochs(options.dataset, settings, options.epochs) for name, settings in ROWS.items()}
    if options.peer_python is not None:
        measured["RecTools SASRecModel"] = time_rectools(
            options.dataset, options.peer_python, options.epochs, options.threads
        )
    for name, times in measured.items():
        wall, cpu = (float(np.median([epoch[kind] for epoch in times[1:]])) for kind in ("wall", "cpu"))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {len(times) - 1} | |")


if __name__ == "__main__":
    main()
