"""What is told of a process that ended badly."""

import os
import re
import signal
from pathlib import Path

_TAIL_BYTES = 4000
_TAIL_LINES = 12
# An error's own line, alone or as vLLM logs it: `(Worker pid=7) ERROR 12-01 06:08:00 [core.py:1510] OSError: ...`
_ERROR_LINE = re.compile(r"^(?:\([^)]+\) ERROR [^]]+\] )?((?:\w+\.)*\w*(?:Error|Exception): .+)", re.MULTILINE)


def how_it_ended(status: int) -> str:
    """An exit status, or a signal as its negative number, in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    hint = " (out of memory? see the system's log)" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


def last_lines(log: Path) -> str:
    """The end of a log file, indented."""
    return "\n".join(f"    {line}" for line in _end(log, _TAIL_BYTES).splitlines()[-_TAIL_LINES:])


def last_error(log: Path, leave_out: str) -> str | None:
    """The line of the last error that a log holds, without those that hold `leave_out`."""
    errors = [line for line in _ERROR_LINE.findall(_end(log, 16 * _TAIL_BYTES)) if leave_out not in line]
    return errors[-1] if errors else None


def own_log() -> Path | None:
    """The file that this process and its children write their errors to; None where that is no file."""
    path = Path("/dev/fd/2").resolve()
    return path if path.is_file() else None


def _end(log: Path, size: int) -> str:
    with log.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
        return file.read().decode("utf-8", "replace")
