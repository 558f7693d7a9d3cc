"""Promote: the model chosen for service serves, unless it is significantly worse than the one that serves now.

Both were evaluated on the same present split; a paired test over its users decides. Each model is judged once: one that
was refused, or that a person replaced, does not come back by itself. One that served before is judged again where the
config comes back to it. A person's choice is in tasks/serving.py.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from dmesr_model.metrics import ndcg_at_k
from storage.digests import digest_of
from storage.schemas import METRICS, PROMOTIONS, TableSchema
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluate import EvaluateConfig, candidate_of, ranks_folder
from tasks.evaluation.kept import KeptEvaluation
from tasks.evaluation.measures import FULL
from tasks.evaluation.scorers import UnreadableModelError, load_model
from tasks.evaluation.significance import Comparison, paired_t_test
from tasks.features import Dataset
from tasks.recommend import RecommendConfig, chosen_model
from tasks.serving import BY_HAND, Serving, decisions, record_decision, serving_model
from tasks.stage import Outcome, Plan, Progress, ReportProgress, StageError
from tasks.train import TrainStageConfig
from tasks.trained_models import ModelRef

logger = logging.getLogger(__name__)


class PromoteConfig(BaseModel):
    """When a new model may take the place of the one that serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="refuse a new model whose NDCG@10 is lower with a two-sided p-value below this. A higher level "
        "refuses more: 0.05 lets a model pass that may be as good, since it knows newer events",
    )


@dataclass(frozen=True)
class Decision:
    """Whether the new model serves, why, and the comparison where there was one."""

    promoted: bool
    reason: str
    comparison: Comparison | None = None
    users: int | None = None


def decide(serving_gain_U: np.ndarray, new_gain_U: np.ndarray, level: float) -> Decision:
    """Judge a new model by NDCG@10 of each test user, the same users in the same order."""
    users = len(new_gain_U)
    comparison = paired_t_test(serving_gain_U, new_gain_U)
    if comparison is None:
        return Decision(True, "too few test users, or all with the same difference, to tell", users=users)
    if comparison.difference < 0 and comparison.p_value < level:
        return Decision(False, "significantly worse", comparison, users)
    return Decision(True, "not significantly worse", comparison, users)


