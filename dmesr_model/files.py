"""Files that are never seen half-written, also after a power cut: each is written beside its place and moved there.

What has an older file open or mapped keeps that one.
"""

import os
from pathlib import Path

import numpy as np


def replace_text(path: Path, text: str) -> None:
    """Write a text file."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
    move_whole(partial, path)


def replace_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, also of an array that is mapped from the file in its place."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    move_whole(partial, path)


def move_whole(partial: Path, path: Path) -> None:
    """Give a file, or a folder of files, its name once all of it is on the disk; a file takes another one's place."""
    if partial.is_dir():
        sync_folder(partial)
    else:
        _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the files in a folder, and their names, are on the disk."""
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
