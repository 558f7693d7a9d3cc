"""Train: a model for each configured variant and seed, each in a process of its own that resumes where it stopped.

A finished model stays while the retraining policy (tasks/retraining.py) lets it. A new one's folder is named by what
decides it: features, sequences, settings; see tasks/trained_models.py.
"""

import difflib
import importlib.util
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from dmesr_model.model_config import Seed
from dmesr_model.sequences import Sequences
from storage.digests import digest_of, digest_of_bytes
from storage.folders import write_whole
from storage.schemas import TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluation.scorers import Baseline
from tasks.features import READS, Dataset, DatasetKeys
from tasks.ingest.filters import FilterConfig
from tasks.retention import drop_old_models, drop_unused_data
from tasks.retraining import RetrainConfig, RetrainOrder, in_use, reason_to_retrain, reason_to_stay
from tasks.serving import serving_key
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError, last_rate
from tasks.trained_models import ModelRef, finished_models
from tasks.training_process import Launch, train_in_child

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
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2), min_length=1, description="one training a seed; three or more tell luck from merit"
    )
    train: dict[str, JsonValue] = Field({}, description="fields of dmesr_model.trainer.TrainConfig, for all variants")
    retrain: RetrainConfig = RetrainConfig()
    threads: int | None = Field(None, ge=1, description="CPU threads of a training; None: as many as there are cores")
    processes: int = Field(
        1,
        ge=1,
        description="processes that train a model together, each on a GPU of its own, and share each step's sequences; "
        "how many changes a model by rounding alone",
    )
    keep_models: int = Field(
        20,
        ge=0,
        description="models kept beside those in use and the one that serves, newest first: to roll back to",
    )

    @model_validator(mode="after")
    def _names_and_seeds_differ(self) -> "TrainStageConfig":
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("each variant needs a name of its own, and each seed stands once")
        if taken := sorted(set(names) & set(get_args(Baseline))):
            raise ValueError(f"{', '.join(taken)}: name of a baseline in evaluate; give the variant another name")
        if any("seed" in settings for settings in (self.train, *(variant.train for variant in self.variants))):
            raise ValueError("give seeds in train.seeds, not in the settings of a training")
        return self


def model_refs(config: TrainStageConfig, keys: DatasetKeys, work_folder: Path) -> list[ModelRef]:
    """Return the models in use on this data: variants in their order, and for each all seeds.

    Where none is finished, it is the one to be trained. Time plays no part: see tasks/retraining.py.
    """
    finished = finished_models(work_folder)
    return [
        wanted.in_use(finished, keys) or wanted.to_train(keys) for wanted in wanted_models(config, keys, work_folder)
    ]


@dataclass(frozen=True)
class WantedModel:
    """A variant with a seed: settings, and the digest of them with all else that decides a model but the data."""

    variant: str
    seed: int
    settings: dict[str, Any]
    configuration: str
    work_folder: Path

    def in_use(self, finished: list[ModelRef], keys: DatasetKeys) -> ModelRef | None:
        """The finished model that stands for it; None: it is to be trained."""
        used = in_use(finished, self.configuration, keys)
        return None if used is None else replace(used, variant=self.variant, seed=self.seed)

    def to_train(self, keys: DatasetKeys, instead_of: str | None = None) -> ModelRef:
        """The model of the present data; another one for each that it is to replace on the same data."""
        decisive = {"configuration": self.configuration, "data": keys.data}
        return self.model_of(digest_of(decisive | ({"instead_of": instead_of} if instead_of else {})))

    def model_of(self, key: str) -> ModelRef:
        folder = self.work_folder / "models" / key
        return ModelRef(self.variant, self.seed, key, folder, self.settings, self.configuration)


