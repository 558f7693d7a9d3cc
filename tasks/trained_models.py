"""Trained models on disk: what each is, where it is, what it was trained on, how its training went.

A model's folder is named by what decides it. It holds `about.json`, `job.json`, the trainer's checkpoints,
`progress.jsonl`, and, when it is finished, `summary.json` and `model/`.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from storage.folders import is_unfinished, write_whole
from tasks.features import DatasetKeys

_ABOUT = "about.json"
_SPLIT_THAT_HOLDS_OUT = "leave_one_out"


@dataclass(frozen=True)
class Training:
    """What a training started from: `about.json`, written before anything else and never changed.

    Args:
        configuration: as in ModelRef.
        features, sequences, encoder, views, events, items: as in DatasetKeys, when it started.
        started_at: UTC; a model's age counts from here, since this is when it last saw the store.
    """

    variant: str
    seed: int
    settings: dict[str, Any]
    configuration: str
    features: str
    sequences: str
    encoder: str
    views: list[str]
    events: int
    items: int
    started_at: str

    @property
    def data(self) -> list[str]:
        return [self.features, self.sequences]

    @property
    def start(self) -> datetime:
        return datetime.fromisoformat(self.started_at)

    def can_read(self, keys: DatasetKeys) -> bool:
        """Whether the present texts are vectors of the encoder, and of the views, that the model was trained on.

        A model of IDs alone reads none.
        """
        model = self.settings.get("model", {})
        views = self.views if model.get("views") is None else model["views"]
        if not views and not model.get("use_segments", True):
            return True
        return self.encoder == keys.encoder and set(views) <= set(keys.views)


@dataclass(frozen=True)
class ModelRef:
    """A trained model, or one that could be trained: what it is and where it is."""

    variant: str
    seed: int
    key: str
    folder: Path
    settings: Mapping[str, Any]  # {"model": ..., "train": ...} as the trainer reads them
    configuration: str  # digest of the trainer, the settings, and DatasetKeys.configuration: all but the data

    @property
    def name(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def short_key(self) -> str:
        """Return enough of the key for people; `dmesr promote` takes it."""
        return self.key[:10]

    @property
    def is_trained(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def trained_on_test_events(self) -> bool:
        """Whether its split kept no test events from it, so that what is measured on them says nothing."""
        return self.settings["train"].get("split", _SPLIT_THAT_HOLDS_OUT) != _SPLIT_THAT_HOLDS_OUT

    @property
    def checkpoint(self) -> Path:
        """Return the folder that DMESR.from_pretrained reads."""
        return self.folder / "model"

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def validation(self) -> float | None:
        """Return NDCG@10 on the validation events; None where it isn't trained or there were none."""
        return self.summary["validation_ndcg_at_10"] if self.is_trained else None

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """Return the records of the epochs that its training has ended; see dmesr_model.progress.ProgressRecord."""
        path = self.folder / "progress.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be being written
        return [record for record in records if record["epoch_ended"]]

    @cached_property
    def training(self) -> Training:
        """Return what its training started from. Raises FileNotFoundError where none has started."""
        return Training(**json.loads((self.folder / _ABOUT).read_text()))

    def record_start(self, keys: DatasetKeys, now: datetime) -> None:
        """Write `about.json`, unless a training that was interrupted has written it."""
        path = self.folder / _ABOUT
        if path.exists():
            return
        training = Training(
            variant=self.variant,
            seed=self.seed,
            settings=dict(self.settings),
            configuration=self.configuration,
            features=keys.features,
            sequences=keys.sequences,
            encoder=keys.encoder,
            views=list(keys.views),
            events=keys.events,
            items=keys.items,
            started_at=now.isoformat(),
        )
        write_whole(path, json.dumps(dataclasses.asdict(training), indent=2))


def models_on_disk(work_folder: Path) -> list[ModelRef]:
    """Return every model that is finished or was begun, newest first."""
    folders = [path.parent for path in (work_folder / "models").glob(f"*/{_ABOUT}")]
    found = [_model_in(folder) for folder in folders if not is_unfinished(folder)]
    return sorted(found, key=lambda model: (model.training.started_at, model.key), reverse=True)


def finished_models(work_folder: Path) -> list[ModelRef]:
    """Return every finished model, newest first."""
    return [model for model in models_on_disk(work_folder) if model.is_trained]


def _model_in(folder: Path) -> ModelRef:
    about = json.loads((folder / _ABOUT).read_text())
    return ModelRef(about["variant"], about["seed"], folder.name, folder, about["settings"], about["configuration"])
