import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import getproxies

import psutil
import pytest

from flows.embedded_server import ServerError, prepare_environment, start_server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without Prefect, and none of its settings."""
    for name in ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_LOCAL_STORAGE_PATH", "PREFECT_MEMO_STORE_PATH"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def settings() -> tuple[str | None, str | None]:
    return os.environ.get("PREFECT_HOME"), os.environ.get("PREFECT_LOCAL_STORAGE_PATH")


def test_the_history_stays_under_the_work_folder(bare: Path) -> None:
    prepare_environment(bare / "work")
    assert settings() == (str(bare / "work" / "prefect"), str(bare / "work" / "prefect" / "storage"))


def test_a_chosen_home_stays(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(bare / "mine"))
    prepare_environment(bare / "work")
    assert settings() == (str(bare / "mine"), str(bare / "mine" / "storage"))


def test_a_chosen_server_stays(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    prepare_environment(bare / "work")
    assert settings() == (None, None)


def test_a_profile_of_the_user_stays(bare: Path) -> None:
    (bare / "home" / ".prefect").mkdir(parents=True)
    (bare / "home" / ".prefect" / "profiles.toml").touch()
    prepare_environment(bare / "work")
    assert settings() == (None, None)


@pytest.mark.parametrize(
    ("proxy", "bypassed", "expected"),
    [
        ("http://proxy:3128", None, "localhost,127.0.0.1"),
        ("http://proxy:3128", "intranet, 127.0.0.1", "intranet,127.0.0.1,localhost"),
        ("http://proxy:3128", "*", "*"),
        (None, None, None),
        (None, "intranet", "intranet"),
    ],
)
def test_a_proxy_is_not_asked_for_this_machine(
    bare: Path, monkeypatch: pytest.MonkeyPatch, proxy: str | None, bypassed: str | None, expected: str | None
) -> None:
    set_proxy(monkeypatch, proxy, bypassed)
    prepare_environment(bare / "work")
    assert getproxies().get("no") == expected
    assert os.environ.get("NO_PROXY") == (None if expected == bypassed else expected)


def test_a_server_that_only_a_proxy_may_reach_is_left_to_it(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_proxy(monkeypatch, "http://127.0.0.1:9", "localhost")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert start_server(bare / "work") is None
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ServerError, match="no server answers"):
        start_server(bare / "work")


def set_proxy(monkeypatch: pytest.MonkeyPatch, proxy: str | None, bypassed: str | None) -> None:
    """Make these the only proxy, and all that goes past it."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")] + ["no_proxy", "NO_PROXY"]:
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    if proxy is not None:
        monkeypatch.setenv("http_proxy", proxy)
    if bypassed is not None:
        monkeypatch.setenv("no_proxy", bypassed)


def test_no_server_is_started_beside_a_chosen_one(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.getsockname()[1]}/api")
        assert start_server(bare / "work") is None


def test_a_chosen_server_that_is_not_there_is_said(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServerError, match=r"PREFECT_API_URL=http://127\.0\.0\.1:9/api.*unset"):
        start_server(bare / "work")


def test_no_server_is_started_beside_that_of_the_active_profile(bare: Path) -> None:
    profiles = bare / "home" / ".prefect" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text('active = "ours"\n[profiles.ours]\nPREFECT_API_URL = "http://127.0.0.1:4200/api"\n')
    assert start_server(bare / "work") is None


PARENT = """
import sys
from pathlib import Path
from flows.embedded_server import prepare_environment, start_server
prepare_environment(Path(sys.argv[1]))
server = start_server(Path(sys.argv[1]))
server.wait()
print(server._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "in peace"])
def test_the_server_ends_with_the_process_that_started_it(bare: Path, end: signal.Signals | None) -> None:
    command = [sys.executable, "-c", PARENT, str(bare / "work")]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdin and parent.stdout
    server = psutil.Process(int(parent.stdout.readline()))
    assert server.is_running()
    if end:
        parent.send_signal(end)
    parent.communicate(timeout=60)
    psutil.wait_procs([server], timeout=60)
    assert not server.is_running()
