"""Training on a GPU: samples/s and memory with 100,000 items and histories of 200 events; and that it is exact.

    python benchmarks/model_gpu.py FOLDER [--items 100000] [--length 200] [--users 12800] [--rows 0 1 2] [--profile]
    python benchmarks/model_gpu.py FOLDER --check

Items: two coarse views and eight segments, 384 random numbers each. Events: item at rank r with probability ∝ r^-0.8.
Sampled softmax with 1,024 negatives. The first epoch of a row warms up, the second is timed, with the
device idle at both ends; then a full ranking of all users, once. "items / step": different items that a step encodes.
"disk": text vectors are read from the memory-mapped table step by step, as for a catalog too large for the GPU.

`--check` trains each backbone on a small log: on the CPU and on the GPU without dropout (largest relative difference of
the loss, float32), twice on the GPU (bits of the weights), and once more with a SIGKILL in it.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import dmesr_model.trainer
from dmesr_model.checkpoint import RunState
from dmesr_model.features import ItemFeatures
from dmesr_model.model_config import ModelConfig
from dmesr_model.run_setup import use_deterministic_kernels
from dmesr_model.sequences import Sequences
from dmesr_model.train import TrainJob
from dmesr_model.trainer import TrainConfig, Trainer

WIDTH, SEGMENTS, VIEWS = 384, 8, 2
BACKBONES = ("sasrec", "bert4rec", "gru4rec")
ID_ONLY: dict[str, Any] = {"views": (), "use_segments": False}
FULL: dict[str, Any] = {"views": ("image", "text")}
LOSS = {"kind": "sampled_softmax", "negatives": 1024}


class Row(NamedTuple):
    """What is timed."""

    name: str
    model: dict[str, Any]
    precision: Literal["no", "bf16"]
    on_gpu: bool = True
    deterministic: bool = True
    batch: int = 128

    def describe(self) -> str:
        parts = ["float32" if self.precision == "no" else self.precision]
        parts += [f"batch {self.batch}"] * (self.batch != 128) + ["disk"] * (not self.on_gpu)
        return ", ".join(parts + ["not deterministic"] * (not self.deterministic))


ROWS = [
    Row("SASRec, ID only", ID_ONLY, "no"),
    Row("SASRec, ID only", ID_ONLY, "bf16"),
    Row("DMESR-SASRec", FULL, "no"),
    Row("DMESR-SASRec", FULL, "bf16"),
    Row("DMESR-SASRec", FULL, "bf16", on_gpu=False),
    Row("DMESR-SASRec", FULL, "bf16", deterministic=False),
    Row("DMESR-BERT4Rec", {**FULL, "backbone": "bert4rec"}, "no"),
    Row("DMESR-BERT4Rec", {**FULL, "backbone": "bert4rec"}, "bf16"),
    Row("DMESR-GRU4Rec", {**FULL, "backbone": "gru4rec"}, "no"),
    Row("DMESR-GRU4Rec", {**FULL, "backbone": "gru4rec"}, "bf16"),
    Row("SASRec, ID only", ID_ONLY, "no", batch=512),
    Row("SASRec, ID only", ID_ONLY, "bf16", batch=512),
    Row("DMESR-SASRec", FULL, "no", batch=512),
    Row("DMESR-SASRec", FULL, "bf16", batch=512),
]


def make_data(folder: Path, items: int, users: int, events: int) -> tuple[ItemFeatures, Sequences]:
    """A catalog of random vectors and a log of `events` + 2 events a user."""
    random = np.random.default_rng(0)
    rows = np.arange(items * (SEGMENTS + VIEWS), dtype=np.int32).reshape(items, -1)
    ids = tuple(str(position) for position in range(items))
    vectors = random.standard_normal((rows.size, WIDTH), dtype=np.float32)
    ItemFeatures(ids, ("image", "text"), vectors, rows[:, :VIEWS], rows[:, VIEWS:]).save(folder / "features")
    cumulative = np.cumsum(np.arange(1, items + 1) ** -0.8)
    drawn = np.searchsorted(cumulative, random.random(users * (events + 2)) * cumulative[-1])
    popular = random.permutation(items)[drawn] + 1
    offsets = np.arange(users + 1, dtype=np.int64) * (events + 2)
    Sequences(offsets, popular.astype(np.int32), tuple(str(user) for user in range(users))).save(folder / "sequences")
    return ItemFeatures.open(folder / "features"), Sequences.open(folder / "sequences")


def time_row(features: ItemFeatures, sequences: Sequences, row: Row, options: argparse.Namespace) -> str:
    torch.use_deterministic_algorithms(row.deterministic)
    if not row.on_gpu:
        dmesr_model.trainer.place_on_gpu = lambda *_: None
    settings = {"batch_size": row.batch, "mixed_precision": row.precision}
    config = TrainConfig.model_validate({**settings, "loss": LOSS, "checkpoint_seconds": 1e9})
    model = ModelConfig.model_validate({**row.model, "max_length": options.length, "id_dropout": 0.0})
    torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    trainer = Trainer(
        Accelerator(mixed_precision=row.precision), features, sequences, model, config, options.folder / "o"
    )
    state = trainer.train_epoch(RunState(), progress=None)
    torch.cuda.synchronize()
    warm = time.perf_counter()
    state = trainer.train_epoch(RunState(epoch=1, step=state.step), progress=None)
    torch.cuda.synchronize()
    seconds, peak = time.perf_counter() - warm, torch.cuda.max_memory_allocated() / 2**30
    steps = len(trainer.steps.plan(1))
    unique = len(trainer.steps.build(trainer.steps.plan(1)[0], 1, 0).items.id_row_N)
    if options.profile:
        print_profile(trainer, state, steps)
    ranking = time.perf_counter()
    trainer.validate()
    ranked = time.perf_counter() - ranking
    return (
        f"| {row.name} | {row.describe()} | {state.samples / seconds:.0f} | {1000 * seconds / steps:.1f} | {unique} | "
        f"{peak:.2f} | {ranked:.1f} | {warm - started:.0f} | {state.loss_sum / steps:.3f} |"
    )


def print_profile(trainer: Trainer, state: RunState, steps: int) -> None:
    """How long the GPU computes in a step, and in how many kernels, over one more epoch."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        trainer.train_epoch(RunState(epoch=2, step=state.step), progress=None)
        torch.cuda.synchronize()
    kernels = profile.key_averages()
    busy_ms = sum(kernel.self_device_time_total for kernel in kernels) / 1000 / steps
    print(
        f"the GPU is busy {busy_ms:.1f} ms a step, with {sum(kernel.count for kernel in kernels) / steps:.0f} kernels"
    )


