"""Folders that appear whole or not at all, named by the digest of what they hold."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_UNFINISHED = ".unfinished-"


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill beside `folder`; it takes that name when the block ends without an error.

    What a killed writer left behind is removed by the next one of the same folder. Where another writer was faster, its
    folder stays: folders named by digests hold the same.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f"{folder.name}{_UNFINISHED}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}{_UNFINISHED}{uuid.uuid4().hex[:8]}")
    unfinished.mkdir()
    try:
        yield unfinished
        if not folder.exists():
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}{_UNFINISHED}{os.getpid()}")
    unfinished.write_text(content, encoding="utf-8")
    unfinished.replace(path)
