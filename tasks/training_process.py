"""A training in a process of its own: started, followed while it runs, and its crash told in words."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from typing import IO

from tasks.stage import Progress, ReportProgress, StageCrash, StageError
from tasks.trained_models import ModelRef, progress_records

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_TAIL_LINES = 12


def train_in_child(model: ModelRef, threads: int | None, report: ReportProgress) -> None:
    """Run the training that `job.json` in the model's folder describes, from its last checkpoint if it has one.

    Raises StageError with the exit status and the last lines of `log.txt` where it ends in any way but well; StageCrash
    where a signal ended it, so that it is tried again.
    """
    with (model.folder / "log.txt").open("ab") as log, _started(model, log, threads) as process:
        epochs = 0
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            epochs = _tell(model, epochs, report)
        _tell(model, epochs, report)
    if process.returncode != 0:
        kind = StageCrash if process.returncode < 0 else StageError
        raise kind(_crash_message(model, process.returncode))


@contextmanager
def _started(model: ModelRef, log: IO[bytes], threads: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """Start the training; it ends with this process, and where the block is left early."""
    environment = os.environ | process_environment(threads)
    command = [sys.executable, "-m", "tasks.attached", "dmesr_model.train", str(model.folder / "job.json")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def process_environment(threads: int | None) -> dict[str, str]:
    """What a training's process gets beside the environment it inherits, whose own choices stand."""
    # Threads that spin while they wait cost dearly on shared cores: docs/decisions/train-waiting-threads.md
    chosen = {"OMP_WAIT_POLICY": "passive"}
    # In steps of changing sizes glibc's heap grows to many times what they need: docs/decisions/train-allocator.md
    tcmalloc = find_library("tcmalloc_minimal")
    if tcmalloc is not None:
        chosen["LD_PRELOAD"] = tcmalloc
    forced = {"TQDM_DISABLE": "1"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    return {name: value for name, value in chosen.items() if name not in os.environ} | forced


def _tell(model: ModelRef, epochs: int, report: ReportProgress) -> int:
    """Log and report what the training wrote since it had ended `epochs` epochs; return how many it has ended now."""
    ended = [record for record in progress_records(model.folder) if record["epoch_ended"]]
    for record in ended[epochs:]:
        validation = record["validation_ndcg_at_10"]
        logger.info(
            "%s, seed %d: epoch %d, loss %.4f, validation ndcg@10 %s, %.0f sequences/s",
            model.variant,
            model.seed,
            record["epoch"],
            record["loss"],
            "-" if validation is None else f"{validation:.4f}",
            record["samples_per_second"],
        )
        most = json.loads((model.folder / "run.json").read_text())["train"]["max_epochs"]
        rate = (record["epoch"] + 1) / max(record["seconds"], 1e-9)
        report(Progress(record["epoch"] + 1, most, f"epochs of {model.variant}, seed {model.seed}", rate))
    return max(epochs, len(ended))


def _crash_message(model: ModelRef, status: int) -> str:
    log = model.folder / "log.txt"
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    if status == -signal.SIGKILL:
        how += " (out of memory? see the system's log)"
    tail = "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
    return (
        f"the training of {model.variant}, seed {model.seed}, {how}; last lines of {log}:\n{tail}\n"
        "  checkpoints stay: run train again to go on from the last one"
    )
