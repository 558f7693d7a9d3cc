"""Train: a model for each configured variant and seed, each in a process of its own that resumes where it stopped.

A model's folder is named by what decides it: features, sequences, settings. It holds `job.json`, the trainer's
checkpoints, `progress.jsonl`, and, when it is finished, `summary.json` and `model/`.
"""

import importlib.util
import itertools
import json
import logging
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from storage.digests import digest_of, digest_of_bytes
from storage.folders import is_unfinished, write_whole
from storage.schemas import TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.features import READS, Dataset, DatasetKeys
from tasks.ingest.filters import FilterConfig
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate
from tasks.trained_models import ModelRef
from tasks.training_process import train_in_child

logger = logging.getLogger(__name__)


class Variant(BaseModel):
    """One kind of model to train; what is not given keeps dmesr_model's default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="names the variant in tables and in the report")
    model: dict[str, JsonValue] = Field({}, description="fields of dmesr_model.model.ModelConfig, such as backbone")
    train: dict[str, JsonValue] = Field({}, description="fields of TrainConfig that differ for this variant")


class TrainStageConfig(BaseModel):
    """Which models are trained on which events."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filters: FilterConfig = FilterConfig()
    variants: tuple[Variant, ...] = Field(
        (Variant(name="dmesr"), Variant(name="id_only", model={"views": [], "use_segments": False})),
        min_length=1,
        description="what is trained; the first is the one that others are compared with, and that recommends",
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="one training a seed; three or more tell luck from merit"
    )
    train: dict[str, JsonValue] = Field({}, description="fields of dmesr_model.trainer.TrainConfig, for all variants")
    threads: int | None = Field(None, ge=1, description="CPU threads of a training; None: as many as there are cores")
    keep_models: int = Field(
        20, ge=0, description="trained models kept beside the present ones, newest first, to compare nights with"
    )

    @model_validator(mode="after")
    def _names_and_seeds_differ(self) -> "TrainStageConfig":
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("each variant needs a name of its own, and each seed stands once")
        if any("seed" in settings for settings in (self.train, *(variant.train for variant in self.variants))):
            raise ValueError("give seeds in train.seeds, not in the settings of a training")
        return self


def model_refs(config: TrainStageConfig, keys: DatasetKeys, work_folder: Path) -> list[ModelRef]:
    """Return what `config` asks for on this data: variants in their order, and for each all seeds."""
    pairs = itertools.product(config.variants, config.seeds)
    return [_model_ref(config, variant, seed, keys, work_folder) for variant, seed in pairs]


def _model_ref(config: TrainStageConfig, variant: Variant, seed: int, keys: DatasetKeys, work_folder: Path) -> ModelRef:
    settings = {"model": variant.model, "train": {**config.train, **variant.train, "seed": seed}}
    key = digest_of({"trainer": _trainer_digest(), "data": [keys.features, keys.sequences], **settings})
    return ModelRef(variant.name, seed, key, work_folder / "models" / key, settings)


@cache
def _trainer_digest() -> str:
    """Digest of dmesr_model's source: its defaults and its mathematics are part of what a model is."""
    spec = importlib.util.find_spec("dmesr_model")
    assert spec is not None and spec.submodule_search_locations is not None
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.py"))
    return digest_of([[file.name, digest_of_bytes(file.read_bytes())] for file in files])


