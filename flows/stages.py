"""A flow a stage, for reruns one at a time: from the UI, a schedule, or `dmesr STAGE`."""

from pathlib import Path

from prefect import Flow, flow

from flows.failures import say_remedy
from flows.night import for_users, limited, open_stage
from flows.stage_tasks import (
    describe_items,
    embed_texts,
    evaluate_models,
    ingest_delivery,
    maintain_stores,
    promote_model,
    recommend_items,
    train_models,
    write_report,
)


@flow(name="ingest", on_failure=[say_remedy])
def ingest(config: Path, data: Path | None = None, settings: list[str] | None = None, force: bool = False) -> None:
    """Read a delivery's catalog and events into the store.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        data: the delivery's folder; without it, what the config names
        settings: single settings over those in the file, such as `ingest.max_reject_share=0.5`
        force: pass over Prefect's cache; the stage still does what its plan says
    """
    with open_stage(config, data, settings or [], "ingest", force) as night:
        ingest_delivery(night)


@flow(name="describe", on_failure=[say_remedy])
def describe(
    config: Path,
    settings: list[str] | None = None,
    items: Path | None = None,
    retry_failed: bool = False,
    force: bool = False,
) -> None:
    """Ask the model to describe what is new or changed, or whose prompt changed.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `describe.commit_seconds=30`
        items: a file of item ids, one a line, to ask about those only
        retry_failed: ask again what failed before, however often it was tried
        force: pass over Prefect's cache; the stage still does what its plan says
    """
    chosen = limited(settings, "describe", items, retry_failed)
    with open_stage(config, None, chosen, "describe", force) as night:
        describe_items(night, None)


@flow(name="embed", on_failure=[say_remedy])
def embed(config: Path, settings: list[str] | None = None, items: Path | None = None, force: bool = False) -> None:
    """Embed every text that has no vector yet.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `embed.batch=256`
        items: a file of item ids, one a line, to embed the texts of those only
        force: pass over Prefect's cache; the stage still does what its plan says
    """
    with open_stage(config, None, limited(settings, "embed", items), "embed", force) as night:
        embed_texts(night, None)


@flow(name="train", on_failure=[say_remedy])
def train(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Train each variant and seed that has no finished model, or whose model the retraining policy replaces.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `train.retrain.max_age_days=1`
        force: train every model anew, whatever the policy says; a forced training that was interrupted goes on
    """
    with open_stage(config, None, settings or [], "train", force) as night:
        train_models(night, None)


@flow(name="evaluate", on_failure=[say_remedy])
def evaluate(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Evaluate each model that has no metrics yet.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `evaluate.ks=[5,10]`
        force: pass over Prefect's cache; the stage still does what its plan says
    """
    with open_stage(config, None, settings or [], "evaluate", force) as night:
        evaluate_models(night, None)


@flow(name="promote", on_failure=[say_remedy])
def promote(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Let the model chosen for service serve, unless it is significantly worse than the one that serves now.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `promote.level=0.1`
        force: pass over Prefect's cache; the stage still does what its plan says: each model is judged once
    """
    with open_stage(config, None, settings or [], "promote", force) as night:
        promote_model(night, None)


@flow(name="recommend", on_failure=[say_remedy])
def recommend(config: Path, settings: list[str] | None = None, users: Path | None = None, force: bool = False) -> None:
    """Write each user's recommendations.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `recommend.k=50`
        users: a file of users, one a line, to recommend to those only; see recommend.users
        force: pass over Prefect's cache; the stage still does what its plan says
    """
    with open_stage(config, None, for_users(settings, users), "recommend", force) as night:
        recommend_items(night, None)


@flow(name="report", on_failure=[say_remedy])
def report(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Write the report.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `report.items=24`
        force: pass over Prefect's cache; the stage still does what its plan says
    """
    with open_stage(config, None, settings or [], "report", force) as night:
        write_report(night, None, None)


@flow(name="maintain", on_failure=[say_remedy])
def maintain(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Delete what nothing needs any more, and join small files into large ones.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `maintain.keep_hours=24`
        force: pass over Prefect's cache; the stage still does what its plan says
    """
    with open_stage(config, None, settings or [], "maintain", force) as night:
        maintain_stores(night, None)


STAGE_FLOWS: dict[str, Flow[..., None]] = {
    flow.name: flow for flow in (ingest, describe, embed, train, evaluate, promote, recommend, report, maintain)
}
