"""The environment of a training's process, and what is told of it while it runs."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.stage import Progress
from tasks.trained_models import ModelRef
from tasks.training_process import Follower, GrowingFile, process_environment

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


@pytest.mark.parametrize(
    ("last_words", "status"), [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("sys.exit(3)", 1)]
)
def test_several_processes_end_by_the_signal_that_ended_one_of_them(last_words: str, status: int) -> None:
    process = f"import os, signal, sys, time; time.sleep(60 if os.environ['RANK'] == '0' else 0); {last_words}"
    several = [sys.executable, "-m", "tasks.launcher", "--standalone", "--nproc-per-node=2", "--no-python"]
    ended = subprocess.run([*several, sys.executable, "-c", process], capture_output=True, text=True)
    assert ended.returncode == status, ended.stderr
    assert "rank      : 1 (local_rank: 1)" in ended.stderr


def record(epoch: int, step: int, epoch_ended: bool) -> str:
    validation = 0.25 if epoch_ended else None
    told = {"epoch": epoch, "step": step, "loss": 2.0, "validation_ndcg_at_10": validation, "seconds": 4.0}
    return json.dumps({**told, "samples_per_second": 9.0, "epoch_ended": epoch_ended}) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_long_epochs_and_warnings_are_told_while_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = ModelRef("dmesr", 3, "digest", tmp_path, settings={}, configuration="")
    log, progress = tmp_path / "log.txt", tmp_path / "progress.jsonl"
    log.write_text("2026-11-30 10:00:00,000 WARNING dmesr_model.checkpoint: of the attempt before\n")
    (tmp_path / "run.json").write_text('{"train": {"max_epochs": 8}}')
    reported: list[Progress] = []
    follower = Follower(model, reported.append)
    caplog.set_level(logging.INFO, "tasks.training_process")

    append(progress, record(0, 50, False) + record(0, 60, True) + record(1, 100, False))
    append(log, "2026-11-30 10:00:01,000 INFO dmesr_model.progress: epoch 0\n2026-11-30 10:00:02,000 WARNING dmesr_")
    follower.tell()
    assert caplog.messages == ["dmesr, seed 3: epoch 0, loss 2.0000, validation ndcg@10 0.2500, 9 sequences/s"]
    assert reported == [Progress(1, 8, "epochs of dmesr, seed 3", 0.25)]

    caplog.clear()
    monkeypatch.setattr("tasks.training_process._QUIET_SECONDS", 0)
    append(progress, record(1, 150, False) + record(1, 200, False) + record(1, 250, False)[:9])
    append(log, "model.checkpoint: step-0 is damaged\n")
    follower.tell()
    follower.tell()
    damaged = "dmesr, seed 3: 2026-11-30 10:00:02,000 WARNING dmesr_model.checkpoint: step-0 is damaged"
    assert caplog.messages == [
        damaged,
        "dmesr, seed 3: epoch 1, step 200, loss 2.0000, validation ndcg@10 -, 9 sequences/s",
    ]
    assert len(reported) == 1


def test_lines_of_a_file_put_in_the_place_of_another_are_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    growing = GrowingFile(path)
    assert growing.read_lines() == []
    path.write_text("one\ntwo\nthr")
    assert growing.read_lines() == ["one", "two"]
    append(path, "ee\n")
    assert growing.read_lines() == ["three"]
    (tmp_path / "new").write_text("four\n")
    (tmp_path / "new").replace(path)
    assert growing.read_lines() == ["four"]
    assert growing.read_lines() == []