class TrainStage:
    """One unit of work is one variant with one seed."""

    name: ClassVar[str] = "train"
    reads: ClassVar[tuple[TableSchema, ...]] = READS
    writes: ClassVar[tuple[TableSchema, ...]] = ()
    isolated: ClassVar[bool] = True

    def __init__(
        self,
        config: TrainStageConfig,
        describe: DescribeConfig,
        embed: EmbedConfig,
        store: Store,
        work_folder: Path,
    ) -> None:
        self.config = config
        self.store = store
        self.work_folder = work_folder
        self.dataset = Dataset(store, describe, embed, config.filters, work_folder)

    @property
    def config_digest(self) -> str:
        return digest_of(self.config.model_dump(mode="json"))

    def plan(self) -> Plan:
        """Raises StageError for settings that the trainer doesn't know, if there is anything to train."""
        self.dataset = self.dataset.as_it_is_now()
        models = model_refs(self.config, self.dataset.keys, self.work_folder)
        missing = [model for model in models if not model.is_trained]
        for model in missing:
            check_settings(model)
        rate = last_rate(self.store, self.name)
        started = sum((model.folder / "checkpoints").exists() for model in missing)
        return Plan(
            stage=self.name,
            unit="models",
            new=len(missing),
            up_to_date=len(models) - len(missing),
            seconds=len(missing) / rate if missing and rate else None,
            notes=(f"{started} of them started before and resumed",) if started else (),
            work=pl.DataFrame({"key": [model.key for model in missing]}, schema={"key": pl.String}),
        )

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        if self.dataset.keys.users == 0:
            raise StageError(
                "there is nothing to train on: no user has enough events. Run ingest first; if it has run, lower "
                "train.filters or give more interactions"
            )
        models = model_refs(self.config, self.dataset.keys, self.work_folder)
        wanted = set(plan.work["key"])
        details: dict[str, str | float | int] = {}
        for done, model in enumerate(model for model in models if model.key in wanted):
            self._train(model, done, len(wanted), report)
            details[f"{model.variant}/{model.seed}"] = _in_words(model.summary)
        self._drop_old({model.key for model in models})
        return Outcome({"done": len(wanted)}, details)

    def _train(self, model: ModelRef, done: int, total: int, report: ReportProgress) -> None:
        job = {
            "features": str(self.dataset.features_folder()),
            "sequences": str(self.dataset.sequences_folder()),
            "output": str(model.folder),
            **model.settings,
        }
        model.folder.mkdir(parents=True, exist_ok=True)
        write_whole(model.folder / "job.json", json.dumps(job, indent=2))
        logger.info("training %s, seed %d, in %s", model.variant, model.seed, model.folder)
        train_in_child(model, self.config.threads, report)
        report(Progress(done + 1, total, "models", 1 / max(model.summary["seconds"], 1e-9)))

    def _drop_old(self, present: set[str]) -> None:
        """Delete models, features and sequences that neither the present models nor the newest others need."""
        folders = [path for path in (self.work_folder / "models").iterdir() if (path / "job.json").exists()]
        others = sorted((path for path in folders if path.name not in present), key=_age)
        for folder in others[self.config.keep_models :]:
            logger.info("deleting the old model %s", folder)
            shutil.rmtree(folder)
        kept = [json.loads((path / "job.json").read_text()) for path in folders if path.exists()]
        needed = {self.dataset.histories_folder().name}
        needed |= {Path(job[kind]).name for job in kept for kind in ("features", "sequences")}
        for folder in (path for kind in ("features", "sequences") for path in (self.work_folder / kind).iterdir()):
            if folder.name not in needed and not is_unfinished(folder):
                shutil.rmtree(folder)


def _age(folder: Path) -> float:
    """Sorts the newest first."""
    return -(folder / "job.json").stat().st_mtime


def check_settings(model: ModelRef) -> None:
    """Raise StageError naming each setting of a variant that dmesr_model refuses."""
    from dmesr_model.model import ModelConfig
    from dmesr_model.trainer import TrainConfig

    for section, config in (("model", ModelConfig), ("train", TrainConfig)):
        try:
            config.model_validate(model.settings[section])
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
            allowed = ", ".join(config.model_fields)
            raise StageError(f"train: variant {model.variant}, {section}: {wrong}. Allowed: {allowed}") from error


def _in_words(summary: Mapping[str, Any]) -> str:
    validation = summary["validation_ndcg_at_10"]
    score = "no validation events" if validation is None else f"validation ndcg@10 {validation:.4f}"
    return f"{score}, best epoch {summary['best_epoch']} of {summary['epochs']}, {summary['seconds']:.0f} s"
