"""Several engines, each in a process of its own, over one queue: the rows of one engine, also when one is killed."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from storage.schemas import GENERATIONS
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage, one_device_each
from tasks.engines.endpoint import EndpointConfig, EndpointEngine
from tasks.engines.offline import OfflineConfig
from tasks.engines.own_process import ProcessEngine
from tasks.engines.protocol import Engine
from tasks.stage import StageError, run_stage

ITEMS = 120


@pytest.fixture
def config(hand_made_shop, model_folder: Path, tmp_path: Path) -> DescribeConfig:
    hand_made_shop.put_items(*({"item_id": f"{i:03}", "title": f"mug {i}"} for i in range(ITEMS)))
    (tmp_path / "read.yaml").write_text("name: read\nview: text\nuser: '{{ title }}'\n")
    engine = OfflineConfig(devices=("4", "5"), in_flight=8)
    return DescribeConfig(
        model=str(model_folder), prompts=(str(tmp_path / "read.yaml"),), engine=engine, commit_seconds=0.1
    )


class Engines:
    """Starts engines that ask the answering server, as many as the stage wants, each told its device."""

    def __init__(self, url: str) -> None:
        self.endpoint = EndpointConfig(url=url, api_key_variable="CUDA_VISIBLE_DEVICES", concurrency=4)
        self.started: list[tuple[str, ProcessEngine]] = []

    def __call__(self, config: DescribeConfig) -> Engine:
        assert isinstance(config.engine, OfflineConfig)
        (device,) = config.engine.devices
        start = partial(EndpointEngine, "m", self.endpoint)
        engine = ProcessEngine(start, {"CUDA_VISIBLE_DEVICES": device}, silent_seconds=30)
        self.started.append((device, engine))
        return engine


def described(store: Store, config: DescribeConfig, folder: Path, engines: Engines) -> list[tuple[str, str, str]]:
    run_stage(DescribeStage(config, store, folder / "work", start=engines), lambda progress: None)
    return sorted(store.table(GENERATIONS).read("item_id", "status", "text").iter_rows())


def test_two_engines_give_the_rows_of_one_also_when_one_is_killed(
    hand_made_shop, answering_server, config: DescribeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, store = Engines(answering_server.url), hand_made_shop.store
    monkeypatch.setattr(answering_server, "seconds", 0.2)

    def kill_one_in_the_middle() -> None:
        deadline = time.monotonic() + 30
        while store.table(GENERATIONS).count() < 20 and time.monotonic() < deadline:
            time.sleep(0.02)
        pid = engines.started[1][1]._process.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_one_in_the_middle)
    killer.start()
    rows = described(store, config, tmp_path, engines)
    killer.join()
    assert rows == [(f"{i:03}", "ok", f"about mug {i}") for i in range(ITEMS)]
    devices = [device for device, _ in engines.started]
    assert devices[:2] in (["4", "5"], ["5", "4"]) and len(devices) == 3
    assert devices[2] == devices[1]  # the killed one's successor has its device
    assert {"Bearer 4", "Bearer 5"} <= answering_server.keys
    # The killed engine's requests are the only ones asked again: and it held no more than there was room for.
    assert sum(answering_server.asked[f"mug {i}"] for i in range(ITEMS)) <= ITEMS + 8


def test_no_more_engines_start_than_the_requests_fill(config: DescribeConfig) -> None:
    devices = [one.engine.devices for one in one_device_each(config, 9)]  # type: ignore[union-attr]
    assert devices == [("4",), ("5",)]
    assert len(one_device_each(config, 8)) == 1
    endpoint = config.model_copy(update={"engine": EndpointConfig(url="http://localhost/v1")})
    assert one_device_each(endpoint, 1000) == (endpoint,)


def test_what_stops_one_engine_stops_the_stage(hand_made_shop, config: DescribeConfig, tmp_path: Path) -> None:
    def no_start(config: DescribeConfig) -> Engine:
        raise StageError(f"no memory on device {config.engine.devices}")  # type: ignore[union-attr]

    with pytest.raises(StageError, match="no memory on device"):
        run_stage(DescribeStage(config, hand_made_shop.store, tmp_path / "work", start=no_start), lambda progress: None)
    assert hand_made_shop.store.table(GENERATIONS).scan().select(pl.len()).collect().item() == 0


def test_devices_may_be_numbers() -> None:
    assert OfflineConfig.model_validate({"devices": [0, "1,2"]}).devices == ("0", "1,2")
