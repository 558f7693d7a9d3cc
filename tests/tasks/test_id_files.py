from pathlib import Path

import pytest

from tasks.id_files import counted, numbered_lines, read_item_ids
from tasks.stage import StageError


def written(folder: Path, text: str) -> Path:
    path = folder / "ids.txt"
    path.write_bytes(text.encode())
    return path


def test_lines_are_numbered_as_an_editor_shows_them(tmp_path: Path) -> None:
    path = written(tmp_path, "\ufeffa\r\n\n  b c \n")
    assert list(numbered_lines(path, "")) == [(1, "a"), (3, "b c")]


def test_other_characters_that_break_lines_are_parts_of_an_id(tmp_path: Path) -> None:
    path = written(tmp_path, "A\u2028B\nC\u2029D\nA\u2028B\n")
    assert read_item_ids(path) == {"A\u2028B": 1, "C\u2029D": 2}
    with pytest.raises(StageError, match=r"ids\.txt: line 1: the id 'A\\x85B' holds a control character"):
        read_item_ids(written(tmp_path, "A\x85B\n"))


def test_the_first_five_ids_are_named() -> None:
    assert counted(["a"], "ids are unknown") == "1 ids are unknown (a)"
    assert counted([*"abcde"], "ids are unknown") == "5 ids are unknown (a, b, c, d, e)"
    assert counted([*"abcdef"], "ids are unknown") == "6 ids are unknown (a, b, c, d, e, …)"
