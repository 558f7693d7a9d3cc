"""Seconds of a training epoch, side by side: ID-only SASRec, full DMESR-SASRec, RecTools' SASRec, RecBole's SASRec.

    python benchmarks/model_speed.py WORK_FOLDER/ml-100k --rectools RECTOOLS_PYTHON --recbole RECBOLE_PYTHON

Same training events, dimension 64, 2 blocks, 2 heads, dropout 0.3, full softmax, the same length for all, batches of
128 sequences. RecBole's sample is a prefix and not a sequence: it gets batches of --recbole-batch prefixes. Each round
runs all rows one after the other, so that other work on the machine meets all alike; the median of the rounds is kept.
The first epoch of each of ours, and of RecTools' in each round, warms up and is not counted; of RecBole's epoch some
steps are timed and scaled. CPU seconds are of the process's own threads.
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
RECTOOLS, RECBOLE = "RecTools 0.19 SASRecModel", "RecBole 1.2.1 SASRec"


class OwnRow:
    """One of our models, trained epoch by epoch."""

    def __init__(self, dataset: Path, settings: dict[str, object], output: Path) -> None:
        features, sequences = ItemFeatures.open(dataset / "features"), Sequences.open(dataset / "sequences")
        model = ModelConfig.model_validate(settings)
        recipe = TrainConfig(checkpoint_seconds=1e9, all_events=False)  # the most recent ones, as the peers
        self.trainer = Trainer(Accelerator(), features, sequences, model, recipe, output)
        self.epoch = 0
        self.time_epoch()

    def time_epoch(self) -> dict[str, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        self.trainer.train_epoch(RunState(epoch=self.epoch, step=self.epoch * 8), progress=None)
        self.epoch += 1
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def export_events(dataset: Path, path: Path, length: int, threads: int, recbole_batch: int) -> None:
    train = leave_one_out(Sequences.open(dataset / "sequences")).train
    user = np.repeat(np.arange(train.user_count), train.lengths)
    np.savez(
        path,
        user=user,
        item=train.item_index,
        order=np.arange(len(user)),
        max_length=length,
        threads=threads,
        recbole_batch=recbole_batch,
    )


def time_peer(python: Path, script: str, events: Path, amount: int, threads: int) -> dict[str, float]:
    """The last epoch that the peer's script reports."""
    command = [str(python.absolute()), str(Path(__file__).resolve().with_name(script)), str(events), str(amount)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": ""}
    done = subprocess.run(
        command, env=environment, cwd=events.parent, stdout=subprocess.PIPE, text=True, check=True
    )  # RecBole writes logs where it runs
    last: dict[str, float] = json.loads(done.stdout.splitlines()[-1])[-1]
    return last


def time_rounds(options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    events = folder / "events.npz"
    export_events(options.dataset, events, options.length, options.threads, options.recbole_batch)
    own = {
        name: OwnRow(options.dataset, {**settings, "max_length": options.length}, folder / str(position))
        for position, (name, settings) in enumerate(ROWS.items())
    }
    times: dict[str, list[dict[str, float]]] = {name: [] for name in [*ROWS, RECTOOLS, RECBOLE]}
    for _ in range(options.rounds):
        for name, row in own.items():
            times[name].append(row.time_epoch())
        if options.rectools:
            times[RECTOOLS].append(time_peer(options.rectools, "model_peer_rectools.py", events, 2, options.threads))
        if options.recbole:
            steps = options.recbole_steps
            times[RECBOLE].append(time_peer(options.recbole, "model_peer_recbole.py", events, steps, options.threads))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rectools", type=Path, help="Python of an environment with RecTools")
    parser.add_argument("--recbole", type=Path, help="Python of an environment with RecBole")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--recbole-batch", type=int, default=2048)
    parser.add_argument("--recbole-steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        times = time_rounds(options, Path(folder))
    print(f"| model, length {options.length} | CPU s / epoch | wall s / epoch | CPU, ID-only = 1 | rounds |")
    print("| --- | --- | --- | --- | --- |")
    base = float(np.median([epoch["cpu"] for epoch in times["ID-only SASRec"]]))
    for name, epochs in times.items():
        if epochs:
            cpu, wall = (float(np.median([epoch[kind] for epoch in epochs])) for kind in ("cpu", "wall"))
            print(f"| {name} | {cpu:.2f} | {wall:.2f} | {cpu / base:.1f} | {len(epochs)} |")


if __name__ == "__main__":
    main()
