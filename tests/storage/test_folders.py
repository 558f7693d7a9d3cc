import errno
import os
from contextlib import nullcontext
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
    (tmp_path / "page.html.unfinished-dead").touch()
    for dead in tmp_path.glob("*-dead"):
        os.utime(dead, (0, 0))
    with whole_folder(tmp_path / "abc"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["abc", "abc.unfinished-alive"]


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "abc") as unfinished:
        (unfinished / "a.txt").write_text("late")
        (tmp_path / "abc").mkdir()
        (tmp_path / "abc" / "a.txt").write_text("first")
    assert (tmp_path / "abc" / "a.txt").read_text() == "first"


def test_a_writer_that_is_overtaken_in_its_last_step_leaves_the_others_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = Path.replace

    def overtaken(unfinished: Path, folder: Path) -> Path:
        folder.mkdir()
        (folder / "a.txt").write_text("first")
        return move(unfinished, folder)

    monkeypatch.setattr(Path, "replace", overtaken)
    with whole_folder(tmp_path / "abc") as unfinished:
        (unfinished / "a.txt").write_text("late")
    assert [(path.name, (path / "a.txt").read_text()) for path in tmp_path.iterdir()] == [("abc", "first")]


def test_all_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, move = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append(f"sync {_name_of(file)}"), sync(file)))
    monkeypatch.setattr(Path, "replace", lambda old, new: (steps.append(f"move {new.name}"), move(old, new)))
    with whole_folder(tmp_path / "abc") as unfinished:
        (unfinished / "below").mkdir()
        (unfinished / "below" / "a.txt").write_text("1")
    assert sorted(steps[:3]) == ["sync a.txt", "sync abc", "sync below"]
    assert steps[3:] == ["move abc", f"sync {tmp_path.name}"]
    steps.clear()
    write_whole(tmp_path / "page.html", "1")
    assert steps == ["sync page.html", "move page.html", f"sync {tmp_path.name}"]


@pytest.mark.parametrize(("code", "is_fatal"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_file_system_that_syncs_no_folder_is_taken_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_fatal: bool
) -> None:
    def sync(file: int) -> None:
        if Path(f"/proc/self/fd/{file}").is_dir():
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(OSError) if is_fatal else nullcontext():
        write_whole(tmp_path / "page.html", "1")
    assert (tmp_path / "page.html").read_text() == "1"


def _name_of(descriptor: int) -> str:
    return Path(f"/proc/self/fd/{descriptor}").readlink().name.partition(".unfinished")[0]


def test_nothing_takes_the_place_of_a_folder_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "page.html", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_write_whole_replaces(tmp_path: Path) -> None:
    write_whole(tmp_path / "new" / "page.html", "old")
    write_whole(tmp_path / "new" / "page.html", "é")
    assert (tmp_path / "new" / "page.html").read_text(encoding="utf-8") == "é"
    assert len(list((tmp_path / "new").iterdir())) == 1
