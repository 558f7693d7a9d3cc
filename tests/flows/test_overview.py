"""What `dmesr status` says beside a run at work."""

import shutil
import time
from pathlib import Path
from threading import Event, Thread

from flows.overview import disk_use


def test_disk_use_beside_a_run_that_makes_and_removes_folders(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(bytes(3_000_000))
    ended = Event()

    def train() -> None:
        while not ended.is_set():
            for number in range(20):
                (tmp_path / f"checkpoint-{number}" / "model").mkdir(parents=True)
                (tmp_path / f"checkpoint-{number}" / "model" / "weights").touch()
            for number in range(20):
                shutil.rmtree(tmp_path / f"checkpoint-{number}")

    training = Thread(target=train)
    training.start()
    try:
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            assert disk_use(tmp_path) == 3.0
    finally:
        ended.set()
        training.join()
