"""What an evaluation leaves in the work folder: everyone's rank, who was tested, and the slices they belong to.

From it every metric, interval and paired test follows without a search. Two evaluations can be compared user by user
if they are of the same test set: the same users and targets, the same items ranked, the same ones left out.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from storage.folders import whole_folder
from tasks.evaluation.measures import Measured, TestSet

_ABOUT, _SLICES = "about.json", "slices.npz"


def evaluation_folder(work_folder: Path, key: str) -> Path:
    """Return the folder that an evaluation key names."""
    return work_folder / "evaluations" / key


def experiments_folder(work_folder: Path) -> Path:
    """Return the work folder of the experiments on a pipeline's data."""
    return work_folder / "experiments"


def experiments_evaluations(work_folder: Path) -> list[str]:
    """Return the keys of what experiments have evaluated."""
    return [path.name for path in evaluation_folder(experiments_folder(work_folder), "").glob("*")]


def find_evaluation(work_folder: Path, key: str) -> "KeptEvaluation | None":
    """Return what is kept of an evaluation by the pipeline, or by an experiment on its data."""
    for folder in (work_folder, experiments_folder(work_folder)):
        kept = KeptEvaluation(evaluation_folder(folder, key))
        if kept.exists:
            return kept
    return None


@dataclass(frozen=True)
class KeptEvaluation:
    """The folder of one model's (or baseline's) evaluation, under its evaluation key."""

    folder: Path

    @property
    def exists(self) -> bool:
        return (self.folder / _SLICES).exists()

    @cached_property
    def test_set(self) -> str:
        """Digest of the test set; equal ones can be compared user by user."""
        return json.loads((self.folder / _ABOUT).read_text())["test_set"]

    @cached_property
    def slices(self) -> dict[str, np.ndarray]:
        """For each slice, which test users belong to it, bool [H]."""
        with np.load(self.folder / _SLICES, allow_pickle=False) as masks:
            return {name: masks[name] for name in masks.files}

    def ranks(self, protocol: str) -> np.ndarray | None:
        """The rank of each test user's target, int32 [H]; None where the protocol was not evaluated."""
        path = self.folder / f"{protocol}.npy"
        return np.load(path, allow_pickle=False) if path.exists() else None


def keep_evaluation(folder: Path, measured: Measured, test: TestSet, variant: str, seed: int) -> None:
    """Write the folder, whole or not at all; an existing one stays."""
    with whole_folder(folder) as unfinished:
        for protocol, ranks in measured.ranks.items():
            np.save(unfinished / f"{protocol}.npy", ranks)
        np.savez_compressed(unfinished / _SLICES, allow_pickle=False, **test.masks)
        about = {"variant": variant, "seed": seed, "test_set": test.digest}
        (unfinished / _ABOUT).write_text(json.dumps(about))
