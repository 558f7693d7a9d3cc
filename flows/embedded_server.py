"""The environment that Prefect starts in, and the server that a run starts for its own time.

Called before Prefect is imported: it reads its settings at import. The server is a process that ends with this one,
however that ends (`tasks.attached`); Prefect's own temporary server outlives a flow that was killed.
"""

import atexit
import http.client
import os
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

OUR_LOGGERS = ("tasks", "storage", "flows", "dmesr_model", "sample_shop")

_DEFAULTS = {
    # Says nothing to anybody unless asked to.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # Our logs belong to the runs in the UI, too.
    "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(OUR_LOGGERS),
}
_THIS_MACHINE = ("localhost", "127.0.0.1")
_START_SECONDS = 300  # about 5 s on two idle cores, more than 120 s seen on busy ones
_STOP_SECONDS = 10
_CONNECT_SECONDS = 10


class ServerError(Exception):
    """An embedded server that did not start; the message names its log and the remedy."""


def prepare_environment(work_folder: Path) -> None:
    """Set what the user has not set: no telemetry, no proxy to this machine, and Prefect's home under the work folder.

    A user who has chosen a server (PREFECT_API_URL) or a home (PREFECT_HOME, or a profile in ~/.prefect) keeps it.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    bypass_proxies()
    chosen = "PREFECT_API_URL" in os.environ or _profiles_file().exists()
    if chosen and "PREFECT_HOME" not in os.environ:
        return
    home = Path(os.environ.setdefault("PREFECT_HOME", str(work_folder / "prefect")))
    home.mkdir(parents=True, exist_ok=True)
    # Prefect 3.7 puts these two under ~/.prefect whatever its home is.
    os.environ.setdefault("PREFECT_LOCAL_STORAGE_PATH", str(home / "storage"))
    os.environ.setdefault("PREFECT_MEMO_STORE_PATH", str(home / "memo_store.toml"))


def bypass_proxies() -> None:
    """Reach servers on this machine directly, here and in processes started from here; a proxy can't reach them."""
    proxies = getproxies()
    bypassed = proxies.pop("no", "")
    if not proxies or bypassed == "*":
        return
    hosts = [host for host in map(str.strip, bypassed.split(",")) if host]
    # Which of the two names is read depends on the library.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(dict.fromkeys((*hosts, *_THIS_MACHINE)))


class EmbeddedServer:
    """A Prefect server on a free port of this machine, with its UI, until this process ends."""

    def __init__(self, log_folder: Path) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self._log = log_folder / "prefect-server.log"
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process = self._start()
        atexit.register(self.stop)

    def _start(self) -> subprocess.Popen[bytes]:
        command = f"uvicorn --factory prefect.server.api.server:create_app --host 127.0.0.1 --port {self._port}"
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tasks.attached", *command.split(), "--log-level", "error", "--lifespan", "on"],
                env=os.environ | {"PREFECT_UI_API_URL": f"{self.url}/api", "PREFECT__SERVER_EPHEMERAL": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt from the keyboard is the flow's to report, to this server
            )

    def wait(self) -> None:
        """Return when the server answers. Raises ServerError if it ends or does not answer in time."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(self._port):
                return
            time.sleep(0.1)
        raise ServerError(
            f"Prefect's server did not start; its log is {self._log}. Is the machine busy? Run it again, or start a "
            "server (`prefect server start`) and set PREFECT_API_URL."
        )

    def stop(self) -> None:
        """End the server, in peace where it can."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_server(work_folder: Path) -> EmbeddedServer | None:
    """Start a server and let Prefect use it; None where the user has chosen one. It may not answer yet: `wait`.

    Raises ServerError where the chosen one, at a plain http address, takes no connection.
    """
    if "PREFECT_API_URL" in os.environ:
        _check_reachable(os.environ["PREFECT_API_URL"])
    if "PREFECT_API_URL" in os.environ or _profile_names_a_server():
        return None
    server = EmbeddedServer(work_folder / "logs")
    os.environ["PREFECT_API_URL"] = f"{server.url}/api"
    return server


def _check_reachable(url: str) -> None:
    """Not through a proxy, which Prefect knows how to use, and not for https, which may need one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or ("http" in getproxies() and not proxy_bypass(host)):
        return
    try:
        socket.create_connection((host, parts.port or 80), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ServerError(
            f"no server answers at PREFECT_API_URL={url}: {error}. Start it (`prefect server start`), or unset "
            "PREFECT_API_URL, and a server is started for the run"
        ) from error


def _profiles_file() -> Path:
    return Path.home() / ".prefect" / "profiles.toml"


def _profile_names_a_server() -> bool:
    """Whether the user's active profile has PREFECT_API_URL."""
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or _home() / "profiles.toml")
    if not path.exists():
        return False
    profiles = tomllib.loads(path.read_text("utf-8"))
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    return "PREFECT_API_URL" in profiles.get("profiles", {}).get(active, {})


def _home() -> Path:
    return Path(os.environ.get("PREFECT_HOME") or _profiles_file().parent)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)  # past any proxy of the environment
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
