"""The deployments for real: a Prefect server, a process worker, a schedule that fires, a night on changed data.

The nights marked `operations` (killed in the middle; PostgreSQL) run with `make test-operations`.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import psutil
import pytest

from sample_shop.delivery import write_deliveries
from sample_shop.simulation import TonightConfig
from storage.schemas import EMBEDDINGS, GENERATIONS, ITEMS, METRICS, RECOMMENDATIONS, REJECTS, RUNS, TABLES
from tasks.pipeline import STAGE_NAMES

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 900
TONIGHT = TonightConfig(new_items=30, new_descriptions=3, new_pictures=2, gone_items=3, broken_pictures=2)
LEFT_TO_CHANCE = {"run_id", "created_at", "updated_at", "first_seen_at"}
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))


def wait_for(happened: Callable[[], Any], what: str, every: float = 0.5) -> Any:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not (result := happened()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(every)
    return result


@dataclass
class Operations:
    """A Prefect server and a worker as an operator starts them, each in a process group of its own."""

    folder: Path
    database: str | None = None
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    port: int = 0

    @property
    def environment(self) -> dict[str, str]:
        settings = {
            "HOME": str(self.folder),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_PREFETCH_SECONDS": "2",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
        }
        if self.database:
            settings["PREFECT_API_DATABASE_CONNECTION_URL"] = self.database
        return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | settings

    @property
    def api(self) -> httpx.Client:
        """A client that is patient: on a busy machine SQLite keeps the server waiting."""
        return httpx.Client(base_url=self.environment["PREFECT_API_URL"], trust_env=False, timeout=LIMIT_SECONDS)

    def prefect(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "prefect", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_server(self) -> None:
        self.port = self.port or free_port()
        self.start("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait_for(self.is_up, "the server")

    def is_up(self) -> bool:
        assert self.processes["server"].poll() is None, (self.folder / "server.log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return self.api.get("/health").status_code == 200
        return False

    def start_worker(self) -> None:
        self.start("worker", "worker", "start", "--pool", "dmesr")

    def kill(self, name: str) -> None:
        """SIGKILL a process with everything below it, as when its machine goes down."""
        process = self.processes.pop(name)
        victims = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        process.wait()

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.post("/deployments/filter", {})}

    def schedule_night(self, shop: Any, seconds: float = 20.0) -> str:
        """Point the nightly deployment at a shop, add a schedule that fires when the scheduler has seen it; its id."""
        nightly = self.deployments()["nightly"]
        parameters = nightly["parameters"] | {
            "config": str(shop.config_file),
            "data": str(shop.folder / "deliveries" / "tonight"),
        }
        self.send("PATCH", f"/deployments/{nightly['id']}", {"parameters": parameters})
        anchor = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
        soon = {"schedule": {"interval": 365 * 86_400.0, "anchor_date": anchor}, "active": True}
        self.post(f"/deployments/{nightly['id']}/schedules", [soon])
        return str(nightly["id"])

    def post(self, path: str, body: Any) -> Any:
        return self.send("POST", path, body).json()

    def send(self, method: str, path: str, body: Any) -> httpx.Response:
        """Send until it is taken: a server whose SQLite is busy answers 503, as it does to Prefect's own clients."""

        def answer() -> httpx.Response | None:
            response = self.api.request(method, path, json=body)
            return None if response.status_code == 503 else response

        response: httpx.Response = wait_for(answer, f"{method} {path}")
        response.raise_for_status()
        return response

    def night_run(self, deployment: str) -> dict[str, Any]:
        """Return the deployment's first run that was not scheduled for some other day."""
        soon = (datetime.now(UTC) + timedelta(minutes=10)).isoformat()
        mine = {"deployments": {"id": {"any_": [deployment]}}}
        wanted = {**mine, "flow_runs": {"expected_start_time": {"before_": soon}}, "sort": "EXPECTED_START_TIME_DESC"}
        run: dict[str, Any] = wait_for(lambda: self.post("/flow_runs/filter", wanted), "a run of the schedule")[0]
        return run

    def state(self, run_id: str) -> str:
        with contextlib.suppress(httpx.TransportError):  # while the server is down
            response = self.api.get(f"/flow_runs/{run_id}")
            return str(response.json()["state"]["type"]) if response.status_code == 200 else "UNKNOWN"
        return "UNKNOWN"

    def follow(self, run_id: str) -> str:
        ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return str(wait_for(lambda: (state := self.state(run_id)) in ended and state, "the end of the run"))

    def run_now(self, deployment: str) -> str:
        return str(self.post(f"/deployments/{deployment}/create_flow_run", {})["id"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def deployed(folder: Path, database: str | None = None) -> Iterator[Operations]:
    operations = Operations(folder, database)
    try:
        operations.start_server()
        operations.prefect("work-pool", "create", "dmesr", "--type", "process")
        operations.prefect("deploy", "--all")
        yield operations
    finally:
        operations.stop()


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operations]:
    """A server on SQLite with everything deployed, and no worker yet."""
    yield from deployed(tmp_path_factory.mktemp("operations"))


@pytest.fixture(scope="module")
def tomorrow(night, tmp_path_factory: pytest.TempPathFactory):
    """The shop after its first night, with a delivery that has 30 new items, 5 changed, 3 gone, 2 broken pictures."""
    shop = night.shop.copy_to(tmp_path_factory.mktemp("tomorrow") / "shop")
    again, day0 = shop.folder / "again", shop.folder / "deliveries" / "day0"
    write_deliveries(again, replace(shop.shop_config, tonight=TONIGHT))
    assert (again / "day0" / "catalog.jsonl").read_bytes() == (day0 / "catalog.jsonl").read_bytes()
    shutil.rmtree(shop.folder / "deliveries" / "tonight")
    (again / "tonight").rename(shop.folder / "deliveries" / "tonight")
    return shop


@pytest.fixture(scope="module")
def undisturbed(operations: Operations, tomorrow, tmp_path_factory: pytest.TempPathFactory):
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


def test_deploy_all_makes_the_night_on_a_schedule_and_a_deployment_a_stage(operations: Operations) -> None:
    deployments = operations.deployments()
    assert set(deployments) == {"nightly", *STAGE_NAMES}
    assert [schedule["schedule"]["cron"] for schedule in deployments["nightly"]["schedules"]] == ["30 2 * * *"]
    assert deployments["nightly"]["parameters"].keys() >= {"config", "data", "start_from", "settings", "force"}
    for name, row in deployments.items():
        assert row["entrypoint"] == (f"flows.stages.{name}" if name != "nightly" else "flows.nightly.nightly")
        assert row["work_pool_name"] == "dmesr" and "dmesr" in row["tags"]
        assert row["global_concurrency_limit"]["limit"] == 1
        assert row["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]["directory"] == str(ROOT)


def test_every_parameter_of_the_run_forms_has_a_type_and_a_help_text(operations: Operations) -> None:
    for name, row in operations.deployments().items():
        for parameter, schema in row["parameter_openapi_schema"]["properties"].items():
            assert schema.get("description"), f"{name}: {parameter}"
            assert schema.keys() & {"type", "anyOf", "enum", "$ref"}, f"{name}: {parameter}"


def test_deploying_makes_the_limit_of_one_on_the_gpu_and_keeps_a_changed_one(operations: Operations) -> None:
    limit = "/v2/concurrency_limits/tag:gpu"
    assert operations.api.get(limit).json()["limit"] == 1
    operations.send("PATCH", limit, {"limit": 2})
    operations.prefect("deploy", "--name", "embed")
    assert operations.api.get(limit).json()["limit"] == 2
    operations.send("PATCH", limit, {"limit": 1})


def test_a_lost_run_will_be_ended_by_an_automation(operations: Operations) -> None:
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


def test_the_ui_has_the_artifacts_of_every_stage(operations: Operations, undisturbed) -> None:
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
    return sorted(map(str, frame.select(sorted(frame.columns)).iter_rows()))


def describing(operations: Operations, shop, before: int) -> bool:
    return shop.config.open_store().table(GENERATIONS).count() > before


def kill_the_stage(operations: Operations) -> None:
    worker = psutil.Process(operations.processes["worker"].pid)
    stage = next(process for process in worker.children(recursive=True) if "tasks.isolated" in process.cmdline())
    stage.send_signal(signal.SIGKILL)


def restart_worker(operations: Operations) -> None:
    operations.kill("worker")
    operations.start_worker()


def restart_server(operations: Operations) -> None:
    operations.kill("server")
    operations.start_server()


@pytest.mark.operations
@pytest.mark.parametrize("disturb", [kill_the_stage, restart_worker, restart_server], ids=lambda act: act.__name__)
def test_a_night_disturbed_in_the_middle_of_describe_ends_in_the_same_stores(
    operations: Operations, undisturbed, tomorrow, tmp_path: Path, disturb: Callable[[Operations], None]
) -> None:
    shop = tomorrow.copy_to(tmp_path / "shop")
    before = shop.config.open_store().table(GENERATIONS).count()
    operations.start_worker()
    try:
        deployment = operations.schedule_night(shop)
        run = operations.night_run(deployment)
        wait_for(lambda: describing(operations, shop, before), "the first answer", every=0.05)
        disturb(operations)
        state = operations.follow(run["id"])
        if state != "COMPLETED":
            assert operations.follow(operations.run_now(deployment)) == "COMPLETED"
    finally:
        operations.kill("worker")
    same_stores(shop, undisturbed)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL server of its own, as Debian packages it; the connection URL for Prefect."""
    if not POSTGRES:
        pytest.skip("needs PostgreSQL: apt install postgresql")
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder, port, control = Path(f"/tmp/dmesr-postgres-{os.getpid()}"), free_port(), str(POSTGRES[-1])
    subprocess.run([*user, control, "-D", str(folder), "initdb", "-o", "--auth=trust --username=prefect"], check=True)
    options = f"-p {port} -k /tmp -h 127.0.0.1"
    subprocess.run([*user, control, "-D", str(folder), "-w", "-l", f"{folder}/log", "-o", options, "start"], check=True)
    try:
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*user, control, "-D", str(folder), "-m", "immediate", "stop"], check=True)
        subprocess.run([*user, "rm", "-rf", str(folder)], check=True)


@pytest.mark.operations
def test_the_same_night_with_postgresql(postgres: str, undisturbed, tomorrow, tmp_path: Path) -> None:
    shop = tomorrow.copy_to(tmp_path / "shop")
    (tmp_path / "operations").mkdir()
    for operations in deployed(tmp_path / "operations", postgres):
        operations.start_worker()
        run = operations.night_run(operations.schedule_night(shop))
        assert operations.follow(run["id"]) == "COMPLETED"
    same_stores(shop, undisturbed)
