"""An experiment's config: which models are trained with which backbones and seeds, on the data of which pipelines."""

import re
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from dmesr_model.model_config import BackboneName, Seed
from storage.approximate_index import IndexConfig
from tasks.config import ConfigError
from tasks.evaluation.scorers import Baseline

_NAME = r"^[a-z0-9][a-z0-9_-]*$"


class ExperimentData(BaseModel):
    """A pipeline whose store is trained on; it has run up to embed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path = Field(description="the pipeline's YAML file, relative to this file")
    title: str | None = Field(None, description="its name in the tables; None: the pipeline's")
    settings: tuple[str, ...] = Field((), description="settings over the file's, as for --set")


class ExperimentModel(BaseModel):
    """A row of the tables: one model or ablation, trained with every backbone and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_NAME, description="names it in the metrics table")
    title: str | None = Field(None, description="its name in the tables; None: `name`")
    model: dict[str, JsonValue] = Field({}, description="fields of ModelConfig that make it what it is")
    train: dict[str, JsonValue] = Field({}, description="fields of TrainConfig that differ for it")


class ColdItemsConfig(BaseModel):
    """Items held out of training altogether, to be found from their content alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(0.1, gt=0, lt=1, description="share of the items that have an event; each is held out whole")
    seed: Seed = Field(0, description="decides which; the same for every model and training seed")


class ExperimentConfig(BaseModel):
    """A grid. What is trained under it stays, so that a second start, or a larger grid, trains only what is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=_NAME, description="names the tables that are written")
    title: str | None = Field(None, description="caption of the tables; None: says what they show")
    data: tuple[ExperimentData, ...] = Field(min_length=1, description="a group of rows each")
    backbones: tuple[BackboneName, ...] = Field(("sasrec",), min_length=1, description="a group of rows each")
    models: tuple[ExperimentModel, ...] = Field(
        min_length=1, description="a row each; the first is what the others of its group are tested against"
    )
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="trainings of each model")
    train: dict[str, JsonValue] = Field({}, description="fields of TrainConfig for all models, over the pipelines'")
    baselines: tuple[Baseline, ...] = Field(("popularity", "content"), description="rows that need no training")
    metrics: tuple[str, ...] = Field(
        ("hr@5", "ndcg@5", "hr@10", "ndcg@10", "hr@20", "ndcg@20", "mrr@20"),
        min_length=1,
        description="columns: hr, ndcg or mrr @ K",
    )
    protocol: Literal["full", "sampled"] = Field(
        "full", description="full: among all items; sampled: among the target and 100 negatives. Both are measured"
    )
    cold_items: ColdItemsConfig | None = Field(
        None, description="measure items that training never saw, instead of each user's last event"
    )
    index: IndexConfig = Field(IndexConfig(), description="how items are searched; exact unless the catalog is large")

    @model_validator(mode="after")
    def _check(self) -> "ExperimentConfig":
        names = [model.name for model in self.models]
        lists = {"models' names": names} | {
            name: getattr(self, name) for name in ("data", "backbones", "seeds", "baselines", "metrics")
        }
        for what, values in lists.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{what}: one stands there twice")
        settings = [self.train, *(model.train for model in self.models)]
        if any("seed" in values or "split" in values for values in settings):
            raise ValueError("give seeds in seeds; the split is the experiment's: neither stands in train")
        if any("backbone" in model.model for model in self.models):
            raise ValueError("give backbones in backbones, not in a model")
        self.ks()
        return self

    def ks(self) -> tuple[int, ...]:
        """List lengths that the metrics ask for. Raises ValueError naming a metric that isn't one."""
        for metric in self.metrics:
            kind, _, k = metric.partition("@")
            if kind not in ("hr", "ndcg", "mrr") or not re.fullmatch(r"[1-9][0-9]*", k):
                raise ValueError(f"metrics: {metric!r} is not hr, ndcg or mrr @ a list length, such as ndcg@10")
        return tuple(sorted({int(metric.partition("@")[2]) for metric in self.metrics}))


def load_experiment(path: Path) -> ExperimentConfig:
    """Return the experiment in the YAML file at `path`, paths relative to its folder. Raises ConfigError."""
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: can't be read as YAML: {error}; give an experiment, such as configs/ablations.yaml"
        ) from error
    try:
        config = ExperimentConfig.model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, detail['loc'])) or 'file'}: {detail['msg']}" for detail in error.errors()]
        allowed = ", ".join(ExperimentConfig.model_fields)
        raise ConfigError("\n".join([f"{path}: not an experiment", *lines, f"  Allowed here: {allowed}"])) from error
    data = tuple(one.model_copy(update={"config": (path.parent / one.config).resolve()}) for one in config.data)
    return config.model_copy(update={"data": data})


BACKBONE_TITLES = {"sasrec": "SASRec", "bert4rec": "BERT4Rec", "gru4rec": "GRU4Rec"}
assert set(BACKBONE_TITLES) == set(get_args(BackboneName))
