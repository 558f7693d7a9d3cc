"""What the stages' tasks ask of the server: who holds the GPU, what is taken from its cache, what is tried again."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
import yaml
from prefect.states import Failed

from flows import stage_tasks
from flows.night import Night
from flows.stage_tasks import is_worth_retrying, stage_key
from storage.schemas import INTERACTIONS
from storage.tables import Store
from tasks.config import load_config
from tasks.pipeline import build_stages, stage_named
from tasks.stage import Plan, StageCrash, StageError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
CONFIG = load_config(ROOT / "configs" / "sample_shop.yaml")
ISOLATED = {stage.name for stage in build_stages(CONFIG) if stage.isolated}


def options_of(stage_name: str, to_do: int, monkeypatch: pytest.MonkeyPatch, force: bool = False) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    def with_options(**options: Any) -> object:
        seen.append(options)
        return lambda *_: None

    monkeypatch.setattr(stage_tasks, "plan_stage", lambda stage: Plan(stage.name, "rows", new=to_do))
    monkeypatch.setattr(stage_tasks, "run_stage_task", SimpleNamespace(with_options=with_options))
    stage_tasks._run(Night(CONFIG, (stage_name,), force), stage_name)
    return seen[0]


@pytest.mark.parametrize("stage_name", [stage.name for stage in build_stages(CONFIG)])
def test_a_stage_in_a_process_of_its_own_holds_the_gpu_if_it_has_work(
    stage_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = ["gpu"] if stage_name in ISOLATED else []
    assert options_of(stage_name, 1, monkeypatch)["tags"] == [stage_name, *held]
    assert options_of(stage_name, 0, monkeypatch)["tags"] == [stage_name]


def test_a_cached_result_is_believed_only_where_the_plan_finds_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert options_of("embed", 1, monkeypatch)["refresh_cache"] is True
    assert options_of("embed", 0, monkeypatch)["refresh_cache"] is False
    assert options_of("embed", 0, monkeypatch, force=True)["refresh_cache"] is True


def test_the_deployments_of_stages_that_hold_the_gpu_say_so() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {row["name"] for row in deployments if "gpu" in row["tags"]} == ISOLATED


def key_of(stage_name: str, **settings: object) -> str:
    config = load_config(ROOT / "configs" / "sample_shop.yaml", [f"{name}={value}" for name, value in settings.items()])
    for schema in stage_named(config, stage_name).writes:
        config.open_store().table(schema).create()
    return stage_key(cast(Any, None), {"config": config, "stage_name": stage_name})


def test_the_cache_knows_a_stage_by_its_settings_and_by_what_it_reads(tmp_path: Path) -> None:
    places = {"store.url": tmp_path / "store", "work_folder": tmp_path / "work"}
    ingest, train = key_of("ingest", **places), key_of("train", **places)
    assert key_of("train", **places, **{"embed.device": "cpu"}) == train  # where vectors are made, not which
    assert key_of("train", **places, **{"train.seeds": [5]}) != train
    assert key_of("train", **places | {"work_folder": tmp_path / "elsewhere"}) != train
    trained_on = set()
    for day in (1, 2):
        events = Store(places["store.url"]).table(INTERACTIONS)
        event = {"event_digest": str(day), "user_id": "u", "item_id": "i", "timestamp": day, "file_order": day}
        events.append(pl.DataFrame([event | {"created_at": NOW, "run_id": "r"}], schema=events.empty().schema))
        assert key_of("ingest", **places) == ingest  # its own commit
        trained_on.add(key_of("train", **places))
    assert len(trained_on - {train}) == 2


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StageCrash("the engine died"), True),
        (TimeoutError("no answer"), True),
        (StageError("set describe.model"), False),
        (ValueError("a bug"), False),
    ],
)
def test_what_a_stage_says_is_not_tried_again_and_a_crash_is(error: Exception, again: bool) -> None:
    assert is_worth_retrying(None, cast(Any, None), Failed(data=error)) is again
