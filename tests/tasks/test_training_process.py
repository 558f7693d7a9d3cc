"""The environment of a training's process."""

import os
import subprocess
import sys

import pytest

from tasks.training_process import process_environment

LIBRARY = "libm.so.6"  # stands for tcmalloc, which need not be installed


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training_process.find_library", lambda name: LIBRARY)
    for name in ("LD_PRELOAD", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


def test_tcmalloc_is_loaded_first_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = process_environment(None)
    assert environment == {"OMP_WAIT_POLICY": "passive", "TQDM_DISABLE": "1", "LD_PRELOAD": LIBRARY}
    maps = "print(open('/proc/self/maps').read())"
    seen = subprocess.run([sys.executable, "-c", maps], env=os.environ | environment, capture_output=True, text=True)
    assert LIBRARY in seen.stdout and not seen.stderr
    monkeypatch.setattr("tasks.training_process.find_library", lambda name: None)
    assert "LD_PRELOAD" not in process_environment(None)


def test_what_the_environment_says_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert process_environment(None) == {"TQDM_DISABLE": "1"}
    assert process_environment(3) == {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "3"}
