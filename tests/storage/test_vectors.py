import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from storage.schemas import EMBEDDINGS
from storage.tables import SchemaError
from storage.vectors import vectors_from_frame, vectors_to_arrow


def embeddings_of(names: list[str], vectors: np.ndarray) -> pa.Table:
    columns = {field.name: pa.nulls(len(names), field.type) for field in EMBEDDINGS.arrow}
    columns |= {
        "text_digest": pa.array(names),
        "encoder_digest": pa.array(["e"] * len(names)),
        "vector": vectors_to_arrow(vectors),
    }
    return pa.table(columns)


def test_vectors_come_back_contiguous_and_in_order(store):
    vectors = np.random.default_rng(0).standard_normal((500, 7)).astype(np.float32)
    names = [f"{number:03d}" for number in range(500)]
    table = store.table(EMBEDDINGS)
    for start in range(0, 500, 200):
        table.append(embeddings_of(names[start : start + 200], vectors[start : start + 200]))
    frame = table.scan().select("text_digest", "vector").sort("text_digest", descending=True).collect()
    read = vectors_from_frame(frame)
    assert read.dtype == np.float32
    assert read.flags["C_CONTIGUOUS"]
    assert frame["text_digest"].to_list() == names[::-1]
    assert np.array_equal(read, vectors[::-1])


def test_no_rows():
    assert vectors_from_frame(pl.DataFrame({"vector": []}, schema={"vector": pl.List(pl.Float32)})).shape == (0, 0)


def test_a_slice_of_a_frame_is_only_that_slice():
    frame = pl.DataFrame({"vector": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}, schema={"vector": pl.List(pl.Float32)})
    assert vectors_from_frame(frame[1:]).tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert vectors_from_frame(frame.filter(pl.Series([True, False, True]))).tolist() == [[1.0, 2.0], [5.0, 6.0]]


@pytest.mark.parametrize("vectors", [[[1.0], [1.0, 2.0]], [[1.0], None]])
def test_rows_of_different_widths_are_refused(vectors):
    frame = pl.DataFrame({"vector": vectors}, schema={"vector": pl.List(pl.Float32)})
    with pytest.raises(SchemaError, match="each row needs the same width"):
        vectors_from_frame(frame)


def test_a_null_inside_a_vector_is_not_a_number():
    frame = pl.DataFrame({"vector": [[1.0, None]]}, schema={"vector": pl.List(pl.Float32)})
    assert np.isnan(vectors_from_frame(frame)[0, 1])


def test_vectors_that_are_not_contiguous_are_written_right():
    vectors = np.arange(12, dtype=np.float64).reshape(3, 4)[:, ::2]
    assert vectors_to_arrow(vectors).to_pylist() == [[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]]
