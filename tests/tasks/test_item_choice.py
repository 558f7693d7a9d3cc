"""The file of ids that limits a run."""

from pathlib import Path

import polars as pl
import pytest

from tasks.item_choice import chosen
from tasks.stage import StageError

ITEMS = pl.LazyFrame({"item_id": ["a", "b", "c d"]})


def written(folder: Path, text: str) -> Path:
    path = folder / "ids.txt"
    path.write_bytes(text.encode())
    return path


def test_the_items_named_are_chosen_and_all_without_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffb\r\n\n  c d \nb\n")
    assert chosen(ITEMS, path).collect()["item_id"].to_list() == ["b", "c d"]
    assert chosen(ITEMS, None).collect().height == 3


def test_ids_are_read_as_ingest_reads_them(tmp_path: Path) -> None:
    items = pl.LazyFrame({"item_id": ["12", "013"]})
    assert chosen(items, written(tmp_path, "12.0\n013\n")).collect().height == 2
    with pytest.raises(StageError, match=r"line 2: the id 'a.*control character"):
        chosen(items, written(tmp_path, "12\na\x00b\n"))


def test_a_line_separator_within_an_id_ends_no_line(tmp_path: Path) -> None:
    items = pl.LazyFrame({"item_id": ["a\u2028b", "c"]})
    assert chosen(items, written(tmp_path, "a\u2028b\n")).collect()["item_id"].to_list() == ["a\u2028b"]


def test_unknown_ids_are_named_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"ids\.txt: 2 of 3 ids .*line 2: x; line 4: B\)"):
        chosen(ITEMS, written(tmp_path, "a\nx\n\nB\n"))
    with pytest.raises(StageError, match=r"line 10: 9 and 10 more"):
        chosen(ITEMS, written(tmp_path, "\n".join(map(str, range(20)))))


@pytest.mark.parametrize(("text", "message"), [("", "holds no item id"), (" \n", "holds no item id")])
def test_a_file_without_ids_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=message):
        chosen(ITEMS, written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"none\.txt: can't be read"):
        chosen(ITEMS, tmp_path / "none.txt")
