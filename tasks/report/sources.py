"""What the report reads: the store and the folders of the present models, each opened when it is first asked for."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from dmesr_model.features import ItemFeatures
from storage.pictures import PictureStore
from storage.schemas import ITEM_ID, ITEMS, RECOMMENDATIONS
from storage.tables import Store
from tasks.audience import Audience
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluate import EvaluateConfig
from tasks.evaluation.content import unit_rows
from tasks.evaluation.results import Results
from tasks.evaluation.scorers import UnreadableModelError, load_model
from tasks.features import Dataset, open_features
from tasks.recommend import RecommendConfig, Recommending, audience_of, publication_key, recommending
from tasks.semantics import current_generations, current_segments
from tasks.train import TrainStageConfig, model_refs
from tasks.trained_models import ModelRef

if TYPE_CHECKING:
    from dmesr_model.model import DMESR

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """The configs of the stages before, and what they left."""

    evaluate: EvaluateConfig
    recommend: RecommendConfig
    train: TrainStageConfig
    describe: DescribeConfig
    embed: EmbedConfig
    store: Store
    work_folder: Path
    dataset: Dataset

    @cached_property
    def results(self) -> Results:
        return Results.present(self.store, self.evaluate, self.train, self.dataset.keys, self.work_folder)

    @cached_property
    def models(self) -> list[ModelRef]:
        """The trained ones."""
        refs = model_refs(self.train, self.dataset.keys, self.work_folder)
        return [model for model in refs if model.is_trained]

    @property
    def saw_test_events(self) -> list[str]:
        """Variants whose training kept no test events from them."""
        return list(dict.fromkeys(model.variant for model in self.models if model.trained_on_test_events))

    @cached_property
    def features(self) -> ItemFeatures:
        return open_features(self.dataset.features_folder())[0]

    @cached_property
    def audience(self) -> Audience:
        return audience_of(self.recommend, self.dataset)

    @cached_property
    def pictures(self) -> PictureStore:
        return PictureStore(self.store)

    @cached_property
    def generations(self) -> pl.LazyFrame:
        return current_generations(self.store, self.describe)

    @cached_property
    def segments(self) -> pl.LazyFrame:
        return current_segments(self.store, self.embed)

    @cached_property
    def recommending(self) -> Recommending:
        """What is published from the present models and data."""
        return recommending(self.recommend, self.train, self.dataset, self.store, self.work_folder)

    @property
    def present_recommendations(self) -> pl.LazyFrame:
        """The rows of the present publication."""
        key = publication_key(self.recommending, self.audience)
        return self.store.table(RECOMMENDATIONS).scan().filter(pl.col("recommendation_key") == key)

    @cached_property
    def recommending_model(self) -> ModelRef | None:
        """The model that recommends, if it is trained."""
        return self.recommending.model if self.recommending.model.is_trained else None

    @cached_property
    def model(self) -> "DMESR | None":
        """The model that recommends; None where none is trained, or this version can't load it."""
        if self.recommending_model is None:
            return None
        try:
            return load_model(self.recommending_model.checkpoint)
        except UnreadableModelError as error:
            logger.warning("the page leaves out what is read from the model: %s", error)
            return None

    @property
    def unreadable_model(self) -> ModelRef | None:
        """The model that recommends, where this version can't load it."""
        return self.recommending_model if self.model is None else None

    @cached_property
    def unit_items_ND(self) -> np.ndarray | None:
        """Item vectors of the recommending model, of length 1."""
        from dmesr_model.encoding import encode_items

        return None if self.model is None else unit_rows(encode_items(self.model, self.features))

    def items(self, item_ids: Iterable[str]) -> dict[str, dict[str, str | None]]:
        """Title, description, attributes and picture of these items, by id."""
        columns = (ITEM_ID, "title", "description", "attributes", "image_reference", "image_digest")
        wanted = pl.Series(sorted(set(item_ids)), dtype=pl.String)
        rows = self.store.table(ITEMS).scan().filter(pl.col(ITEM_ID).is_in(wanted.implode())).select(columns)
        return {row[ITEM_ID]: row for row in rows.collect().iter_rows(named=True)}
