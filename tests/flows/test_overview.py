"""What `dmesr status` says beside a run at work, and what `dmesr rejects` leaves out."""

import shutil
import time
from pathlib import Path
from threading import Event, Thread

from flows.overview import disk_use, rejects
from tasks.config import load_config
from tasks.ingest.refusals import Refusal, RefusalLog


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


def test_rejects_say_how_many_more_there_are(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        "{name: shop, store: {url: store}, work_folder: work, ingest: {folder: day0}, "
        "describe: {model: m, engine: {kind: offline}}}"
    )
    config = load_config(file)
    log = RefusalLog(config.open_store(), ["x.csv"])
    log.add([Refusal("x.csv", row, "sku", None, "empty_id", "give one") for row in (2, 3, 4)], keep=True)
    log.write("run")
    assert rejects(config, 2).endswith("\n\nthe last 2 of 3; --rows shows more")
    assert rejects(config, 3).splitlines()[-1].startswith("x.csv")
