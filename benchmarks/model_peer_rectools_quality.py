"""Accuracy of RecTools' SASRec under the protocol of model_quality.py; runs in RecTools' own environment.

    PEER_PYTHON benchmarks/model_peer_rectools_quality.py WORK_FOLDER/ml-100k --lr 0.001 0.002 --seeds 0
    PEER_PYTHON benchmarks/model_peer_rectools_quality.py WORK_FOLDER/ml-100k --lr 0.002 --seeds 0 1 2 3 4
    PEER_PYTHON benchmarks/model_peer_rectools_quality.py WORK_FOLDER/microlens-25k --lr 0.002 --epochs 80 --patience 10

Last event of a user: test; the one before: validation; full ranking, seen items filtered. After each epoch the model
is validated by its own `recommend`; test accuracy is that of the epoch of best validation NDCG@10. 64 dimensions,
2 blocks, 2 heads, batch 128; ML-100K and the shop: length 100, full softmax; MicroLens-25k: length 20, RecTools'
sampled softmax. Finished runs are lines of `runs/DATASET.jsonl` and not run again.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from model_runs import CUT, FOLDER, Run, append_run, ndcg, read_runs
from rectools.dataset import Dataset
from rectools.models import SASRecModel

LENGTHS = {"ml-100k": 100, "microlens-25k": 20, "sample_shop": 100}
NEGATIVES = {"microlens-25k": 128}  # a position; full softmax elsewhere
FEWEST_EVENTS = 3


@dataclass(frozen=True)
class Events:
    """Training events, training and validation events, and the two targets of each user."""

    train: Dataset
    known: Dataset
    validation_U: np.ndarray
    test_U: np.ndarray


def read_events(folder: Path) -> Events:
    offsets, item = np.load(folder / "offsets.npy"), np.load(folder / "item_index.npy")
    lengths = np.diff(offsets)
    if lengths.min() < FEWEST_EVENTS:
        raise ValueError("a user has too few events for a validation and a test event")
    user = np.repeat(np.arange(len(lengths)), lengths)
    from_end = offsets[1:][user] - np.arange(len(item))
    frame = pd.DataFrame({"user_id": user, "item_id": item, "weight": 1})
    frame["datetime"] = pd.to_datetime(np.arange(len(item)), unit="s")
    datasets = [Dataset.construct(frame[from_end > held_out]) for held_out in (2, 1)]
    return Events(datasets[0], datasets[1], item[offsets[1:] - 2], item[offsets[1:] - 1])


def rank_targets(model: SASRecModel, history: Dataset, target_U: np.ndarray) -> np.ndarray:
    """Rank of each user's target from 1, CUT + 1 where it is below the cut."""
    ranked = model.recommend(users=np.arange(len(target_U)), dataset=history, k=CUT, filter_viewed=True)
    hits = ranked[ranked["item_id"].to_numpy() == target_U[ranked["user_id"].to_numpy()]]
    rank_U = np.full(len(target_U), CUT + 1)
    rank_U[hits["user_id"].to_numpy()] = hits["rank"].to_numpy()
    return rank_U


def quiet_trainer() -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(events: Events, seed: int, point: dict[str, float], dataset: str) -> tuple[Run, np.ndarray]:
    negatives = NEGATIVES.get(dataset)
    lightning.seed_everything(seed, verbose=False)
    started = time.process_time()
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=LENGTHS[dataset],
        batch_size=128,
        loss="sampled_softmax" if negatives else "softmax",
        n_negatives=negatives or 1,
        dropout_rate=point["dropout"],
        lr=point["learning_rate"],
        dataloader_num_workers=0,
        get_trainer_func=quiet_trainer,
    )
    curve: list[float] = []
    rank_U = np.zeros(0)
    while len(curve) < point["epochs"] and len(curve) - int(np.argmax(curve or [0])) <= point["patience"]:
        model.fit_partial(events.train, min_epochs=1, max_epochs=1)
        curve.append(float(ndcg(rank_targets(model, events.train, events.validation_U)).mean()))
        sys.stderr.write(f"pass {len(curve)}: validation {curve[-1]:.4f}\n")
        if curve[-1] == max(curve):
            rank_U = rank_targets(model, events.known, events.test_U)
    run: Run = {
        "row": "rectools",
        "seed": seed,
        "point": point,
        "ndcg_at_10": float(ndcg(rank_U).mean()),
        "hr_at_10": float((rank_U <= CUT).mean()),
        "validation": max(curve),
        "epochs": len(curve),
        "best_epoch": int(np.argmax(curve)) + 1,
        "cpu_seconds": time.process_time() - started,
        "inside": {},
    }
    return run, rank_U


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--lr", nargs="+", type=float, default=[0.001])
    parser.add_argument("--dropout", nargs="+", type=float, default=[0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--patience", type=int, default=6)
    parser.add_argument("--runs", type=Path, default=FOLDER, help="where finished runs are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    events = read_events(options.dataset / "sequences")
    for seed, rate, dropout in product(options.seeds, options.lr, options.dropout):
        point = {"learning_rate": rate, "dropout": dropout, "epochs": options.epochs, "patience": options.patience}
        finished = read_runs(options.runs, options.dataset.name)
        if not any(run["row"] == "rectools" and (run["seed"], run["point"]) == (seed, point) for run in finished):
            run, rank_U = train(events, seed, point, options.dataset.name)
            append_run(options.runs, options.dataset.name, run, rank_U)
            sys.stdout.write(json.dumps(run) + "\n")


if __name__ == "__main__":
    main()
