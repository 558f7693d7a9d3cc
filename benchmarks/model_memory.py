"""Peak memory of training steps over a catalog of 1,000,000 items × 384 dimensions × 8 segments of embeddings.

    python benchmarks/model_memory.py FOLDER [--items 1000000] [--steps 5] [--mixed]

The table of text vectors is a sparse file of the full length, so a read costs memory as vectors would, and no disk.
Reported, ten times: anonymous memory (what the process itself allocated), resident file pages (which the system takes
back), and processor seconds so far. 128 sequences a step; with `--mixed` of 2 to 20 events, so that no step is as large
as the one before, else of 10.
"""

import argparse
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from dmesr_model.encoding import gatherer_for
from dmesr_model.features import ItemFeatures
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.objective import LossConfig, Objective
from dmesr_model.sequences import Sequences
from dmesr_model.steps import StepBuilder
from dmesr_model.trainer import TrainConfig, step_settings

WIDTH, SEGMENTS, VIEWS = 384, 8, 2


def make_catalog(folder: Path, items: int) -> ItemFeatures:
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.arange(items * (SEGMENTS + VIEWS), dtype=np.int32).reshape(items, -1)
    ids = tuple(str(position) for position in range(items))
    ItemFeatures(ids, ("image", "text"), np.zeros((rows.size, 1), np.float32), rows[:, :VIEWS], rows[:, VIEWS:]).save(
        folder
    )
    np.lib.format.open_memmap(folder / "vectors_UE.npy", "w+", np.float32, (rows.size, WIDTH)).flush()
    return ItemFeatures.open(folder)


def memory_mb() -> dict[str, float]:
    """Anonymous and file-backed resident memory of this process, MB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--mixed", action="store_true", help="histories of 2 to 20 events")
    parser.add_argument("--id-mode", choices=["none", "added"], default="none")
    options = parser.parse_args()
    torch.set_num_threads(1)
    features = make_catalog(options.folder, options.items)
    random = np.random.default_rng(0)
    lengths_U = random.integers(2, 21, size=20_000) if options.mixed else np.full(20_000, 10)
    offsets = np.concatenate([[0], np.cumsum(lengths_U)])
    events = random.integers(1, options.items + 1, size=offsets[-1]).astype(np.int32)
    sequences = Sequences(offsets, events, tuple(str(user) for user in range(20_000)))
    config = ModelConfig(views=("image", "text"), id_mode=options.id_mode)
    train = TrainConfig(loss=LossConfig(kind="sampled_softmax", negatives=1024))
    trained = features.item_ids if options.id_mode == "added" else ()
    model = DMESR(config, WIDTH, trained)
    steps = StepBuilder(sequences, gatherer_for(model, features), step_settings(config, train))
    objective = Objective(model, train.loss, options.items)
    print(f"{options.items} items, table of {features.vectors_UE.nbytes / 1e9:.1f} GB; before training {memory_mb()}")
    passes = ((epoch, *step) for epoch in range(options.steps) for step in enumerate(steps.plan(epoch)))
    started = time.process_time()
    for done, (epoch, position, users) in enumerate(islice(passes, options.steps), start=1):
        batch = steps.build(users, epoch, position)
        objective.zero_grad()
        objective(batch).total.backward()
        if done % max(options.steps // 10, 1) == 0:
            seconds = time.process_time() - started
            print(f"step {done}: {len(batch.items.id_row_N)} unique items, {seconds:.1f} s, {memory_mb()}", flush=True)


if __name__ == "__main__":
    main()
