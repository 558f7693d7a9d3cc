"""The deployments for real: a Prefect server, a process worker, a schedule that fires, a night on changed data.

The nights marked `operations` (killed in the middle; PostgreSQL) run with `make test-operations`.
"""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from sample_shop.delivery import write_deliveries
from sample_shop.simulation import TonightConfig
from storage.schemas import EMBEDDINGS, GENERATIONS, ITEMS, METRICS, PICTURES, RECOMMENDATIONS, REJECTS, RUNS, TABLES
from tasks.pipeline import STAGE_NAMES

ROOT = Path(__file__).parents[3]
TONIGHT = TonightConfig(new_items=30, new_descriptions=3, new_pictures=2, gone_items=3, broken_pictures=2)
LEFT_TO_CHANCE = {"run_id", "created_at", "updated_at", "first_seen_at", "promotion_id"}
OF_THE_FOLDER = {"source", "stamp"}  # a picture file's path and time


@pytest.fixture(scope="module")
def operations(deployed_in, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server on SQLite with everything deployed, and no worker yet."""
    with deployed_in(tmp_path_factory.mktemp("operations")) as operations:
        yield operations


@pytest.fixture(scope="module")
def tomorrow(after_night, tmp_path_factory: pytest.TempPathFactory):
    """The shop after its first night, with a delivery that has 30 new items, 5 changed, 3 gone, 2 broken pictures."""
    shop = after_night.copy_to(tmp_path_factory.mktemp("tomorrow") / "shop")
    again, day0 = shop.folder / "again", shop.folder / "deliveries" / "day0"
    write_deliveries(again, replace(shop.shop_config, tonight=TONIGHT))
    assert (again / "day0" / "catalog.jsonl").read_bytes() == (day0 / "catalog.jsonl").read_bytes()
    shutil.rmtree(shop.folder / "deliveries" / "tonight")
    (again / "tonight").rename(shop.folder / "deliveries" / "tonight")
    return shop


@pytest.fixture(scope="module")
def undisturbed(operations, tomorrow, tmp_path_factory: pytest.TempPathFactory):
    """The shop after a night that its schedule started."""
    shop = tomorrow.copy_to(tmp_path_factory.mktemp("undisturbed") / "shop")
    operations.start_worker()
    deployment = operations.schedule_night(shop)
    run = operations.night_run(deployment)
    assert run["auto_scheduled"]
    state = operations.follow(run["id"])
    operations.kill("worker")
    assert state == "COMPLETED", (operations.folder / "worker.log").read_text()[-4000:]
    return shop


def test_deploy_all_makes_the_night_on_a_schedule_and_a_deployment_a_stage(operations) -> None:
    deployments = operations.deployments()
    assert set(deployments) == {"nightly", *STAGE_NAMES}
    assert [schedule["schedule"]["cron"] for schedule in deployments["nightly"]["schedules"]] == ["30 2 * * *"]
    assert deployments["nightly"]["parameters"].keys() >= {"config", "data", "start_from", "settings", "force"}
    for name, row in deployments.items():
        assert row["entrypoint"] == (f"flows.stages.{name}" if name != "nightly" else "flows.nightly.nightly")
        assert row["work_pool_name"] == "dmesr" and "dmesr" in row["tags"]
        assert row["global_concurrency_limit"]["limit"] == 1
        assert row["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]["directory"] == str(ROOT)


def test_every_parameter_of_the_run_forms_has_a_type_and_a_help_text(operations) -> None:
    for name, row in operations.deployments().items():
        for parameter, schema in row["parameter_openapi_schema"]["properties"].items():
            assert schema.get("description"), f"{name}: {parameter}"
            assert schema.keys() & {"type", "anyOf", "enum", "$ref"}, f"{name}: {parameter}"


def test_deploying_again_keeps_a_changed_limit_on_the_gpu_and_sets_the_pipeline_anew(operations) -> None:
    limit = "/v2/concurrency_limits/tag:gpu"
    assert operations.api.get(limit).json()["limit"] == 1
    assert {row["parameters"]["config"] for row in operations.deployments().values()} == {"configs/sample_shop.yaml"}
    operations.send("PATCH", limit, {"limit": 2})
    operations.prefect("deploy", "--name", "embed", DMESR_CONFIG="examples/own_shop/shop.yaml")
    assert operations.api.get(limit).json()["limit"] == 2
    operations.send("PATCH", limit, {"limit": 1})
    assert operations.deployments()["embed"]["parameters"]["config"] == "examples/own_shop/shop.yaml"


def test_a_lost_run_will_be_ended_by_an_automation(operations) -> None:
    automations = operations.post("/automations/filter", {})
    assert [row["name"] for row in automations] == ["dmesr: runs without a heartbeat have crashed"]
    assert automations[0]["actions"][0]["state"] == "CRASHED"


def catalog(shop, day: str) -> dict[str, dict[str, Any]]:
    lines = (shop.folder / "deliveries" / day / "catalog.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["item_id"]: row for row in map(json.loads, lines)}


def new_items(shop) -> set[str]:
    return catalog(shop, "tonight").keys() - catalog(shop, "day0").keys()


def refused_pictures(shop) -> set[str]:
    rejects = shop.config.open_store().table(REJECTS).scan().filter(pl.col("field") == "image").collect()
    return set(rejects["item_id"]) & new_items(shop)


def picture(shop, day: str, row: dict[str, Any] | None) -> bytes | None:
    return (shop.folder / "deliveries" / day / row["image"]).read_bytes() if row and row["image"] else None


def asked(shop, view: str) -> set[str]:
    """Items that tonight must ask about, from the deliveries alone."""
    old, new = catalog(shop, "day0"), catalog(shop, "tonight")
    if view == "text":
        texts = {item: (row["title"], row["description"]) for item, row in old.items()}
        return {item for item, row in new.items() if texts.get(item) != (row["title"], row["description"])}
    changed = {
        item for item, row in new.items() if picture(shop, "tonight", row) != picture(shop, "day0", old.get(item))
    }
    return {item for item in changed if new[item]["image"]} - refused_pictures(shop)


def answers_of_tonight(shop, before) -> pl.DataFrame:
    table = shop.config.open_store().table(GENERATIONS).read()
    old = before.config.open_store().table(GENERATIONS).read("generation_key")
    return table.join(old, on="generation_key", how="anti")


@pytest.mark.parametrize("view", ["text", "image"])
def test_the_night_asked_about_what_is_new_or_changed_and_nothing_else(undisturbed, tomorrow, view: str) -> None:
    answers = answers_of_tonight(undisturbed, tomorrow).filter(pl.col("view") == view)
    assert set(answers["item_id"]) == asked(undisturbed, view)
    assert answers.height == len(asked(undisturbed, view))
    assert len(asked(undisturbed, "text")) == 33  # 30 new items and 3 new descriptions
    assert len(new_items(undisturbed)) == 30


def test_new_items_have_vectors_and_places_in_recommendations(undisturbed, tomorrow) -> None:
    store = undisturbed.config.open_store()
    texts = answers_of_tonight(undisturbed, tomorrow).filter(pl.col("status") == "ok")["text_digest"]
    assert set(texts) <= set(store.table(EMBEDDINGS).read("text_digest")["text_digest"])
    recommended = set(store.table(RECOMMENDATIONS).read("item_id")["item_id"])
    assert recommended & new_items(undisturbed)


def test_gone_items_are_recommended_no_more_and_broken_pictures_are_refused(undisturbed) -> None:
    store = undisturbed.config.open_store()
    gone = catalog(undisturbed, "day0").keys() - catalog(undisturbed, "tonight").keys()
    inactive = store.table(ITEMS).scan().filter(~pl.col("active")).collect()["item_id"]
    assert set(inactive) == gone and len(gone) == 3
    latest = store.table(RECOMMENDATIONS).read().filter(pl.col("created_at") == pl.col("created_at").max())
    assert not set(latest["item_id"]) & gone
    assert len(refused_pictures(undisturbed)) == 2


def test_the_ui_has_the_artifacts_of_every_stage(operations, undisturbed) -> None:
    keys = {row["key"] for row in operations.post("/artifacts/filter", {"limit": 200})}
    assert keys >= {f"{stage}-plan" for stage in STAGE_NAMES} | {f"{stage}-summary" for stage in STAGE_NAMES}
    assert {"metrics", "describe-progress"} <= keys


def same_stores(left, right) -> None:
    """Compare every table but the log of runs: rows in any order, without times, run ids and the last digits."""
    for schema in TABLES:
        if schema is not RUNS:
            assert rows(left, schema) == rows(right, schema), schema.name


def rows(shop, schema) -> list[str]:
    frame = shop.config.open_store().table(schema).read()
    if schema is METRICS or schema is RECOMMENDATIONS:
        frame = frame.drop("value" if schema is METRICS else "score")
    lists = [pl.col(name).list.len() for name, kind in frame.schema.items() if kind == pl.List(pl.Float32)]
    frame = frame.with_columns(lists).drop(LEFT_TO_CHANCE, strict=False)
    frame = frame.drop(OF_THE_FOLDER) if schema is PICTURES else frame
    return sorted(map(str, frame.select(sorted(frame.columns)).iter_rows()))


def kill_the_stage(operations) -> None:
    worker = psutil.Process(operations.processes["worker"].pid)
    stage = next(process for process in worker.children(recursive=True) if "tasks.isolated" in process.cmdline())
    stage.send_signal(signal.SIGKILL)


def restart_worker(operations) -> None:
    operations.kill("worker")
    operations.start_worker()


def restart_server(operations) -> None:
    operations.kill("server")
    operations.start_server()


@pytest.mark.operations
@pytest.mark.parametrize("disturb", [kill_the_stage, restart_worker, restart_server], ids=lambda act: act.__name__)
def test_a_night_disturbed_in_the_middle_of_describe_ends_in_the_same_stores(
    operations, undisturbed, tomorrow, tmp_path: Path, disturb: Callable[[Any], None]
) -> None:
    shop = tomorrow.copy_to(tmp_path / "shop")
    before = shop.config.open_store().table(GENERATIONS).count()
    operations.start_worker()
    try:
        deployment = operations.schedule_night(shop)
        run = operations.night_run(deployment)
        operations.wait_for(lambda: shop.config.open_store().table(GENERATIONS).count() > before, "the first answer")
        disturb(operations)
        state = operations.follow(run["id"])
        if state != "COMPLETED":
            assert operations.follow(operations.run_now(deployment)) == "COMPLETED"
    finally:
        operations.kill("worker")
    same_stores(shop, undisturbed)


@pytest.mark.operations
def test_the_same_night_with_postgresql(postgres: str, deployed_in, undisturbed, tomorrow, tmp_path: Path) -> None:
    shop = tomorrow.copy_to(tmp_path / "shop")
    (tmp_path / "operations").mkdir()
    with deployed_in(tmp_path / "operations", postgres) as operations:
        operations.start_worker()
        run = operations.night_run(operations.schedule_night(shop))
        assert operations.follow(run["id"]) == "COMPLETED"
    same_stores(shop, undisturbed)
