"""One run of the pipeline as chosen: config, stages, force. Knows nothing of Prefect."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.config import PipelineConfig, load_config, with_data
from tasks.pipeline import STAGE_NAMES, StageName
from tasks.train import check_variants
from tasks.work_lock import only_run


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


@contextmanager
def open_night(
    config: Path, data: Path | None, settings: list[str], start_from: StageName, force: bool
) -> Iterator[Night]:
    """Load the config, choose the stages from `start_from` on, and hold the work folder for them.

    Raises StageError where another run holds it, and where train would refuse its settings, hours later.
    """
    pipeline = load_config(config, with_data(settings, data))
    chosen = STAGE_NAMES[STAGE_NAMES.index(start_from) :]
    if not pipeline.maintain.after_night and start_from != "maintain":
        chosen = tuple(stage for stage in chosen if stage != "maintain")
    if "train" in chosen:
        check_variants(pipeline.train)
    with only_run(pipeline.work_folder, f"the night from {start_from} on"):
        yield Night(pipeline, chosen, force)


@contextmanager
def open_stage(config: Path, data: Path | None, settings: list[str], stage: StageName, force: bool) -> Iterator[Night]:
    """Load the config, choose one stage, and hold the work folder for it; see `open_night`."""
    pipeline = load_config(config, with_data(settings, data))
    with only_run(pipeline.work_folder, f"the stage {stage}"):
        yield Night(pipeline, (stage,), force)


def limited(settings: list[str] | None, stage: StageName, items: Path | None, retry_failed: bool = False) -> list[str]:
    """Return `settings` with a stage's run limited to the ids in a file, and describe's failures asked for again."""
    chosen = [] if items is None else [f"{stage}.items={json.dumps(str(items.absolute()))}"]  # JSON text is YAML text
    return [*(settings or []), *chosen, *([f"{stage}.retry_failed=true"] if retry_failed else [])]


def for_users(settings: list[str] | None, users: Path | None) -> list[str]:
    """Return `settings` with the recommendations limited to the users in a file."""
    chosen = [] if users is None else [f"recommend.users={json.dumps(str(users.absolute()))}"]
    return [*(settings or []), *chosen]
