"""A training in a process of its own, or in several: started, followed while it runs, and its crash told in words."""

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes.util import find_library
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tasks.crashes import how_it_ended, last_lines
from tasks.stage import Progress, ReportProgress, StageCrash, StageError
from tasks.trained_models import ModelRef

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_QUIET_SECONDS = 60
_WARNING = re.compile(r"^\S+ \S+ (WARNING|ERROR|CRITICAL) ")


@dataclass(frozen=True)
class Launch:
    """How a training is started.

    Args:
        processes: that train one model together, each on a GPU of its own, or all on the CPU.
        threads: of each on the CPU; None: PyTorch's choice.
    """

    processes: int = 1
    threads: int | None = None

    def command(self, job: Path) -> list[str]:
        """The command line; its processes end when the pipe at their standard input does (`tasks.attached`)."""
        several = ["tasks.launcher", "--standalone", f"--nproc-per-node={self.processes}", "-m"]
        training = ["tasks.attached", "dmesr_model.train", str(job)]
        return [sys.executable, "-m", *(several if self.processes > 1 else []), *training]


def train_in_child(model: ModelRef, launch: Launch, report: ReportProgress) -> None:
    """Run the training that `job.json` in the model's folder describes, from its last checkpoint if it has one.

    Raises StageError with the exit status and the last lines of `log.txt` where it ends in any way but well; StageCrash
    where a signal ended it, or one of several processes, so that it is tried again.
    """
    follower = Follower(model, report)
    with (model.folder / "log.txt").open("ab") as log, _started(model, log, launch) as process:
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            follower.tell()
        follower.tell()
    if process.returncode != 0:
        kind = StageCrash if process.returncode < 0 else StageError
        raise kind(_crash_message(model, process.returncode))


@contextmanager
def _started(model: ModelRef, log: IO[bytes], launch: Launch) -> Iterator[subprocess.Popen[bytes]]:
    """Start the training; it ends with this process, and where the block is left early."""
    environment = os.environ | process_environment(launch.threads)
    command = launch.command(model.folder / "job.json")
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


class Follower:
    """Logs and reports what a training writes while it runs: ended epochs, where it is in a long one, warnings.

    Args:
        model: its folder holds `log.txt`, of which only what is written from now on is told, and `progress.jsonl`.
        report: called at the end of each epoch.
    """

    def __init__(self, model: ModelRef, report: ReportProgress) -> None:
        self._model, self._report = model, report
        self._log, self._progress = GrowingFile(model.folder / "log.txt"), GrowingFile(model.folder / "progress.jsonl")
        self._log.read_lines()
        self._told = (-1, False)  # step, whether it ended an epoch
        self._told_at = time.monotonic()

    def tell(self) -> None:
        """Tell what is new."""
        for line in self._log.read_lines():
            if _WARNING.search(line):
                logger.warning("%s: %s", self._model.name, line)
        records = [json.loads(line) for line in self._progress.read_lines()]
        for record in records:
            is_news = (record["step"], record["epoch_ended"]) > self._told
            if is_news and (record["epoch_ended"] or self._is_late(record is records[-1])):
                self._tell_of(record)

    def _is_late(self, is_latest: bool) -> bool:
        return is_latest and time.monotonic() - self._told_at >= _QUIET_SECONDS

    def _tell_of(self, record: dict[str, Any]) -> None:
        self._told, self._told_at = (record["step"], record["epoch_ended"]), time.monotonic()
        validation = record["validation_ndcg_at_10"]
        logger.info(
            "%s: epoch %d%s, loss %.4f, validation ndcg@10 %s, %.0f sequences/s",
            self._model.name,
            record["epoch"],
            "" if record["epoch_ended"] else f", step {record['step']}",
            record["loss"],
            "-" if validation is None else f"{validation:.4f}",
            record["samples_per_second"],
        )
        if record["epoch_ended"]:
            most = json.loads((self._model.folder / "run.json").read_text())["train"]["max_epochs"]
            rate = (record["epoch"] + 1) / max(record["seconds"], 1e-9)
            self._report(Progress(record["epoch"] + 1, most, f"epochs of {self._model.name}", rate))


class GrowingFile:
    """Whole lines that another process appends to a file, also where it puts a new file in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_number, self._offset = -1, 0

    def read_lines(self) -> list[str]:
        """Those written since the last call, without their ends; none where there is no file."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            file_number = os.fstat(file.fileno()).st_ino
            if file_number != self._file_number:
                self._file_number, self._offset = file_number, 0
            file.seek(self._offset)
            whole, end, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(end)
        return whole.decode(errors="replace").splitlines()


def _crash_message(model: ModelRef, status: int) -> str:
    log = model.folder / "log.txt"
    return (
        f"the training of {model.name}, {how_it_ended(status)}; last lines of {log}:\n{last_lines(log)}\n"
        "  checkpoints stay: run train again to go on from the last one"
    )
