import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock, Timeout

from storage.schemas import ITEMS, RUNS
from storage.tables import Store
from tasks.stage import Outcome, Plan, ReportProgress, StageError, last_rate, run_stage


class Waits:
    """A stage whose run raises what another file's lock would."""

    name, reads, writes, isolated, config_digest = "waits", (ITEMS,), (), False, "digest"

    def __init__(self, work_folder: Path) -> None:
        self.store, self.work_folder = Store(work_folder / "store"), work_folder

    def plan(self) -> Plan:
        return Plan(stage=self.name, unit="things", new=1)

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        raise Timeout("another.lock")


def test_one_run_of_a_stage_at_a_time(tmp_path: Path) -> None:
    with FileLock(tmp_path / "waits.lock"), pytest.raises(StageError, match=r"another run of stage waits holds .*lock"):
        run_stage(Waits(tmp_path), lambda progress: None)
    with pytest.raises(Timeout, match=r"another\.lock"):  # as it is, and not as a run of the same stage
        run_stage(Waits(tmp_path), lambda progress: None)


def test_a_run_that_failed_is_a_row_that_says_why_and_what_it_read(tmp_path: Path) -> None:
    stage = Waits(tmp_path)
    stage.store.table(ITEMS).create()
    with pytest.raises(Timeout):
        run_stage(stage, lambda progress: None)
    (row,) = stage.store.table(RUNS).read().rows(named=True)
    assert (row["stage"], row["status"], row["read_versions"]) == ("waits", "failed", '{"items": 0}')
    assert row["error"].startswith("Timeout: ") and "another.lock" in row["error"]


def put_runs(store: Store, *runs: tuple[int, float]) -> None:
    """Completed runs of a stage, one an hour: units done, seconds."""
    table = store.table(RUNS)
    texts = dict.fromkeys(("config_digest", "read_versions", "written_versions"), "")
    rows = [
        texts
        | {
            "run_id": str(hour),
            "stage": "describe",
            "status": "completed",
            "started_at": datetime(2026, 11, 1 + hour // 24, hour % 24, tzinfo=UTC),
            "seconds": seconds,
            "counts": json.dumps({"done": done}),
        }
        for hour, (done, seconds) in enumerate(runs)
    ]
    table.append(pl.DataFrame(rows, schema=table.empty().schema))


def test_the_rate_is_of_the_largest_run_of_late(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert last_rate(store, "describe") is None
    put_runs(store, (9000, 1.0), *[(5, 60.0)] * 5, (1000, 100.0), *[(0, 1.0)] * 9, *[(5, 60.0)] * 4)
    assert last_rate(store, "describe") == 10.0  # 1,000 in 100 s; that of 9,000 has ten after it that did something
