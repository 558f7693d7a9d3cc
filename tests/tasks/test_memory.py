import subprocess
import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from tasks.memory import GPU, HOST, PeakMemory
from tasks.report.operations import _run_cells

MIB = 2**20


def test_the_peak_of_this_process_and_of_those_it_starts() -> None:
    with PeakMemory() as before:
        pass
    with PeakMemory() as own:
        held = np.ones(200 * MIB, dtype=np.uint8)
        time.sleep(0.4)  # a sample falls into it
        del held
    assert own.figures()[HOST] >= before.figures()[HOST] + 150
    child = "import time; held = bytearray(b'x') * (300 * 2**20); print('held', flush=True); time.sleep(60)"
    with PeakMemory() as other:
        process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.4)
    with PeakMemory() as later:  # the child was there before: it is none of this block's
        pass
    process.kill()
    process.communicate()
    assert other.figures()[HOST] >= before.figures()[HOST] + 250
    assert later.figures()[HOST] < other.figures()[HOST] - 250
    assert GPU not in other.figures() or other.figures()[GPU] >= 0


def test_a_gpu_that_tells_nothing_of_its_memory_stops_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    def tells_nothing(device: int) -> None:
        raise NVMLError("Not Supported")

    known = {"nvmlInit": lambda: None, "nvmlDeviceGetCount": lambda: 1, "nvmlDeviceGetHandleByIndex": lambda place: 0}
    nvml = SimpleNamespace(NVMLError=NVMLError, nvmlDeviceGetMemoryInfo=tells_nothing, **known)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with PeakMemory() as peak:
        pass
    assert peak.figures().keys() == {HOST}


def test_the_costs_of_a_run_show_it() -> None:
    row = {"started_at": datetime(2026, 1, 1, tzinfo=UTC), "status": "completed", "seconds": 2.0}
    texts = [cell.text for cell in _run_cells({**row, "counts": {"done": 4, HOST: 1234}}, [HOST, GPU])]
    assert texts == ["2026-01-01 00:00", "completed", "4", "2.0", "2", "1,234", "–"]
