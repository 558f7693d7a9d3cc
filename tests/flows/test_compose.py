"""What of `compose.yaml` can be seen without a container engine."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from sqlalchemy import make_url

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PASSWORD = "a@b:c/d%#e"


def test_a_password_may_hold_what_urls_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    for name, value in SERVICES["server"]["environment"].items():
        if name.startswith("PREFECT_SERVER_DATABASE_"):
            monkeypatch.setenv(name, value.replace("${POSTGRES_PASSWORD}", PASSWORD))
    url = make_url(Settings().server.database.connection_url.get_secret_value())
    assert (url.password, url.host, url.database) == (PASSWORD, "database", "prefect")


@pytest.mark.parametrize("service", ["worker", "gpu-worker", "vllm"])
def test_where_vllm_starts_there_is_shared_memory_for_its_processes(service: str) -> None:
    assert SERVICES[service]["shm_size"] in ("1gb", "8gb")


def test_the_sample_shop_is_delivered_once_before_it_is_deployed(tmp_path: Path) -> None:
    for program in ("python", "prefect"):
        (tmp_path / program).write_text('#!/bin/sh\necho "${0##*/}" "$@" >>"$(dirname "$0")/ran"\n')
        (tmp_path / program).chmod(0o755)
    command = [part.replace("$$", "$") for part in SERVICES["deploy"]["command"]]  # as Compose reads it
    shop = "workspace/sample_shop/deliveries"
    for _ in range(2):
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
        (tmp_path / shop / "truth").mkdir(parents=True, exist_ok=True)
        (tmp_path / shop / "truth" / "styles.parquet").touch()  # what is written last
    ran = (tmp_path / "ran").read_text().splitlines()
    deployed = ["prefect work-pool create dmesr --type process --overwrite", "prefect --no-prompt deploy --all"]
    assert ran == [f"python -m sample_shop --out {shop}", *deployed, *deployed]
