"""The grid of an experiment on one pipeline's data: planned, trained and evaluated by the stages' own code.

It works in a folder of its own beside the pipeline's models, so that neither deletes what the other needs. Models and
evaluations are named by what decides them: what is there is not made again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from storage.tables import Store
from tasks.config import PipelineConfig, load_config
from tasks.evaluate import EvaluateConfig, EvaluateStage, candidates
from tasks.evaluation.kept import experiments_folder
from tasks.evaluation.results import Contender, Results, present_contenders
from tasks.experiments.cold_items import TRAINER_SPLIT, DatasetWithoutColdItems, EvaluateColdItems, ExperimentDataset
from tasks.experiments.config import ExperimentConfig, ExperimentData
from tasks.retraining import RetrainConfig
from tasks.stage import Plan, ReportProgress, StageError, run_stage
from tasks.train import TrainStage, TrainStageConfig, Variant

_KEEP_ALL = 1_000_000  # an experiment deletes no model


class ExperimentTrain(TrainStage):
    """Trains as the train stage does; its runs have a name of their own, so that a night's costs stay a night's."""

    name = "experiment_train"


class ExperimentEvaluate(EvaluateStage):
    """Evaluates as the evaluate stage does."""

    name = "experiment_evaluate"


@dataclass(frozen=True)
class Grid:
    """One experiment on one pipeline's data, as the store holds them when `run` begins."""

    experiment: ExperimentConfig
    pipeline: PipelineConfig
    title: str

    @classmethod
    def of(cls, experiment: ExperimentConfig, data: ExperimentData) -> "Grid":
        pipeline = load_config(data.config, data.settings)
        return cls(experiment, pipeline, data.title or pipeline.name)

    def plan(self) -> Plan:
        """Return which models would be trained. Raises StageError where the pipeline has left nothing to train on."""
        stage = self._train_stage(self._new_dataset())
        if self.experiment.protocol == "sampled" and self.pipeline.evaluate.negatives == 0:
            raise StageError(f"{self.title}: protocol sampled needs evaluate.negatives above 0; set it, or use full")
        if stage.dataset.keys.users == 0:
            raise StageError(
                f"{self.title}: the store {self.store.url} has no user with enough events; run the pipeline first: "
                f"dmesr run {self.pipeline.origin}"
            )
        return stage.plan()

    def run(self, report: ReportProgress) -> None:
        """Train what is not trained, evaluate what is not evaluated, whatever nights commit meanwhile."""
        self.dataset.keep()
        run_stage(self._train_stage(self.dataset), report)
        run_stage(self._evaluate_stage(), report)

    def group(self, backbone: str) -> Results:
        """Return the results of one backbone's models, by the models' names; the first is the reference."""
        return Results(self.store, self.folder, list(self._contenders_of(backbone)))

    def baselines(self) -> Results:
        found = [contender for contender in self._contenders if contender.name in self.experiment.baselines]
        return Results(self.store, self.folder, found)

    @cached_property
    def store(self) -> Store:
        return self.pipeline.open_store()

    @cached_property
    def dataset(self) -> ExperimentDataset:
        """What all models of the table are trained and tested on, once and for all."""
        return self._new_dataset()

    @property
    def folder(self) -> Path:
        """Where models and evaluations of all experiments on this pipeline lie."""
        return experiments_folder(self.pipeline.work_folder)

    def _contenders_of(self, backbone: str) -> Iterator[Contender]:
        by_name = {contender.name: contender for contender in self._contenders}
        for model in self.experiment.models:
            yield Contender(model.name, by_name[_variant_name(backbone, model.name)].keys)

    @cached_property
    def _contenders(self) -> list[Contender]:
        return present_contenders(candidates(self._evaluate, self._train, self.dataset.keys, self.folder))

    @cached_property
    def _train(self) -> TrainStageConfig:
        experiment = self.experiment
        variants = tuple(
            Variant(
                name=_variant_name(backbone, model.name),
                model={**model.model, "backbone": backbone},
                train=model.train,
            )
            for backbone in experiment.backbones
            for model in experiment.models
        )
        split = {} if experiment.cold_items is None else {"split": TRAINER_SPLIT}
        inherited = {name: value for name, value in self.pipeline.train.train.items() if name != "split"}
        update = {
            "variants": variants,
            "seeds": experiment.seeds,
            "train": {**inherited, **experiment.train, **split},  # a model that serves may see all; these are tested
            "keep_models": _KEEP_ALL,
            "retrain": RetrainConfig(new_events_share=0, max_age_days=0),  # all on the same data
        }
        return self.pipeline.train.model_copy(update=update)

    @cached_property
    def _evaluate(self) -> EvaluateConfig:
        update = {"ks": self.experiment.ks(), "baselines": self.experiment.baselines, "index": self.experiment.index}
        return EvaluateConfig.model_validate({**dict(self.pipeline.evaluate), **update})

    def _new_dataset(self) -> ExperimentDataset:
        parts = (self.store, self.pipeline.describe, self.pipeline.embed, self.pipeline.train.filters, self.folder)
        cold = self.experiment.cold_items
        return ExperimentDataset(*parts) if cold is None else DatasetWithoutColdItems(*parts, cold)

    def _train_stage(self, dataset: ExperimentDataset) -> TrainStage:
        pipeline = self.pipeline
        stage = ExperimentTrain(self._train, pipeline.describe, pipeline.embed, self.store, self.folder)
        stage.dataset = dataset
        return stage

    def _evaluate_stage(self) -> EvaluateStage:
        kind = ExperimentEvaluate if self.experiment.cold_items is None else EvaluateColdItems
        parts = (self._train, self.pipeline.describe, self.pipeline.embed, self.store, self.folder)
        stage = kind(self._evaluate, *parts)
        stage.dataset = self.dataset
        return stage


def _variant_name(backbone: str, model: str) -> str:
    return f"{backbone}-{model}"
