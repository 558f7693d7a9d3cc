"""Files that are never seen half-written: each is written beside its place and moved there.

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
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def replace_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, also of an array that is mapped from the file in its place."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
