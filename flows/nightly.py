"""The nightly pipeline: what is new in catalog and log, through every stage, to recommendations and a report."""

from pathlib import Path

from prefect import flow

from flows.failures import say_remedy
from flows.night import open_night
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
from tasks.pipeline import StageName


@flow(name="nightly", on_failure=[say_remedy])
def nightly(
    config: Path,
    data: Path | None = None,
    settings: list[str] | None = None,
    start_from: StageName = "ingest",
    force: bool = False,
) -> None:
    """Run every stage from `start_from` on.

    Args:
        config: the pipeline's YAML file, relative to the folder that was deployed from
        data: the folder of tonight's delivery; without it, what the config names
        settings: single settings over those in the file, such as `train.seeds=[0,1]`
        start_from: the first stage to run; those before it are taken as they are
        force: train every model anew, and pass over Prefect's cache; other stages still do what their plans say
    """
    with open_night(config, data, settings or [], start_from, force) as night:
        items = ingest_delivery(night)
        texts = describe_items(night, items)
        vectors = embed_texts(night, texts)
        models = train_models(night, vectors)
        metrics = evaluate_models(night, models)
        serving = promote_model(night, metrics)
        lists = recommend_items(night, serving)
        page = write_report(night, metrics, lists)
        maintain_stores(night, page)
