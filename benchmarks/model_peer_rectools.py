"""Epochs of RecTools' SASRec on the training events that model_speed.py exported; runs in RecTools' own environment.

PEER_PYTHON benchmarks/model_peer_rectools.py EVENTS.npz EPOCHS
"""

import json
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from rectools.dataset import Dataset
from rectools.models import SASRecModel


class EpochClock(lightning.Callback):
    """Wall and CPU seconds of each training epoch; kept by the class, since RecTools copies its trainer."""

    epochs: ClassVar[list[dict[str, float]]] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.started = time.perf_counter(), time.process_time()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        wall, cpu = self.started
        self.epochs.append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})


def main() -> None:
    events, epochs = np.load(Path(sys.argv[1])), int(sys.argv[2])
    torch.set_num_threads(int(events["threads"]))
    frame = pd.DataFrame({"user_id": events["user"], "item_id": events["item"], "weight": 1})
    frame["datetime"] = pd.to_datetime(events["order"], unit="s")
    model = SASRecModel(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=int(events["max_length"]),
        batch_size=128,
        loss="softmax",
        dropout_rate=0.3,
        lr=1e-3,
        dataloader_num_workers=0,
        get_trainer_func=lambda: lightning.Trainer(
            max_epochs=epochs,
            callbacks=[EpochClock()],
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ),
    )
    model.fit(Dataset.construct(frame))
    sys.stdout.write(json.dumps(EpochClock.epochs) + "\n")


if __name__ == "__main__":
    main()
