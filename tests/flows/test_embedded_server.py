import os
from pathlib import Path

import pytest

from flows.embedded_server import prepare_environment


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
