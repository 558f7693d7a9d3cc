"""What is told of a process that ended badly."""

import os
import signal
from pathlib import Path

_TAIL_BYTES = 4000
_TAIL_LINES = 12


def how_it_ended(status: int) -> str:
    """An exit status, or a signal as its negative number, in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    hint = " (out of memory? see the system's log)" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


def last_lines(log: Path) -> str:
    """The end of a log file, indented."""
    with log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _TAIL_BYTES, 0))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-_TAIL_LINES:])
