"""Which model serves: the last one promoted, as the `promotions` table tells it."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from storage.schemas import CREATED_AT, PROMOTIONS
from storage.tables import Store
from tasks.evaluation.significance import Comparison
from tasks.features import DatasetKeys
from tasks.stage import StageError
from tasks.trained_models import ModelRef, finished_models

BY_HAND = "by hand"


@dataclass(frozen=True)
class Serving:
    """The model that recommends, and how it came to."""

    model: ModelRef
    pinned: bool
    reason: str


def decisions(store: Store) -> pl.DataFrame:
    """Return every decision so far, oldest first."""
    return store.table(PROMOTIONS).read().sort(CREATED_AT)


def serving_key(store: Store) -> set[str]:
    """Return the key of the model promoted last, wherever it is now; nothing before the first promotion."""
    promoted = decisions(store).filter("promoted")
    return set(promoted["model"].tail(1))


def serving_model(store: Store, keys: DatasetKeys, work_folder: Path) -> Serving | None:
    """Return the model promoted last; None before the first promotion, and where it can't serve.

    It can't where its folder is gone, or where the present texts have vectors of another encoder than it was trained
    on, or lack one of its views: their numbers would mean nothing to it.
    """
    promoted = decisions(store).filter("promoted").tail(1)
    if promoted.height == 0:
        return None
    row = promoted.row(0, named=True)
    for model in finished_models(work_folder):
        if model.key == row["model"] and model.training.can_read(keys):
            return Serving(model, row["pinned"], row["reason"])
    return None


def record_decision(
    store: Store,
    model: ModelRef,
    before: str | None,
    run_id: str,
    *,
    promoted: bool,
    pinned: bool,
    reason: str,
    comparison: Comparison | None = None,
    level: float | None = None,
    users: int | None = None,
) -> None:
    """Append one row; see the schema for what each means. What is not given is null."""
    row = {
        "promotion_id": uuid.uuid4().hex,
        "model": model.key,
        "variant": model.variant,
        "seed": model.seed,
        "before": before,
        "created_at": datetime.now(UTC),
        "run_id": run_id,
        "promoted": promoted,
        "pinned": pinned,
        "reason": reason,
        "difference": comparison and comparison.difference,
        "low": comparison and comparison.low,
        "high": comparison and comparison.high,
        "p_value": comparison and comparison.p_value,
        "level": level,
        "users": users,
    }
    table = store.table(PROMOTIONS)
    table.append(pl.DataFrame([row], schema=table.empty().schema), note=f"{model.name}: {reason}")


def model_named(work_folder: Path, start_of_key: str) -> ModelRef:
    """Return the finished model whose key begins so. Raises StageError where there is none, or more than one."""
    finished = finished_models(work_folder)
    found = [model for model in finished if start_of_key and model.key.startswith(start_of_key)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{model.short_key} ({model.name})" for model in finished) or "none"
    problem = f"{len(found)} models begin with" if found else "no finished model begins with"
    raise StageError(f"{problem} {start_of_key!r}; finished are: {there}")


def promote_by_hand(store: Store, model: ModelRef, keys: DatasetKeys, work_folder: Path, pin: bool) -> None:
    """Let a model serve from here on. Raises StageError where it can't read the present texts."""
    if not model.training.can_read(keys):
        raise StageError(
            f"{model.name} ({model.short_key}) can't serve: it was trained on vectors of another encoder, or on views "
            "that are not described any more. Set embed and describe as they were then, or train"
        )
    serving = serving_model(store, keys, work_folder)
    before = None if serving is None else serving.model.key
    run_id = f"by-hand-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    record_decision(store, model, before, run_id, promoted=True, pinned=pin, reason=BY_HAND)
