import os
from pathlib import Path

import pytest

from storage.folders import whole_folder, write_whole


def test_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "made" / "abc"
    with whole_folder(target) as unfinished:
        (unfinished / "a.txt").write_text("1")
        assert not target.exists()
    assert (target / "a.txt").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["abc"]


def test_failed_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "abc") as unfinished:
        (unfinished / "a.txt").write_text("1")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_removed_a_day_later(tmp_path: Path) -> None:
    (tmp_path / "other.unfinished-dead").mkdir()
    (tmp_path / "abc.unfinished-alive").mkdir()
    os.utime(tmp_path / "other.unfinished-dead", (0, 0))
    with whole_folder(tmp_path / "abc"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abc", "abc.unfinished-alive"]


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "abc") as unfinished:
        (unfinished / "a.txt").write_text("late")
        (tmp_path / "abc").mkdir()
        (tmp_path / "abc" / "a.txt").write_text("first")
    assert (tmp_path / "abc" / "a.txt").read_text() == "first"


def test_write_whole_replaces(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "page.html", "old")
    write_whole(tmp_path / "new" / "page.html", "é")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == "é"
    assert len(list((tmp_path / "new").iterdir())) == 1
