"""Commands about what serves: `models`, `promote`, `recommend`, and `maintain`, which clears the rest away."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import polars as pl
import typer

from flows.flow_runs import plan_and_run_stage
from flows.night import for_users
from flows.options import ConfigOption, ForceOption, SetOption, check_writable
from storage.schemas import CREATED_AT, METRICS
from storage.tables import Store
from tasks.config import PipelineConfig, load_config
from tasks.pipeline import stage_named
from tasks.recommend import RecommendStage
from tasks.serving import decisions, model_named, promote_by_hand, serving_model
from tasks.text_tables import TextTable
from tasks.train import model_refs
from tasks.trained_models import ModelRef, models_on_disk
from tasks.work_lock import only_run


def models(config: ConfigOption, settings: SetOption = None) -> None:
    """List the trained models, newest first: on what each was trained, how good it is, which one serves."""
    pipeline = load_config(config, settings or [])
    header = ("model", "variant", "seed", "training began (UTC)", "events", "validation", "test", "")
    rows = list(_model_rows(pipeline))
    if not rows:
        typer.echo(f"no models in {pipeline.work_folder / 'models'}: run train")
        return
    title = "models: ndcg@10 on validation events, and when last evaluated on test events"
    typer.echo(TextTable(title, header, rows).plain())


def promote(
    config: ConfigOption,
    model: Annotated[
        str | None,
        typer.Argument(help="First characters of a model's key, see `dmesr models`. Default: judge the newest one."),
    ] = None,
    settings: SetOption = None,
    pin: Annotated[bool, typer.Option("--pin", help="Keep it until another is set by hand.")] = False,
    force: ForceOption = False,
) -> None:
    """Set the model that serves by hand, or, without MODEL, judge the one chosen for service as a night does."""
    pipeline = load_config(config, settings or [])
    if model is None:
        if pin:
            raise typer.BadParameter("--pin needs a MODEL")
        plan_and_run_stage("promote", config, settings or [], force)
        return
    with only_run(pipeline.work_folder, "the command promote"):
        chosen = model_named(pipeline.work_folder, model)
        promote_by_hand(pipeline.open_store(), chosen, pipeline.open_dataset().keys, pipeline.work_folder, pin)
    pinned = ", pinned" if pin else ""
    typer.echo(f"{chosen.name} ({chosen.short_key}) serves{pinned}; run recommend to publish what it recommends")


def recommend(
    config: ConfigOption,
    settings: SetOption = None,
    users: Annotated[
        Path | None,
        typer.Option(
            "--users",
            help="File of users, one a line, to recommend to those only: a user_id, or JSON "
            '{"user_id": …, "history": \\[item_id, …]}, oldest first, also for users whom the store doesn\'t know.',
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write the lists here as JSON Lines: user_id, source, items, best first."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Write each user's recommendations, or those of the users in a file. Says the plan first."""
    chosen = for_users(settings, users)
    pipeline = load_config(config, chosen)
    if out is not None:
        check_writable(out)
    plan_and_run_stage("recommend", config, chosen, force)
    if out is not None:
        stage = stage_named(pipeline, "recommend")
        assert isinstance(stage, RecommendStage)
        out.write_text("".join(f"{line}\n" for line in _lists(stage)), encoding="utf-8")
        typer.echo(f"lists: {out}")


def maintain(
    config: ConfigOption,
    settings: SetOption = None,
    keep_hours: Annotated[
        int | None, typer.Option(help="Over maintain.keep_hours: how long old versions of the tables stay readable.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Delete what nothing needs any more, and join small files into large ones. Says the plan first."""
    kept = [] if keep_hours is None else [f"maintain.keep_hours={keep_hours}"]
    chosen = [*(settings or []), *kept]
    plan_and_run_stage("maintain", config, chosen, force)


def _lists(stage: RecommendStage) -> Iterator[str]:
    for user_id, source, items in stage.published().iter_rows():
        yield json.dumps({"user_id": user_id, "source": source, "items": items}, ensure_ascii=False)


def _model_rows(config: PipelineConfig) -> Iterator[tuple[str, ...]]:
    store, keys = config.open_store(), config.open_dataset().keys
    used = {model.key for model in model_refs(config.train, keys, config.work_folder)}
    serving = serving_model(store, keys, config.work_folder)
    tested, judged = _tested(store), _judged(store)
    for model in models_on_disk(config.work_folder):
        states = []
        if serving and serving.model.key == model.key:
            states.append("serves, pinned" if serving.pinned else "serves")
        elif model.key in judged:
            states.append(judged[model.key])
        if model.key in used:
            states.append("in use")
        yield _model_row(model, tested.get(model.key), ", ".join(states))


def _model_row(model: ModelRef, tested: float | None, state: str) -> tuple[str, ...]:
    training = model.training
    return (
        model.short_key,
        model.variant,
        str(model.seed),
        f"{training.start:%Y-%m-%d %H:%M}",
        f"{training.events:,}",
        _score(model.validation),
        _score(tested),
        state if model.is_trained else "not finished",
    )


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _tested(store: Store) -> dict[str, float]:
    """NDCG@10 over all test users of each model, when it was last evaluated."""
    rows = store.table(METRICS).scan().filter(protocol="full", slice="all", metric="ndcg@10")
    return dict(rows.sort(CREATED_AT).select("model", "value").drop_nulls().collect().iter_rows())


def _judged(store: Store) -> dict[str, str]:
    """What was last decided of each model."""
    rows = decisions(store).select(
        "model", pl.when("promoted").then(pl.lit("served before")).otherwise("refused: " + pl.col("reason"))
    )
    return dict(rows.iter_rows())
