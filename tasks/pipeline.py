"""The stages of the pipeline in their order, built from its config."""

from typing import Literal, get_args

from tasks.config import PipelineConfig
from tasks.describe import DescribeStage
from tasks.embed import EmbedStage
from tasks.evaluate import EvaluateStage
from tasks.ingest.stage import IngestStage
from tasks.maintain import MaintainStage
from tasks.promote import PromoteStage
from tasks.recommend import RecommendStage
from tasks.report import ReportStage
from tasks.stage import Stage
from tasks.train import TrainStage

StageName = Literal["ingest", "describe", "embed", "train", "evaluate", "promote", "recommend", "report", "maintain"]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)


def build_stages(config: PipelineConfig) -> tuple[Stage, ...]:
    """Return the stages in the order of the data flow."""
    store, folder = config.open_store(), config.work_folder
    describe, embed, train = config.describe, config.embed, config.train
    evaluate, recommend = config.evaluate, config.recommend
    return (
        IngestStage(config.ingest, store, folder),
        DescribeStage(describe, store, folder),
        EmbedStage(embed, describe, store, folder),
        TrainStage(train, describe, embed, store, folder),
        EvaluateStage(evaluate, train, describe, embed, store, folder),
        PromoteStage(config.promote, evaluate, recommend, train, describe, embed, store, folder),
        RecommendStage(recommend, train, describe, embed, store, folder),
        ReportStage(config.report, evaluate, recommend, train, describe, embed, store, folder),
        MaintainStage(config.maintain, evaluate, recommend, train, describe, embed, store, folder),
    )


def stage_named(config: PipelineConfig, name: str) -> Stage:
    """Return the stage called `name`, one of STAGE_NAMES."""
    return next(stage for stage in build_stages(config) if stage.name == name)
