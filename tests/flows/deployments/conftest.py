"""A Prefect server and a worker as an operator starts them, on SQLite and on PostgreSQL."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[3]
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
LIMIT_SECONDS = 900  # for one command: a busy machine takes five times as long as an idle one


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
    # A worker keeps its files in a folder of the temporary one that belongs to the first user who ran one.
    temporary: "tempfile.TemporaryDirectory[str]" = field(default_factory=tempfile.TemporaryDirectory)

    @property
    def environment(self) -> dict[str, str]:
        settings = {
            "HOME": str(self.folder),
            "TMPDIR": self.temporary.name,
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

    def prefect(self, *arguments: str, **more_environment: str) -> str:
        # A question would find no answer: nothing may ask one.
        command = [sys.executable, "-m", "prefect", *arguments]
        environment = {**self.environment, "PREFECT_CLI_PROMPT": "true", **more_environment}
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        done = subprocess.run(command, cwd=ROOT, env=environment, timeout=600, **streams)
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

    @staticmethod
    def wait_for(happened: Callable[[], Any], what: str) -> Any:
        return wait_for(happened, what, every=0.05)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)
        self.temporary.cleanup()

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
        """Return the run that a schedule made just now will start: not an earlier night's, nor some other day's."""
        now = datetime.now(UTC)
        start = {"after_": now.isoformat(), "before_": (now + timedelta(minutes=10)).isoformat()}
        wanted = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"expected_start_time": start}}
        run: dict[str, Any] = wait_for(lambda: self.post("/flow_runs/filter", wanted), "a run of the schedule")[0]
        return run

    def state(self, run_id: str) -> str:
        worker = self.processes.get("worker")
        assert worker is None or worker.poll() is None, (self.folder / "worker.log").read_text()[-4000:]
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
    """A server with everything deployed, and no worker yet."""
    operations = Operations(folder, database)
    try:
        operations.start_server()
        operations.prefect("work-pool", "create", "dmesr", "--type", "process")
        operations.prefect("deploy", "--all")
        yield operations
    finally:
        operations.stop()


@pytest.fixture(scope="session")
def deployed_in() -> Callable[..., contextlib.AbstractContextManager[Operations]]:
    """Called with a folder, and a database's URL if not SQLite: everything deployed on a server of its own."""
    return contextlib.contextmanager(deployed)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A PostgreSQL server of its own, as Debian packages it; the connection URL for Prefect."""
    if not POSTGRES:
        pytest.skip("runs Prefect on PostgreSQL, which is not installed (Debian: apt-get install postgresql)")
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder, port, control = Path(tempfile.gettempdir(), f"dmesr-postgres-{os.getpid()}"), free_port(), str(POSTGRES[-1])
    subprocess.run([*user, control, "-D", str(folder), "initdb", "-o", "--auth=trust --username=prefect"], check=True)
    options = f"-p {port} -k {tempfile.gettempdir()} -h 127.0.0.1"
    subprocess.run([*user, control, "-D", str(folder), "-w", "-l", f"{folder}/log", "-o", options, "start"], check=True)
    try:
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*user, control, "-D", str(folder), "-m", "immediate", "stop"], check=True)
        subprocess.run([*user, "rm", "-rf", str(folder)], check=True)
