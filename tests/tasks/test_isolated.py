"""Stages in processes of their own: what comes back, and what a crash, a kill and a lost parent do."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tasks.config import PipelineConfig, load_config
from tasks.isolated import run_isolated
from tasks.stage import Progress, StageCrash, StageError

CONFIG = """
name: trial
store: {url: store}
work_folder: work
ingest: {folder: delivery}
describe: {model: made/model}
"""
CATALOG = '{"item_id": "a", "title": "Mug"}\n{"item_id": "b", "title": "Lamp"}\n'
EVENTS = "user_id,item_id,timestamp\nu,a,1\nu,b,2\n"


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    (tmp_path / "delivery").mkdir()
    (tmp_path / "delivery" / "catalog.jsonl").write_text(CATALOG)
    (tmp_path / "delivery" / "interactions.csv").write_text(EVENTS)
    (tmp_path / "trial.yaml").write_text(CONFIG)
    return load_config(tmp_path / "trial.yaml")


def unreported(_: Progress) -> None:
    pass


def test_summary_progress_and_logs_come_back(config: PipelineConfig, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Progress] = []
    with caplog.at_level(logging.INFO):
        summary = run_isolated(config, "ingest", seen.append)
    assert (summary.stage, summary.counts["done"]) == ("ingest", 4)  # 2 items, 2 events
    assert seen[-1].done == seen[-1].total == 4
    assert any(record.name == "tasks.stage" and "4 new" in record.message for record in caplog.records)


def test_a_stage_error_comes_back_in_its_own_words(config: PipelineConfig) -> None:
    (Path(str(config.ingest.folder)) / "catalog.jsonl").unlink()
    with pytest.raises(StageError, match="catalog") as error:
        run_isolated(config, "ingest", unreported)
    assert not isinstance(error.value, StageCrash)


def break_plan(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let children's ingest plan do `body` instead: through the start-up file that Python reads."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(
        "import time\nimport tasks.ingest.stage as stage\nfrom tasks.stage import Plan, StageCrash\n"
        f"def plan(self): {body}\nstage.IngestStage.plan = plan\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def halted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_plan(tmp_path / "broken", "time.sleep(120)", monkeypatch)


def child_of(parent: int) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in psutil.Process(parent).children():
            with contextlib.suppress(psutil.Error):  # another test's child, ended and not yet waited for
                if "tasks.isolated" in child.cmdline():
                    return child
        time.sleep(0.05)
    raise AssertionError("no child started")


def test_a_killed_child_is_a_crash_that_says_how_to_go_on(config: PipelineConfig, halted: None) -> None:
    killer = threading.Thread(target=lambda: child_of(os.getpid()).send_signal(signal.SIGKILL))
    killer.start()
    with pytest.raises(StageCrash) as error:
        run_isolated(config, "ingest", unreported)
    killer.join()
    assert "the process of stage ingest was ended by SIGKILL" in str(error.value)
    assert "run it again, to go on from there" in str(error.value)


def test_a_child_dies_with_its_parent(config: PipelineConfig, halted: None, tmp_path: Path) -> None:
    script = f"""
from pathlib import Path
from tasks.config import load_config
from tasks.isolated import run_isolated
run_isolated(load_config(Path({str(tmp_path / "trial.yaml")!r})), "ingest", lambda _: None)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    child = child_of(parent.pid)
    parent.kill()
    parent.wait()
    assert child.wait(timeout=20) is None or not child.is_running()


def test_a_crash_that_the_stage_tells_of_stays_one(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    break_plan(config.work_folder / "broken", "raise StageCrash('a training was killed')", monkeypatch)
    with pytest.raises(StageCrash, match=r"^a training was killed$"):
        run_isolated(config, "ingest", unreported)


def test_a_child_that_crashes_after_its_last_word_is_no_success(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "import atexit, os; atexit.register(os._exit, 7); return Plan('ingest', 'rows')"
    break_plan(config.work_folder / "broken", body, monkeypatch)
    with pytest.raises(StageCrash, match="exit status 7"):
        run_isolated(config, "ingest", unreported)


def test_an_unexpected_exception_is_a_crash_with_its_type_and_its_log(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_plan(config.work_folder / "broken", "raise ZeroDivisionError('made')", monkeypatch)
    with pytest.raises(StageCrash, match="exit status 1: ZeroDivisionError: made") as error:
        run_isolated(config, "ingest", unreported)
    log = next(line.split(": ")[1] for line in str(error.value).splitlines() if "full log" in line)
    assert "Traceback" in Path(log).read_text()
