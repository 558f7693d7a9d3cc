"""Item features as the model reads them: a table of unique text vectors, and for each item where its texts stand in it.

Two items whose texts are identical point at the same row, so "identical text" is equality of two integers. The table is
memory-mapped: a training step reads the rows of its own items, never the whole table.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmesr_model.files import replace_array, replace_text

PAD_INDEX = 0
"""The item_index that stands for "no item"; the item at position p of a features folder has item_index p + 1."""
ABSENT = -1
"""The table row that stands for "this item has no such text"."""

_TABLES = {"vectors_UE": np.float32, "coarse_index_NV": np.int32, "segment_index_NL": np.int32}
_ROWS_PER_BLOCK = 65_536


@dataclass(frozen=True)
class ItemFeatures:
    """What is known of N items before training.

    Args:
        item_ids: N distinct ids of the caller's; the item at position p has item_index p + 1.
        views: names of the V coarse views, in the order of the columns of `coarse_index_NV`.
        vectors_UE: float32, U unique text vectors of encoder width E; usually memory-mapped.
        coarse_index_NV: int32, the row of each view's vector, or ABSENT.
        segment_index_NL: int32, the rows of the item's own text segments in reading order, or ABSENT.
    """

    item_ids: tuple[str, ...]
    views: tuple[str, ...]
    vectors_UE: np.ndarray
    coarse_index_NV: np.ndarray
    segment_index_NL: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "item_ids", tuple(str(item_id) for item_id in self.item_ids))
        object.__setattr__(self, "views", tuple(self.views))
        _check_layout(self)

    @property
    def item_count(self) -> int:
        return len(self.item_ids)

    @property
    def encoder_width(self) -> int:
        return int(self.vectors_UE.shape[1])

    def save(self, folder: Path) -> None:
        """Write the folder, an existing one file by file; what is mapped keeps the bytes of before."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, dtype in _TABLES.items():
            replace_array(folder / f"{name}.npy", np.ascontiguousarray(getattr(self, name), dtype=dtype))
        replace_text(folder / "features.json", json.dumps({"views": self.views, "item_ids": self.item_ids}))

    @classmethod
    def open(cls, folder: Path) -> "ItemFeatures":
        """Map a folder that `save` wrote; reads the ids, and of the tables only what is asked for later."""
        about = json.loads((folder / "features.json").read_text())
        tables = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _TABLES}
        return cls(item_ids=tuple(about["item_ids"]), views=tuple(about["views"]), **tables)

    def select_views(self, views: tuple[str, ...]) -> np.ndarray:
        """The columns of the named views, int32 [N, len(views)]. Raises ValueError naming a view that is not there."""
        missing = [view for view in views if view not in self.views]
        if missing:
            raise ValueError(f"the features hold the views {self.views}, not {missing}; see ModelConfig.views")
        return np.asarray(self.coarse_index_NV)[:, [self.views.index(view) for view in views]]

    def check_finite(self) -> None:
        """Read the table once, in blocks. Raises ValueError naming the first item with a NaN or infinite vector."""
        for start, block_RE in self.read_blocks():
            finite = np.isfinite(block_RE).all(axis=1)
            if not finite.all():
                self.raise_not_finite(start + int(np.flatnonzero(~finite)[0]))

    def read_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """The table of text vectors a block of rows at a time, with the row that each starts at; few stay in memory.

        A mapped table is mapped anew, by its file's name.
        """
        for start in range(0, len(self.vectors_UE), _ROWS_PER_BLOCK):
            yield start, _map_block(self.vectors_UE, start)

    def raise_not_finite(self, row: int) -> None:
        """Raise the ValueError that names the item, and the source, of a table row with a NaN or infinite value."""
        for position, view in zip(*np.nonzero(np.asarray(self.coarse_index_NV) == row), strict=True):
            raise ValueError(_not_finite(self.item_ids[position], f"view {self.views[view]!r}"))
        for position, segment in zip(*np.nonzero(np.asarray(self.segment_index_NL) == row), strict=True):
            raise ValueError(_not_finite(self.item_ids[position], f"segment {segment}"))
        raise ValueError(f"row {row} of the text vectors, which no item uses, holds NaN or infinity; embed it again")


def _map_block(table_UE: np.ndarray, start: int) -> np.ndarray:
    """_ROWS_PER_BLOCK rows, mapped on their own, so that a scan does not leave the whole table in resident memory."""
    rows = min(_ROWS_PER_BLOCK, len(table_UE) - start)
    if not isinstance(table_UE, np.memmap) or table_UE.filename is None or not _is_whole_file(table_UE):
        return table_UE[start : start + rows]
    offset = table_UE.offset + start * table_UE.strides[0]
    return np.memmap(table_UE.filename, table_UE.dtype, "r", offset, (rows, table_UE.shape[1]))


def _is_whole_file(table_UE: np.memmap) -> bool:
    """A slice of a map keeps the offset of the whole, so that where it starts in the file is not known."""
    assert table_UE.filename is not None
    return table_UE.flags.c_contiguous and table_UE.offset + table_UE.nbytes == Path(table_UE.filename).stat().st_size


def _not_finite(item_id: str, source: str) -> str:
    return f"item {item_id!r}: the vector of its {source} holds NaN or infinity; embed that text again"


def _check_layout(features: ItemFeatures) -> None:
    item_count = len(features.item_ids)
    if len(set(features.item_ids)) != item_count:
        raise ValueError("item_ids holds an id twice; an item has one row")
    for name, dtype in _TABLES.items():
        _check_table(name, getattr(features, name), np.dtype(dtype))
    if features.coarse_index_NV.shape != (item_count, len(features.views)):
        raise ValueError(
            f"coarse_index_NV must be [{item_count}, {len(features.views)}], is {features.coarse_index_NV.shape}"
        )
    if len(features.segment_index_NL) != item_count:
        raise ValueError(f"segment_index_NL must be [{item_count}, L], is {features.segment_index_NL.shape}")
    for name in ("coarse_index_NV", "segment_index_NL"):
        index = getattr(features, name)
        if index.size and (index.min() < ABSENT or index.max() >= len(features.vectors_UE)):
            raise ValueError(f"{name} points outside the {len(features.vectors_UE)} rows of vectors_UE")


def _check_table(name: str, table: np.ndarray, dtype: np.dtype[Any]) -> None:
    """Vectors are read as they are; index tables may have integers of any width."""
    if not isinstance(table, np.ndarray):
        raise ValueError(f"{name} must be a NumPy array, is {type(table).__name__}; convert it with np.asarray")
    fits = table.dtype == dtype or (table.dtype.kind in "iu" and dtype.kind == "i")
    if table.ndim != 2 or not fits:
        raise ValueError(
            f"{name} must be {dtype} with two axes, is {table.dtype} {table.shape}; convert it with .astype('{dtype}')"
        )
