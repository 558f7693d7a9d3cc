"""A flow a stage, for reruns one at a time: from the UI, a schedule, or `dmesr STAGE`."""

from pathlib import Path

from prefect import Flow, flow

from flows.failures import say_remedy
from flows.night import limited, open_stage
from flows.stage_tasks import (
    describe_items,
    embed_texts,
    evaluate_models,
    ingest_delivery,
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
        force: run the task even where its cache key says that nothing changed
    """
    ingest_delivery(open_stage(config, data, settings or [], "ingest", force))


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
        force: run the task even where its cache key says that nothing changed
    """
    chosen = limited(settings, "describe", items, retry_failed)
    describe_items(open_stage(config, None, chosen, "describe", force), None)


@flow(name="embed", on_failure=[say_remedy])
def embed(config: Path, settings: list[str] | None = None, items: Path | None = None, force: bool = False) -> None:
    """Embed every text that has no vector yet.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `embed.batch=256`
        items: a file of item ids, one a line, to embed the texts of those only
        force: run the task even where its cache key says that nothing changed
    """
    embed_texts(open_stage(config, None, limited(settings, "embed", items), "embed", force), None)


@flow(name="train", on_failure=[say_remedy])
def train(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Train each variant and seed that has no finished model for the present features and sequences.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `train.seeds=[0,1]`
        force: run the task even where its cache key says that nothing changed
    """
    train_models(open_stage(config, None, settings or [], "train", force), None)


@flow(name="evaluate", on_failure=[say_remedy])
def evaluate(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Evaluate each model that has no metrics yet.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `evaluate.ks=[5,10]`
        force: run the task even where its cache key says that nothing changed
    """
    evaluate_models(open_stage(config, None, settings or [], "evaluate", force), None)


@flow(name="recommend", on_failure=[say_remedy])
def recommend(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Write each user's recommendations.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `recommend.k=50`
        force: run the task even where its cache key says that nothing changed
    """
    recommend_items(open_stage(config, None, settings or [], "recommend", force), None)


@flow(name="report", on_failure=[say_remedy])
def report(config: Path, settings: list[str] | None = None, force: bool = False) -> None:
    """Write the report.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        settings: single settings over those in the file, such as `report.items=24`
        force: run the task even where its cache key says that nothing changed
    """
    write_report(open_stage(config, None, settings or [], "report", force), None, None)


STAGE_FLOWS: dict[str, Flow[..., None]] = {
    flow.name: flow for flow in (ingest, describe, embed, train, evaluate, recommend, report)
}
