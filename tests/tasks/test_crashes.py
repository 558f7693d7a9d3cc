import subprocess
import sys
from pathlib import Path

from tasks.crashes import last_error

LOG = """\
(MainProcess pid=7) ERROR 12-01 06:07:45 [registry.py:10] PermissionError: [Errno 13] Permission denied: '/home'
(Worker-0 pid=9) ERROR 12-01 06:08:00 [core.py:15] torch.cuda.OutOfMemoryError: no 20 GiB
(EngineCore pid=8) ERROR 12-01 06:08:00 [core.py:15] Exception: WorkerProc initialization failed due to an exception.
Traceback (most recent call last):
    raise ValueError("none: of these")
Exception: WorkerProc initialization failed due to an exception.
"""


def test_the_last_error_is_told_without_those_that_say_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("all is well\n")
    assert last_error(log, leave_out="initialization failed") is None
    log.write_text(LOG)
    assert last_error(log, leave_out="initialization failed") == "torch.cuda.OutOfMemoryError: no 20 GiB"


def test_a_process_knows_the_file_that_its_errors_go_to(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tasks.crashes import own_log; print(own_log())"]
    with (tmp_path / "log").open("w") as log:
        named = subprocess.run(command, stderr=log, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert named == f"{tmp_path / 'log'}\n"
    piped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert piped == "None\n"
