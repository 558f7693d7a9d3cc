"""What was started under a guard ends with the process that started it."""

import subprocess
import sys
import time

import psutil

from tasks.engines.guard import Guard

PARENT = """
import psutil, subprocess, sys, time
from tasks.engines.guard import Guard
guard = Guard()
with guard.marking():
    child = subprocess.Popen([sys.executable, "-c",
        "import setproctitle, subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True);"
        "setproctitle.setproctitle('VLLM::EngineCore'); time.sleep(600)"],
        start_new_session=True)
guard.watch([psutil.Process(child.pid)])
print(child.pid, subprocess.Popen(["sleep", "601"]).pid, flush=True)
time.sleep(600)
"""


def ends(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_children_and_theirs_end_with_a_killed_parent_and_no_others() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for _ in range(2) for pid in parent.stdout.readline().split()]  # child and other; grandchild
    unmarked = next(pid for pid in pids if psutil.Process(pid).cmdline() == ["sleep", "601"])
    parent.kill()
    parent.wait()
    try:
        assert all(ends(pid) for pid in pids if pid != unmarked)
        assert psutil.pid_exists(unmarked)
    finally:
        psutil.Process(unmarked).kill()


def test_closing_a_guard_ends_what_is_left() -> None:
    guard = Guard()
    with guard.marking():
        child = subprocess.Popen(["sleep", "600"])
    guard.close()
    assert child.wait(10) == -9
