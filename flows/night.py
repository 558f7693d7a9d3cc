"""One run of the pipeline as chosen: config, stages, force. Knows nothing of Prefect."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.config import PipelineConfig, load_config, with_data
from tasks.pipeline import STAGE_NAMES

StageName = Literal["ingest", "describe", "embed", "train", "evaluate", "recommend", "report"]


@dataclass(frozen=True)
class Night:
    """The pipeline's config, the stages chosen, and whether to run what the cache says is done."""

    config: PipelineConfig
    chosen: tuple[str, ...]
    force: bool = False


class StageFailure(Exception):
    """A stage that failed in a flow: which one, and why."""

    def __init__(self, stage_name: str, reason: str) -> None:
        super().__init__(f"stage {stage_name} failed: {reason}")
        self.stage_name = stage_name


def open_night(config: Path, data: Path | None, settings: list[str], start_from: StageName, force: bool) -> Night:
    """Load the config and choose the stages from `start_from` on."""
    pipeline = load_config(config, with_data(settings, data))
    return Night(pipeline, STAGE_NAMES[STAGE_NAMES.index(start_from) :], force)


def open_stage(config: Path, data: Path | None, settings: list[str], stage: StageName, force: bool) -> Night:
    """Load the config and choose one stage."""
    return Night(load_config(config, with_data(settings, data)), (stage,), force)


def limited(settings: list[str] | None, stage: StageName, items: Path | None, retry_failed: bool = False) -> list[str]:
    """Return `settings` with a stage's run limited to the ids in a file, and describe's failures asked for again."""
    chosen = [] if items is None else [f"{stage}.items={json.dumps(str(items.absolute()))}"]  # JSON text is YAML text
    return [*(settings or []), *chosen, *([f"{stage}.retry_failed=true"] if retry_failed else [])]
