"""Describe and embed on a local Ray cluster of two workers: the rows of one process, also when a worker is killed."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import psutil
import pytest

from storage.digests import digest_of_text
from storage.schemas import EMBEDDINGS, GENERATIONS
from storage.vectors import vectors_from_frame
from tasks.cluster.config import ClusterConfig
from tasks.cluster.workers import _Deal
from tasks.describe import DescribeConfig, DescribeStage
from tasks.embed import EmbedConfig, EmbedStage
from tasks.engines.endpoint import EndpointConfig
from tasks.engines.offline import OfflineConfig
from tasks.stage import StageError, run_stage

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `cluster`)")

ITEMS = 200


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterConfig]:
    """A cluster of this machine's own, started once: stages join it as they would any other."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield ClusterConfig(address=made.address, workers=2, shard=25)
    made.shutdown()


@pytest.fixture
def config(hand_made_shop, answering_server, tmp_path: Path) -> DescribeConfig:
    hand_made_shop.put_items(*({"item_id": f"{i:03}", "title": f"mug {i}"} for i in range(ITEMS)))
    (tmp_path / "read.yaml").write_text("name: read\nview: text\nuser: '{{ title }}'\n")
    engine = EndpointConfig(url=answering_server.url, concurrency=4)
    return DescribeConfig(model="m", prompts=(str(tmp_path / "read.yaml"),), engine=engine, commit_seconds=0.1)


def kill_a_worker_when(is_time: Callable[[], bool]) -> threading.Thread:
    """SIGKILL one of Ray's worker processes as soon as `is_time` says so."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not is_time() and time.monotonic() < deadline:
            time.sleep(0.02)
        workers = [p for p in psutil.process_iter(["cmdline"]) if "HeldWorker" in " ".join(p.info["cmdline"] or ())]
        assert workers, "Ray's workers are found by their class's name"
        os.kill(max(workers, key=lambda process: process.create_time()).pid, signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_described_by_two_workers_of_which_one_is_killed(
    cluster: ClusterConfig,
    config: DescribeConfig,
    hand_made_shop,
    answering_server,
    tmp_path: Path,
    monkeypatch,
    caplog,
) -> None:
    monkeypatch.setattr(answering_server, "seconds", 0.2)
    table = hand_made_shop.store.table(GENERATIONS)
    killer = kill_a_worker_when(lambda: table.count() >= 20)
    on_cluster = config.model_copy(update={"cluster": cluster})
    summary = run_stage(DescribeStage(on_cluster, hand_made_shop.store, tmp_path / "work"), lambda progress: None)
    killer.join()
    assert "a worker was lost" in caplog.text
    assert summary.counts == {"up_to_date": 0, "done": ITEMS, "ok": ITEMS}
    rows = sorted(table.read("item_id", "status", "text", "attempts").iter_rows())
    assert rows == [(f"{i:03}", "ok", f"about mug {i}", 1) for i in range(ITEMS)]
    assert DescribeStage(config, hand_made_shop.store, tmp_path / "work").plan().to_do == 0  # one process's keys
    # Asked twice: what the killed worker had asked and not yet sent, at most its room and half a second of answers.
    assert sum(answering_server.asked[f"mug {i}"] for i in range(ITEMS)) < ITEMS + 25


class LengthEncoder:
    """A text's vector is (its length, 1)."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(0.1)
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def load_length_encoder(config: EmbedConfig) -> LengthEncoder:
    return LengthEncoder()


def test_embedded_by_two_workers_of_which_one_is_killed(
    cluster: ClusterConfig, hand_made_shop, tmp_path: Path, caplog
) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers can't import a test
    shop, titles = hand_made_shop, [f"mug number {i}{'x' * i}" for i in range(ITEMS)]
    shop.put_items(*({"item_id": f"{i:03}", "title": title} for i, title in enumerate(titles)))
    table = shop.store.table(EMBEDDINGS)
    config = EmbedConfig(batch=4, commit_seconds=0.1, cluster=cluster)
    stage = EmbedStage(config, shop.describe, shop.store, tmp_path / "work", load=load_length_encoder)
    killer = kill_a_worker_when(lambda: table.count() >= 20)
    summary = run_stage(stage, lambda progress: None)
    killer.join()
    assert "a worker was lost" in caplog.text
    assert summary.counts["done"] == summary.counts["segment"] == ITEMS
    rows = table.read()
    assert rows.height == ITEMS
    vectors = dict(zip(rows["text_digest"], vectors_from_frame(rows).tolist(), strict=True))
    assert vectors == {digest_of_text(title): [len(title), 1.0] for title in titles}


@pytest.mark.parametrize(
    "error",
    [ray.exceptions.OutOfMemoryError("killed"), ray.exceptions.ObjectLostError("00", None, "")],
    ids=lambda error: type(error).__name__,
)
def test_a_worker_killed_for_memory_or_whose_node_is_gone_is_lost(error, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(result: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result

    def work(shard: pl.DataFrame) -> Iterator[object]:
        dealt.append(shard["key"].to_list())
        return next(streams)

    dealt: list[list[str]] = []
    streams = iter([iter([(["a"], 1), error]), iter([(["b"], 2)])])
    actor = SimpleNamespace(work=SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=work)))
    monkeypatch.setattr(ray, "wait", lambda streams, **_: (streams, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    deal = _Deal(ClusterConfig(), LengthEncoder, iter([pl.DataFrame({"key": ["a", "b"]})]), "key")
    monkeypatch.setattr(deal, "_actor_class", SimpleNamespace(remote=lambda make: actor))
    results: list[object] = []
    while deal.deal_out():
        results += deal.collect()
    assert results == [1, 2] and dealt == [["a", "b"], ["b"]]


def test_what_a_worker_says_is_what_the_stage_says(
    cluster: ClusterConfig, config: DescribeConfig, hand_made_shop, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    no_tokenizer = {"model": str(tmp_path / "empty"), "engine": OfflineConfig(), "cluster": cluster}
    with pytest.raises(StageError, match=r"describe\.model .*empty: its tokenizer\.json can't be read"):
        run_stage(
            DescribeStage(config.model_copy(update=no_tokenizer), hand_made_shop.store, tmp_path / "work"),
            lambda progress: None,
        )


def test_no_cluster_there_is_said(
    config: DescribeConfig, hand_made_shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_nothing(address: str, include_dashboard: bool | None) -> None:
        raise ConnectionError(f"nothing at {address}")

    monkeypatch.setattr(ray, "init", find_nothing)
    nowhere = config.model_copy(update={"cluster": ClusterConfig()})
    with pytest.raises(StageError, match="no Ray cluster at auto: nothing at auto"):
        run_stage(DescribeStage(nowhere, hand_made_shop.store, tmp_path / "work"), lambda progress: None)


def test_an_address_where_nobody_answers_is_said_at_once(
    config: DescribeConfig, hand_made_shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("Ray would try for minutes"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"  # bound, but nobody listens
        nowhere = config.model_copy(update={"cluster": ClusterConfig(address=address)})
        with pytest.raises(StageError, match=rf"no Ray cluster at {address}: .*refused"):
            run_stage(DescribeStage(nowhere, hand_made_shop.store, tmp_path / "work"), lambda progress: None)


def test_devices_and_a_cluster_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"cluster\.gpus"):
        DescribeConfig(model="m", engine=OfflineConfig(devices=("0",)), cluster=ClusterConfig())
