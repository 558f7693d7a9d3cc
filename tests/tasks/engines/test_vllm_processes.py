import subprocess
import sys
from pathlib import Path

import pytest

# What a stage's process does: its log is the file that its errors go to, and those of the processes that it starts.
STAGE = """
import sys
from tasks.engines.vllm_processes import why_not_started
print("(Worker-0 pid=9) ERROR 12-01 06:08:00 [shm.py:2] RuntimeError: Insufficient space in /dev/shm.", file=sys.stderr)
print("(EngineCore pid=8) ERROR 12-01 06:08:00 [core.py:15] Exception: Worker initialization failed.", file=sys.stderr)
sys.stderr.flush()
print(why_not_started(RuntimeError(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("Engine core initialization failed. See root cause above.", "RuntimeError: Insufficient space in /dev/shm"),
        ("no such model.", "no such model"),
    ],
)
def test_an_engine_that_did_not_start_is_told_with_the_reason_of_the_process_that_failed(
    tmp_path: Path, raised: str, said: str
) -> None:
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", STAGE, raised]
        told = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, check=True).stdout
    assert told == f"{said}\n"
