"""Folders that appear whole or not at all, named by the digest of what they hold."""

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_UNFINISHED = ".unfinished-"
_ABANDONED_SECONDS = 24 * 3600  # younger ones may belong to a writer at work


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill beside `folder`; it takes that name when the block ends without an error.

    What a killed writer left behind is removed a day later, by the next one beside it. Where another writer was faster,
    its folder stays: folders named by digests hold the same.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f"*{_UNFINISHED}*"):
        with suppress(FileNotFoundError):  # another writer clears up, too
            if time.time() - left_over.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left_over, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}{_UNFINISHED}{uuid.uuid4().hex[:8]}")
    unfinished.mkdir()
    try:
        yield unfinished
        if not folder.exists():
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_unfinished(folder: Path) -> bool:
    """Whether a writer is still at work on this folder, or was killed at it."""
    return _UNFINISHED in folder.name


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}{_UNFINISHED}{uuid.uuid4().hex[:8]}")
    unfinished.write_text(content, encoding="utf-8")
    unfinished.replace(path)
