"""What the stages' tasks ask of the server: which of them hold the GPU, which results it may take from its cache."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows import stage_tasks
from flows.night import Night
from tasks.config import load_config
from tasks.pipeline import build_stages
from tasks.stage import Plan

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
