"""Run a stage in a process of its own: its memory is freed when it ends, and its crash is an error of the stage.

The parent writes the job as JSON and starts `python -m tasks.isolated JOB.json` as the leader of a new process group.
The child sends events (log records, progress, errors, the summary) as JSON lines through a pipe; what native code
prints goes to a log file. The child's standard input is a pipe that nobody writes to: when it closes, the parent is
gone, and the child ends its whole group, engines included.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from storage.tables import StoreError
from tasks.config import PipelineConfig
from tasks.crashes import how_it_ended, last_lines
from tasks.pipeline import stage_named
from tasks.stage import Progress, ReportProgress, StageCrash, StageError, Summary, run_stage

logger = logging.getLogger(__name__)

EXIT_STAGE_ERROR = 3  # the stage said what is wrong; other exit statuses are crashes
EXIT_STAGE_CRASH = 4  # a process that the stage started has crashed, and the stage says so
_OWN_LOGGERS = ("tasks", "storage", "dmesr_model", "sample_shop", "flows")


def run_isolated(config: PipelineConfig, stage_name: str, report: ReportProgress) -> Summary:
    """Run one stage in a child process and return its summary.

    Raises StageError with the stage's own message; StageCrash, which names the exit status or signal, the log file and
    what to do, if the child ended in any other way.
    """
    log_path = _log_path(config.work_folder, stage_name)
    with log_path.open("wb") as log, _child(config, stage_name, log) as (process, events):
        outcome: dict[str, Any] = {}
        for line in events:
            if line.endswith("\n"):  # a killed child may leave half a line
                _receive(json.loads(line), report, outcome)
    status = process.returncode
    if "summary" in outcome and status == 0:
        return Summary.from_json(outcome["summary"])
    if status == EXIT_STAGE_ERROR and "error" in outcome:
        raise StageError(outcome["error"])
    if status == EXIT_STAGE_CRASH and "error" in outcome:
        raise StageCrash(outcome["error"])
    raise StageCrash(_crash_message(stage_name, status, outcome.get("error"), log_path))


def _log_path(work_folder: Path, stage_name: str) -> Path:
    folder = work_folder / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{stage_name}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.log"


@contextmanager
def _child(
    config: PipelineConfig, stage_name: str, log: IO[bytes]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[str]]]:
    """Start the child; on leaving, end whatever is left of its process group."""
    reader, writer = os.pipe()
    job = Path(log.name).with_suffix(".json")
    # What is not set stays so: some sections tell a default from a choice.
    settings = config.model_dump(mode="json", exclude_unset=True)
    job.write_text(json.dumps({"stage": stage_name, "events": writer, "config": settings}))
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.isolated", str(job)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            start_new_session=True,
        )
    finally:
        os.close(writer)
    cleaner = threading.Thread(target=_end_group_after, args=(process.pid,))
    cleaner.start()
    assert process.stdin is not None
    try:
        with os.fdopen(reader, encoding="utf-8") as events:
            yield process, events
    except BaseException:
        process.stdin.close()  # the child's sign to end itself and its group
        raise
    finally:
        cleaner.join()
        process.stdin.close()
        process.wait()
        job.unlink(missing_ok=True)


def _end_group_after(leader: int) -> None:
    """Wait until the group's leader has ended, then end what it left behind (an engine's workers hold the pipe open).

    The leader is not reaped yet, so its number can't have become another group's.
    """
    os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError, PermissionError):  # macOS refuses to signal a group of zombies
        os.killpg(leader, signal.SIGKILL)


def _receive(event: dict[str, Any], report: ReportProgress, outcome: dict[str, Any]) -> None:
    match event.pop("event"):
        case "log":
            logging.getLogger(event["name"]).log(event["level"], "%s", event["message"])
        case "progress":
            report(Progress(**event))
        case "summary" | "error" as kind:
            outcome[kind] = event["text"]


def _crash_message(stage_name: str, status: int, error: str | None, log_path: Path) -> str:
    message = f"the process of stage {stage_name} {how_it_ended(status)}"
    if error:
        message += f": {error}"
    elif tail := last_lines(log_path):
        message += f"; last lines:\n{tail}"
    return f"{message}\n  full log: {log_path}\n  what was committed stays: run it again, to go on from there"


# The child


class _EventHandler(logging.Handler):
    """Sends log records to the parent; a record that the closed pipe refuses is lost with the parent."""

    def __init__(self, send: "_Sender") -> None:
        super().__init__(logging.INFO)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send("log", name=record.name, level=record.levelno, message=record.getMessage())


class _Sender:
    """Writes events as JSON lines, one at a time, to the file descriptor given by the parent."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # an engine's worker must not hold the pipe open after us
        self._stream = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def __call__(self, event: str, **values: object) -> None:
        with self._lock:
            self._stream.write(json.dumps({"event": event, **values}) + "\n")


def main(job_path: Path) -> int:
    """Run the job's stage; return the exit status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job = json.loads(job_path.read_text())
    send = _Sender(job["events"])
    handler = _EventHandler(send)
    for name in _OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(handler)
    try:
        stage = stage_named(PipelineConfig.model_validate(job["config"]), job["stage"])
        summary = run_stage(stage, lambda progress: send("progress", **asdict(progress)))
    except (StageError, StoreError) as error:
        send("error", text=str(error))
        return EXIT_STAGE_CRASH if isinstance(error, StageCrash) else EXIT_STAGE_ERROR
    except Exception as error:
        send("error", text=f"{type(error).__name__}: {error}")
        raise
    send("summary", text=summary.to_json())
    return 0


def _end_with_parent() -> None:
    """Wait until the parent's end of our standard input closes, then end this process group."""
    while os.read(0, 1024):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
