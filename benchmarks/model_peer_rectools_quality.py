"""Accuracy of RecTools' SASRec under the protocol of model_quality.py; runs in RecTools' own environment.

    PEER_PYTHON benchmarks/model_peer_rectools_quality.py WORK_FOLDER/ml-100k --lr 0.001 0.002 --seeds 0
    PEER_PYTHON benchmarks/model_peer_rectools_quality.py WORK_FOLDER/ml-100k --lr 0.002 --seeds 0 1 2 3 4
    PEER_PYTHON benchmarks/model_peer_rectools_quality.py WORK_FOLDER/microlens-25k --lr 0.002 --epochs 80 --patience 10

Last event of a user: test; the one before: validation; full ranking, seen items filtered. After each epoch the model
is validated by its own `recommend`; test accuracy is that of the epoch of best validation NDCG@10. 64 dimensions,
2 blocks, 2 heads, batch 128; ML-100K and the shop: length 100, full softmax; MicroLens-25k: length 20, RecTools'
sampled softmax. Finished runs are kept under DATASET/quality and not run again.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from rectools.dataset import Dataset
from rectools.models import SASRecModel

LENGTHS = {"ml-100k": 100, "microlens-25k": 20, "sample_shop": 100}
NEGATIVES = {"microlens-25k": 128}  # a position; full softmax elsewhere
FEWEST_EVENTS = 3
CUT = 10


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


def gains(model: SASRecModel, history: Dataset, target_U: np.ndarray) -> np.ndarray:
    """NDCG@10 of each user."""
    ranked = model.recommend(users=np.arange(len(target_U)), dataset=history, k=CUT, filter_viewed=True)
    hits = ranked[ranked["item_id"].to_numpy() == target_U[ranked["user_id"].to_numpy()]]
    gain_U = np.zeros(len(target_U))
    gain_U[hits["user_id"].to_numpy()] = 1 / np.log2(1 + hits["rank"].to_numpy())
    return gain_U


def quiet_trainer() -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def train(events: Events, seed: int, rate: float, dropout: float, options: argparse.Namespace) -> dict[str, object]:
    negatives = NEGATIVES.get(options.dataset.name)
    lightning.seed_everything(seed, verbose=False)
    started = time.process_time()
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=LENGTHS[options.dataset.name],
        batch_size=128,
        loss="sampled_softmax" if negatives else "softmax",
        n_negatives=negatives or 1,
        dropout_rate=dropout,
        lr=rate,
        dataloader_num_workers=0,
        get_trainer_func=quiet_trainer,
    )
    curve: list[float] = []
    test_U = np.zeros(0)
    while len(curve) < options.epochs and len(curve) - int(np.argmax(curve or [0])) <= options.patience:
        model.fit_partial(events.train, min_epochs=1, max_epochs=1)
        curve.append(float(gains(model, events.train, events.validation_U).mean()))
        sys.stderr.write(f"pass {len(curve)}: validation {curve[-1]:.4f}\n")
        if curve[-1] == max(curve):
            test_U = gains(model, events.known, events.test_U)
    return {
        "seed": seed,
        "learning_rate": rate,
        "dropout": dropout,
        "validation": max(curve),
        "ndcg_at_10": float(test_U.mean()),
        "hr_at_10": float((test_U > 0).mean()),
        "epochs": len(curve),
        "cpu_seconds": time.process_time() - started,
        "curve": curve,
        "per_user": test_U.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--lr", nargs="+", type=float, default=[0.001])
    parser.add_argument("--dropout", nargs="+", type=float, default=[0.3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--patience", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    events = read_events(options.dataset / "sequences")
    for seed in options.seeds:
        for rate in options.lr:
            for dropout in options.dropout:
                path = options.dataset / "quality" / f"rectools-{rate}-{dropout}-{seed}.json"
                if not path.exists():
                    result = train(events, seed, rate, dropout, options)
                    path.write_text(json.dumps(result))
                shown = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("per_user", "curve")}
                sys.stdout.write(json.dumps(shown) + "\n")


if __name__ == "__main__":
    main()
