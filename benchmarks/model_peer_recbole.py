"""Seconds of an epoch of RecBole's SASRec on the events that model_speed.py exported; runs in its own environment.

PEER_PYTHON benchmarks/model_peer_recbole.py EVENTS.npz STEPS

RecBole trains on every prefix of every sequence, each padded to the full length, so that all of its steps cost the
same: one step warms up, STEPS more are timed through its own trainer, and their seconds are scaled to all steps of the
epoch.
"""

import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def write_events(folder: Path, user: np.ndarray, item: np.ndarray) -> None:
    """RecBole's atomic file; two events of each user are added at the end, which its leave-one-out takes away again."""
    (folder / "events").mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    held_out = [(str(name), str(item[0]), len(user) + extra) for name in np.unique(user) for extra in (0, 1)]
    rows = [(str(name), str(film), order) for order, (name, film) in enumerate(zip(user, item, strict=True))]
    lines += ["\t".join(map(str, row)) for row in [*rows, *held_out]]
    (folder / "events" / "events.inter").write_text("\n".join(lines))


def build_trainer(folder: Path, max_length: int, batch_size: int) -> tuple:
    """(trainer, loader of training batches)."""
    settings = {
        "data_path": str(folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "TIME_FIELD": "timestamp",
        "MAX_ITEM_LIST_LENGTH": max_length,
        "train_batch_size": batch_size,
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "hidden_size": 64,
        "inner_size": 64,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dropout_prob": 0.3,
        "attn_dropout_prob": 0.3,
        "learning_rate": 0.001,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
        "use_gpu": False,
        "state": "ERROR",
        "checkpoint_dir": str(folder / "saved"),
        "log_wandb": False,
    }
    sys.argv = sys.argv[:1]  # RecBole reads the command line itself
    config = Config(model="SASRec", dataset="events", config_dict=settings)
    init_seed(0, True)
    dataset = create_dataset(config)
    train_data, _, _ = data_preparation(config, dataset)
    model = get_model("SASRec")(config, train_data.dataset)
    return get_trainer(config["MODEL_TYPE"], "SASRec")(config, model), train_data


def main() -> None:
    events, steps = np.load(Path(sys.argv[1])), int(sys.argv[2])
    torch.set_num_threads(int(events["threads"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_events(folder, events["user"], events["item"])
        trainer, loader = build_trainer(folder, int(events["max_length"]), int(events["recbole_batch"]))
        trainer._train_epoch(list(islice(loader, 1)), 0)
        wall, cpu = time.perf_counter(), time.process_time()
        trainer._train_epoch(islice(loader, steps), 0)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    scale = len(loader) / steps
    sys.stdout.write(json.dumps([{"wall": wall * scale, "cpu": cpu * scale, "steps": len(loader)}]) + "\n")


if __name__ == "__main__":
    main()
