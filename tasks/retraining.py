"""Retraining: which finished model of a configuration is in use, and when the moved data are worth a new one.

A configuration is everything but the data: trainer source, model and training settings, prompts, views, encoder,
segments, filters. Another configuration is another model, and is always trained. Under the same one an older model goes
on encoding today's items, new ones too, from their content; the policy here says how long.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from storage.folders import write_whole
from tasks.features import DatasetKeys
from tasks.trained_models import ModelRef, Training


class RetrainConfig(BaseModel):
    """When a finished model of the present configuration is trained anew because the data moved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    new_events_share: float = Field(
        0.05,
        ge=0,
        description="retrain when more new events came than this share of those there were; 0: at any new event. "
        "At 0.05 a shop that gains 1 % a night trains about weekly, and a researcher's enlarged log at once; "
        "metrics after a smaller gain are of the older model, and the plan says so",
    )
    max_age_days: float | None = Field(
        7.0,
        ge=0,
        description="retrain when the training began more than so many days ago and catalog or log have moved since; "
        "0: whenever anything moved; None: age doesn't matter. A week lets new items and texts into the weights; "
        "data that never move (a benchmark) are never trained again",
    )


def in_use(models: Sequence[ModelRef], configuration: str, keys: DatasetKeys) -> ModelRef | None:
    """Return the finished model that stands for `configuration` now; None: one has to be trained.

    The newest one trained on exactly the present data, else the newest one. Not one trained on more events than
    there are: then the store was made anew.

    Args:
        models: finished ones, newest first.
    """
    of_it = [model for model in models if model.configuration == configuration]
    exact = [model for model in of_it if model.training.data == keys.data]
    older = [model for model in of_it if model.training.events <= keys.events]
    return next(iter([*exact, *older]), None)


def reason_to_retrain(
    policy: RetrainConfig, training: Training, keys: DatasetKeys, now: datetime, ordered: bool = False
) -> str | None:
    """Return why a finished model is to be trained anew on the present data; None: it stays.

    Time bears on this answer alone: which model is in use, for evaluation and recommendations, follows from what is
    finished, so that no hour falls between two stages of a night.
    """
    if ordered:
        return "ordered with --force"
    if training.data == keys.data:
        return None
    share = new_events_share(training, keys)
    if share > policy.new_events_share:
        return f"{share:.1%} new events since its training, above {policy.new_events_share:.1%}"
    age = (now - training.start).total_seconds() / 86_400
    if policy.max_age_days is not None and age > policy.max_age_days:
        return f"{age:.1f} days old, above {policy.max_age_days:g}, and the data moved since"
    return None


def reason_to_stay(policy: RetrainConfig, training: Training, keys: DatasetKeys, now: datetime) -> str:
    """Return why a finished model is not trained anew."""
    if training.data == keys.data:
        return "trained on these very data"
    age = (now - training.start).total_seconds() / 86_400
    days = "" if policy.max_age_days is None else f" of {policy.max_age_days:g}"
    share = new_events_share(training, keys)
    return (
        f"the catalog or the log moved, but {share:.1%} new events are not above {policy.new_events_share:.1%}, "
        f"and it is {age:.1f}{days} days old"
    )


def new_events_share(training: Training, keys: DatasetKeys) -> float:
    """Return events of the filtered log that came after the training, as a share of those it was made from."""
    return (keys.events - training.events) / max(training.events, 1)


@dataclass(frozen=True)
class RetrainOrder:
    """What `--force` leaves in the work folder: the keys of finished models that are to be replaced.

    It names models and no time, so that a forced training that was killed goes on as the same one, and an order that
    was carried out says nothing more.
    """

    path: Path

    @classmethod
    def of(cls, work_folder: Path) -> "RetrainOrder":
        return cls(work_folder / "models" / "retrain.json")

    def keys(self) -> frozenset[str]:
        return frozenset(json.loads(self.path.read_text())) if self.path.exists() else frozenset()

    def place(self, used: Sequence[ModelRef]) -> None:
        """Order that these be trained anew; an order that still waits for some of them stays as it is."""
        keys = {model.key for model in used}
        if not keys & self.keys():
            write_whole(self.path, json.dumps(sorted(keys)))
