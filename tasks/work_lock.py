"""One run at a time in a work folder: a night, or a single stage."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from storage.folders import write_whole
from tasks.stage import StageError

_PATIENCE_SECONDS = 5.0  # a run that was just killed may still be ending its processes


@contextmanager
def only_run(work_folder: Path, what: str, patience: float = _PATIENCE_SECONDS) -> Iterator[None]:
    """Hold the work folder for a run; the system lets go of it when the process ends, however it ends.

    Raises StageError naming the run that holds it, if that doesn't end within `patience` seconds.
    """
    work_folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(work_folder / "run.lock", timeout=patience), work_folder / "run.json"
    try:
        lock.acquire()
    except Timeout as error:
        raise StageError(
            f"{_holder_in_words(holder)} works in {work_folder}. Nothing was changed; wait for it to end, or stop it, "
            "and start again"
        ) from error
    try:
        about = {"what": what, "process": os.getpid(), "host": socket.gethostname()}
        write_whole(holder, json.dumps(about | {"since": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"}))
        yield
    finally:
        lock.release()


def _holder_in_words(path: Path) -> str:
    try:
        about = json.loads(path.read_text())
    except (OSError, ValueError):  # it has not said so yet
        return "another run"
    return f"another run ({about['what']}, process {about['process']} on {about['host']}, since {about['since']})"
