"""Folders and files that appear whole or not at all, also after a power cut."""

import errno
import os
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
    unfinished = _place_beside(folder)
    unfinished.mkdir()
    try:
        yield unfinished
        _move(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def is_unfinished(folder: Path) -> bool:
    """Whether a writer is still at work on this folder, or was killed at it."""
    return _UNFINISHED in folder.name


def write_whole(path: Path, content: str) -> None:
    """Write a text file so that a reader sees the old content or the new, never half of it."""
    unfinished = _place_beside(path)
    try:
        unfinished.write_text(content, encoding="utf-8")
        _move(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _place_beside(path: Path) -> Path:
    """Return an unused place for what is to become `path`, without what killed writers left beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left_over in path.parent.glob(f"*{_UNFINISHED}*"):
        with suppress(OSError):  # another writer clears up, too, or it is another user's
            if time.time() - left_over.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
    return path.with_name(f"{path.name}{_UNFINISHED}{uuid.uuid4().hex[:8]}")


def _move(unfinished: Path, path: Path) -> None:
    """Give what is written its name once all of it is on the disk; a folder that has the name by then stays."""
    for part in unfinished.rglob("*"):
        _sync(part)
    _sync(unfinished)
    try:
        unfinished.replace(path)
    except OSError:
        if not (unfinished.is_dir() and path.is_dir()):
            raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folder
            raise
    finally:
        os.close(descriptor)