def wanted_models(config: TrainStageConfig, keys: DatasetKeys, work_folder: Path) -> Iterator[WantedModel]:
    """Yield what `config` asks for: variants in their order, and for each all seeds."""
    for variant, seed in itertools.product(config.variants, config.seeds):
        settings = {"model": variant.model, "train": {**config.train, **variant.train, "seed": seed}}
        configuration = digest_of({"trainer": _trainer_digest(), "data": keys.configuration, **settings})
        yield WantedModel(variant.name, seed, settings, configuration, work_folder)


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
        """Raises StageError for settings that the trainer doesn't know, if there is anything to train.

        `work` has a row a model to train: its key, variant, seed. Models that replace a finished one count as changed.
        """
        self.dataset = self.dataset.as_it_is_now()
        verdicts = self._verdicts(datetime.now(UTC))
        missing = [verdict.model for verdict in verdicts if verdict.is_to_train]
        for model in missing:
            check_settings(model.variant, model.settings)
        rate = last_rate(self.store, self.name)
        replaced = sum(verdict.is_to_train and bool(verdict.reason) for verdict in verdicts)
        rows = [(model.key, model.variant, model.seed) for model in missing]
        return Plan(
            stage=self.name,
            unit="models",
            new=len(missing) - replaced,
            changed=replaced,
            up_to_date=len(verdicts) - len(missing),
            seconds=len(missing) / rate if missing and rate else None,
            notes=tuple(_notes(verdicts)),
            work=pl.DataFrame(rows, schema={"key": pl.String, "variant": pl.String, "seed": pl.Int64}, orient="row"),
        )

    def order_retraining(self) -> None:
        """Order that each model in use be trained anew, whatever the policy says of it."""
        models = model_refs(self.config, self.dataset.as_it_is_now().keys, self.work_folder)
        RetrainOrder.of(self.work_folder).place([model for model in models if model.is_trained])

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        keys = self.dataset.keys
        if keys.users == 0:
            raise StageError(
                "there is nothing to train on: no user has enough events. Run ingest first; if it has run, lower "
                "train.filters or give more interactions"
            )
        wanted = {
            (wanted.variant, wanted.seed): wanted for wanted in wanted_models(self.config, keys, self.work_folder)
        }
        histories = Sequences.open(self.dataset.sequences_folder())
        for _, variant, seed in plan.work.unique("variant", maintain_order=True).iter_rows():
            check_histories(variant, histories, wanted[variant, seed].settings["train"].get("split"))
        details: dict[str, str | float | int] = {}
        for done, (key, variant, seed) in enumerate(plan.work.iter_rows()):
            model = wanted[variant, seed].model_of(key)
            model.record_start(keys, datetime.now(UTC))
            self._train(model, done, plan.work.height, report)
            details[f"{variant}/{seed}"] = _in_words(model.summary)
        self._drop_old()
        return Outcome({"done": plan.work.height}, details)

    def _verdicts(self, now: datetime) -> list["_Verdict"]:
        keys, policy = self.dataset.keys, self.config.retrain
        finished, ordered = finished_models(self.work_folder), RetrainOrder.of(self.work_folder).keys()
        verdicts = []
        for wanted in wanted_models(self.config, keys, self.work_folder):
            used = wanted.in_use(finished, keys)
            if used is None:
                verdicts.append(_Verdict(wanted.to_train(keys), True))
            elif reason := reason_to_retrain(policy, used.training, keys, now, used.key in ordered):
                replaced = used.key if used.key in ordered else None
                verdicts.append(_Verdict(wanted.to_train(keys, replaced), True, reason))
            else:
                verdicts.append(_Verdict(used, False, reason_to_stay(policy, used.training, keys, now)))
        return verdicts

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
        train_in_child(model, Launch(self.config.processes, self.config.threads), report)
        report(Progress(done + 1, total, "models", 1 / max(model.summary["seconds"], 1e-9)))

    def _drop_old(self) -> None:
        needed = {model.key for model in model_refs(self.config, self.dataset.keys, self.work_folder)}
        drop_old_models(self.work_folder, self.config.keep_models, needed | serving_key(self.store))
        drop_unused_data(self.work_folder, self.dataset.keys)


@dataclass(frozen=True)
class _Verdict:
    """A model to train, with the reason to replace a finished one ("": there is none); or one that stays, and why."""

    model: ModelRef
    is_to_train: bool
    reason: str = ""


def _notes(verdicts: list[_Verdict]) -> Iterator[str]:
    started = sum(verdict.is_to_train and (verdict.model.folder / "checkpoints").exists() for verdict in verdicts)
    if started:
        yield f"{started} of them started before and resumed"
    reasons = Counter((verdict.is_to_train, verdict.reason) for verdict in verdicts if verdict.reason)
    for (is_to_train, reason), count in reasons.items():
        yield f"{count} {'to train anew' if is_to_train else 'not trained anew'}: {reason}"


def check_variants(config: TrainStageConfig) -> None:
    """Raise StageError for settings that the trainer doesn't know: before a night, whose other stages take hours."""
    for variant in config.variants:
        check_settings(variant.name, {"model": variant.model, "train": {**config.train, **variant.train}})


def check_settings(variant: str, settings: Mapping[str, Any]) -> None:
    """Raise StageError naming each setting of a variant that dmesr_model refuses."""
    from dmesr_model.model import ModelConfig
    from dmesr_model.trainer import TrainConfig

    for section, config in (("model", ModelConfig), ("train", TrainConfig)):
        try:
            config.model_validate(settings[section])
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
            allowed = ", ".join(config.model_fields)
            close = [
                found
                for name in settings[section].keys() - config.model_fields.keys()
                for found in difflib.get_close_matches(name, config.model_fields, n=1)
            ]
            hint = f"Did you mean {' and '.join(close)}? " if close else ""
            raise StageError(f"train: variant {variant}, {section}: {wrong}. {hint}Allowed: {allowed}") from error


def check_histories(variant: str, sequences: Sequences, split: str | None) -> None:
    """Raise StageError where the split (None: the trainer's default) leaves no user two events to train on."""
    from dmesr_model.run_setup import split_events
    from dmesr_model.trainer import TrainConfig

    chosen = TrainConfig.model_validate({} if split is None else {"split": split}).split
    if split_events(sequences, chosen)[0].user_count:
        return
    raise StageError(
        f"train: variant {variant}: no user has two training events: of the {sequences.user_count:,} histories that "
        f"pass train.filters the longest has {sequences.lengths.max(initial=0)} events, of which split {chosen} "
        "leaves fewer than two. Give more interactions; or set train.filters.min_sequence_length to 2, if "
        "there are users of two events, who train with both; or keep fewer events back: train.train.split: last_event"
    )


def _in_words(summary: Mapping[str, Any]) -> str:
    validation = summary["validation_ndcg_at_10"]
    score = "no validation events" if validation is None else f"validation ndcg@10 {validation:.4f}"
    ended = "patience" if summary["stopped_early"] else "max_epochs"
    best = f"best epoch {summary['best_epoch'] + 1} of {summary['epochs']}, ended by {ended}"
    return f"{score}, {best}, {summary['seconds']:.0f} s"
