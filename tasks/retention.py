"""What of the work folder is kept: the models needed and the newest others, and the data that training reads."""

import logging
import shutil
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

from storage.folders import is_unfinished
from tasks.features import DatasetKeys
from tasks.trained_models import models_on_disk

logger = logging.getLogger(__name__)

_DROPPED = "dropped-"


def old_models(work_folder: Path, keep: int, needed: Collection[str]) -> list[Path]:
    """Return the folders of models beyond the `needed` ones (by key) and the newest `keep` others."""
    others = [model for model in models_on_disk(work_folder) if model.key not in needed]
    return [model.folder for model in others[keep:]]


def drop_old_models(work_folder: Path, keep: int, needed: Collection[str]) -> int:
    """Delete them; return how many."""
    folders = old_models(work_folder, keep, needed)
    for folder in folders:
        logger.info("deleting the old model %s", folder)
        drop_folder(folder)
    return len(folders)


def unused_data(work_folder: Path, keys: DatasetKeys) -> Iterator[Path]:
    """Yield folders of features and sequences of other data than the present ones and those of unfinished trainings.

    A finished model needs none: it encodes the present items.
    """
    begun = [model.training for model in models_on_disk(work_folder) if not model.is_trained]
    needed = {
        "features": {keys.features, *(training.features for training in begun)},
        "sequences": {keys.sequences, keys.histories, *(training.sequences for training in begun)},
    }
    for kind, names in needed.items():
        for folder in folders_in(work_folder / kind):
            if folder.name not in names and not is_unfinished(folder):
                yield folder


def drop_unused_data(work_folder: Path, keys: DatasetKeys) -> int:
    """Delete them; return how many."""
    folders = list(unused_data(work_folder, keys))
    for folder in folders:
        drop_folder(folder)
    return len(folders)


def folders_in(parent: Path) -> list[Path]:
    """The folders under `parent`, none where it isn't there; a stray file, such as .DS_Store, is none."""
    return [path for path in parent.glob("*") if path.is_dir()]


def drop_folder(folder: Path) -> None:
    """Delete a folder that is gone at once for whoever looks.

    A kill in between leaves it aside under a name that says so; the next one beside it that is dropped clears it away.
    """
    for left_over in folder.parent.glob(f"*{_DROPPED}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    if folder.is_symlink():  # what was moved elsewhere is not ours to delete
        folder.unlink()
        return
    aside = folder.with_name(f"{folder.name}.unfinished-{_DROPPED}{uuid.uuid4().hex[:8]}")
    folder.rename(aside)
    shutil.rmtree(aside)
