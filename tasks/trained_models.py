"""Trained models on disk: what each is, where it is, how its training went."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelRef:
    """A trained model, or one that could be trained: what it is and where it is."""

    variant: str
    seed: int
    key: str
    folder: Path
    settings: Mapping[str, Any]  # {"model": ..., "train": ...} as the trainer reads them

    @property
    def is_trained(self) -> bool:
        return (self.folder / "summary.json").exists()

    @property
    def checkpoint(self) -> Path:
        """Return the folder that DMESR.from_pretrained reads."""
        return self.folder / "model"

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())


def progress_records(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a model's `progress.jsonl` so far; see dmesr_model.progress.ProgressRecord."""
    path = folder / "progress.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
