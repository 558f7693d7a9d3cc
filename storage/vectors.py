"""Vectors between Arrow lists and NumPy, without a Python loop over rows."""

import numpy as np
import polars as pl
import pyarrow as pa

from storage.schemas import VECTOR
from storage.tables import SchemaError


def vectors_from_frame(frame: pl.DataFrame) -> np.ndarray:
    """Return the vectors as one contiguous float32 array of shape (rows, width).

    Raises SchemaError if a row is null or the rows differ in width.
    """
    if frame.height == 0:
        return np.zeros((0, 0), dtype=np.float32)
    widths = frame[VECTOR].list.len()
    distinct = sorted(set(widths.unique().to_list()), key=str)
    if len(distinct) != 1 or None in distinct:
        raise SchemaError(f"column {VECTOR}: vectors of widths {distinct} in one read; each row needs the same width")
    flat = frame[VECTOR].explode(empty_as_null=False).to_numpy()
    return np.ascontiguousarray(flat, dtype=np.float32).reshape(frame.height, -1)


def vectors_to_arrow(vectors_ND: np.ndarray) -> pa.ListArray:
    """Return a float array of shape (rows, width) as a list<float> column."""
    rows, width = vectors_ND.shape
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    values = pa.array(np.ascontiguousarray(vectors_ND, dtype=np.float32).ravel())
    return pa.ListArray.from_arrays(offsets, values)