class PromoteStage:
    """One unit of work is the model chosen for service."""

    name: ClassVar[str] = "promote"
    reads: ClassVar[tuple[TableSchema, ...]] = (METRICS,)
    writes: ClassVar[tuple[TableSchema, ...]] = (PROMOTIONS,)
    isolated: ClassVar[bool] = False

    def __init__(
        self,
        config: PromoteConfig,
        evaluate: EvaluateConfig,
        recommend: RecommendConfig,
        train: TrainStageConfig,
        describe: DescribeConfig,
        embed: EmbedConfig,
        store: Store,
        work_folder: Path,
    ) -> None:
        self.config = config
        self.evaluate = evaluate
        self.recommend = recommend
        self.train = train
        self.store = store
        self.work_folder = work_folder
        self.dataset = Dataset(store, describe, embed, train.filters, work_folder)

    @property
    def config_digest(self) -> str:
        parts = (self.config, self.evaluate, self.recommend, self.train)
        return digest_of([part.model_dump(mode="json") for part in parts])

    def plan(self) -> Plan:
        self.dataset = self.dataset.as_it_is_now()
        model, serving = self._chosen(), self._serving()
        note = self._why_not(model, serving)
        if note is None:
            against = "nothing serves yet" if serving is None else f"against {_name(serving.model)}, which serves"
            note = f"{_name(model)}: {against}" + ("" if model.is_trained else "; to be trained first")
            return Plan(self.name, "models", new=1, notes=(note,), work=pl.DataFrame({"key": [model.key]}))
        return Plan(self.name, "models", up_to_date=1, notes=(note,))

    def run(self, plan: Plan, run_id: str, report: ReportProgress) -> Outcome:
        model, serving = self._chosen(), self._serving()
        if not model.is_trained:
            raise StageError(f"{model.name}, is not trained: run train first")
        decision = self._decide(model, serving)
        before = None if serving is None else serving.model.key
        record_decision(
            self.store,
            model,
            before,
            run_id,
            promoted=decision.promoted,
            pinned=False,
            reason=decision.reason,
            comparison=decision.comparison,
            level=self.config.level,
            users=decision.users,
        )
        sentence = _sentence(model, serving, decision)
        logger.info(sentence)
        report(Progress(1, 1, "models", 1.0))
        return Outcome({"done": 1, "promoted": int(decision.promoted)}, {"decision": sentence})

    def _chosen(self) -> ModelRef:
        return chosen_model(self.recommend, self.train, self.dataset.keys, self.work_folder)

    def _serving(self) -> Serving | None:
        return serving_model(self.store, self.dataset.keys, self.work_folder)

    def _why_not(self, model: ModelRef, serving: Serving | None) -> str | None:
        """Return why there is nothing to judge; None: there is."""
        if serving is None:
            return None
        if model.key == serving.model.key:
            return f"{_name(model)} serves"
        if serving.pinned:
            return f"{_name(serving.model)} serves, pinned by hand: release it with `dmesr promote MODEL`"
        if self._named_by_config(serving):
            return None
        judged = decisions(self.store).filter(pl.col("model") == model.key)
        if judged.height and (serving.reason == BY_HAND or not judged["promoted"][-1]):
            return f"{_name(serving.model)} serves; {_name(model)} was judged before: {judged['reason'][-1]}"
        return None

    def _named_by_config(self, serving: Serving) -> bool:
        """Whether recommend.variant or recommend.seed name another model than the one that serves."""
        wanted = (self.recommend.variant, self.recommend.seed)
        is_other = any(given not in (None, has) for given, has in zip(wanted, _identity(serving.model), strict=True))
        return is_other and serving.reason != BY_HAND

    def _decide(self, model: ModelRef, serving: Serving | None) -> Decision:
        if serving is None:
            return Decision(True, "nothing to compare with: no model serves that can read the present texts")
        unfair = [_name(each) for each in (model, serving.model) if each.trained_on_test_events]
        if unfair:
            return Decision(True, f"not comparable: {' and '.join(unfair)} trained on test events, too")
        gain_U, serving_gain_U = self._gains(model), self._gains(serving.model)
        if gain_U is None or (serving_gain_U is None and _can_be_loaded(serving.model)):
            missing = model if gain_U is None else serving.model
            raise StageError(f"{_name(missing)} is not evaluated on the present data: run evaluate first")
        if serving_gain_U is None:
            return Decision(True, f"nothing to compare with: {_name(serving.model)} can't be loaded by this version")
        decision = decide(serving_gain_U, gain_U, self.config.level)
        if not decision.promoted and self._named_by_config(serving):
            return Decision(True, f"named by the config, though {decision.reason}", decision.comparison, decision.users)
        return decision

    def _gains(self, model: ModelRef) -> np.ndarray | None:
        """NDCG@10 of each test user of the present split; None where the model is not evaluated on it."""
        kept = KeptEvaluation(ranks_folder(self.work_folder, candidate_of(self.evaluate, model, self.dataset.keys)))
        ranks = kept.ranks(FULL)
        return None if ranks is None else ndcg_at_k(ranks, 10)


def _can_be_loaded(model: ModelRef) -> bool:
    try:
        load_model(model.checkpoint)
    except UnreadableModelError:
        return False
    return True


def _identity(model: ModelRef) -> tuple[str, int]:
    return model.variant, model.seed


def _name(model: ModelRef) -> str:
    return f"{model.name} ({model.short_key})"


def _sentence(model: ModelRef, serving: Serving | None, decision: Decision) -> str:
    verdict = "promoted" if decision.promoted else "refused"
    text = f"{_name(model)} {verdict}: {decision.reason}"
    if serving and decision.comparison:
        found = decision.comparison
        text += (
            f"; ndcg@10 {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}], p = {found.p_value:.2g}, "
            f"against {_name(serving.model)} on {decision.users:,} users"
        )
    return text