def time_rows(options: argparse.Namespace) -> None:
    features, sequences = make_data(options.folder, options.items, options.users, options.length)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.items} items, length {options.length}")
    print("| model | precision | sequences / s | ms / step | items / step | peak GiB | ranking s | warm-up s | loss |")
    print("| --- " * 9 + "|")
    in_place = dmesr_model.trainer.place_on_gpu
    for position in options.rows or range(len(ROWS)):
        try:
            print(time_row(features, sequences, ROWS[position], options), flush=True)
        except RuntimeError as error:  # a row that fails must not cost the others
            print(f"row {position} {ROWS[position]}: {type(error).__name__}: {str(error)[:2000]}", flush=True)
        dmesr_model.trainer.place_on_gpu = in_place
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.cuda.empty_cache()


def check(folder: Path) -> None:
    """Print, for each backbone, how the GPU's training differs from the CPU's, from its own, and after a kill."""
    make_data(folder, items=2_000, users=512, events=50)
    variants = [("cpu", 0.0, 0), ("gpu", 0.0, 0), ("whole", 0.3, 0), ("again", 0.3, 0), ("killed", 0.3, 30)]
    with ThreadPoolExecutor(max_workers=8) as threads:
        started = {
            (backbone, name): threads.submit(train, folder, name, backbone, dropout, kill_at)
            for backbone in BACKBONES
            for name, dropout, kill_at in variants
        }
        outputs = {key: run.result() for key, run in started.items()}
    for backbone in BACKBONES:
        cpu, gpu, whole, again, killed = (outputs[backbone, name] for name, _, _ in variants)
        losses = zip(read_losses(cpu), read_losses(gpu), strict=True)
        difference = max(abs(ours - theirs) / theirs for theirs, ours in losses)
        print(
            f"{backbone}: loss on the GPU against the CPU's, largest relative difference {difference:.1e}; weights "
            f"differ by {compare(whole, again)} between two runs, by {compare(whole, killed)} after a kill"
        )


def train(folder: Path, name: str, backbone: str, dropout: float, kill_at: int) -> Path:
    """Train in a process of its own, which logs beside its output; with `kill_at`, kill it there and run it again."""
    output = folder / f"{backbone}-{name}"
    shutil.rmtree(output, ignore_errors=True)
    job = TrainJob(
        features=folder / "features",
        sequences=folder / "sequences",
        output=output,
        model=ModelConfig.model_validate(
            {
                "backbone": backbone,
                "max_length": 50,
                "dropout": dropout,
                "id_dropout": dropout,
                "input_dropout": dropout,
            }
        ),
        train=TrainConfig.model_validate(
            {
                "loss": LOSS,
                "max_epochs": 15,
                "patience": 15,
                "log_every_steps": 1,
                "checkpoint_seconds": 0.0 if kill_at else 60.0,
            }
        ),
    )
    path = output.with_suffix(".json")
    path.write_text(job.model_dump_json())
    command = [sys.executable, "-m", "dmesr_model.train", str(path)]
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if name == "cpu" else {})}
    with output.with_suffix(".log").open("w") as log:
        if kill_at:
            process = subprocess.Popen(command, stderr=log, env=environment)
            while process.poll() is None and count_steps(output) < kill_at:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"{backbone}: killed after step {count_steps(output)}", flush=True)
        subprocess.run(command, check=True, stderr=log, env=environment)
    return output


def count_steps(output: Path) -> int:
    path = output / "progress.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def read_losses(output: Path) -> list[float]:
    records = [json.loads(line) for line in (output / "progress.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["epoch_ended"]]


def compare(first: Path, second: Path) -> float:
    """Largest absolute difference of any weight."""
    left, right = (load_file(path / "model" / "model.safetensors") for path in (first, second))
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=12_800)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", help="positions in ROWS")
    parser.add_argument("--profile", action="store_true", help="one more epoch of each row, for the GPU's busy time")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} finds no GPU here")
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.check:
        check(options.folder)
        return
    use_deterministic_kernels(torch.device("cuda"))
    time_rows(options)


if __name__ == "__main__":
    main()
