"""A disk that is full and a store that is read-only: an error with its remedy, and what was committed stays."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from storage.pictures import PictureStore
from storage.schemas import INTERACTIONS
from storage.tables import Store, StoreError

REMEDY = r"can't be written: .*Check free space and permissions, then run the stage again: what was committed stays"


def events_of(start: int, count: int) -> pl.DataFrame:
    """Events that compress badly: 16 random bytes each, in hexadecimal."""
    return pl.DataFrame({"event_digest": range(start, start + count)}).with_columns(
        user_id=pl.Series([os.urandom(16).hex() for _ in range(count)]),
        item_id=pl.lit("i"),
        timestamp=pl.lit(0),
        file_order=pl.lit(0),
        created_at=pl.lit(None, pl.Datetime("us", "UTC")),
        run_id=pl.lit("r"),
    )


def mount(folder: Path, *options: str) -> None:
    answer = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if answer.returncode:
        pytest.skip(f"needs a small disk, and mounting one is not allowed here: {answer.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("needs a small disk, which only root may mount: run this file as root, in a container for instance")
    mount(tmp_path, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("write", ["append", "upsert"])
def test_a_full_disk(small_disk, write):
    table = Store(small_disk).table(INTERACTIONS)
    table.append(events_of(0, 100))
    with pytest.raises(StoreError, match=f"table interactions at .*{REMEDY}"):
        getattr(table, write)(events_of(100, 60_000))
    assert table.count() == 100
    getattr(table, write)(events_of(100, 100))  # what didn't fit takes no space
    assert table.count() == 200


def test_a_picture_on_a_full_disk(small_disk):
    pictures = PictureStore(Store(small_disk))
    reference, _ = pictures.save(b"small")
    with pytest.raises(StoreError, match=f"picture pictures/.*{REMEDY}"):
        pictures.save(os.urandom(2**21))
    assert pictures.read(reference) == b"small"
    assert [path.name for path in small_disk.rglob(".*")] == []  # no half picture is left


@pytest.mark.parametrize("write", ["append", "upsert"])
def test_a_read_only_store(small_disk, write):
    table = Store(small_disk).table(INTERACTIONS)
    table.append(events_of(0, 100))
    mount(small_disk, "-o", "remount,ro")
    with pytest.raises(StoreError, match=REMEDY):
        getattr(table, write)(events_of(100, 10))
    with pytest.raises(StoreError, match=REMEDY):
        PictureStore(Store(small_disk)).save(b"small")
    with pytest.raises(StoreError, match=REMEDY):
        Store(small_disk / "another").table(INTERACTIONS).append(events_of(0, 1))
    assert table.count() == 100


LIMITED = """
import resource, sys
from pathlib import Path
import polars as pl
from storage.schemas import INTERACTIONS
from storage.tables import Store, StoreError

rows = pl.read_parquet(sys.argv[2])
table = Store(Path(sys.argv[1])).table(INTERACTIONS)
table.append(rows.head(100))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    table.append(rows.tail(-100))
except StoreError as error:
    print(error)
"""


def test_a_file_that_may_not_grow(tmp_path):
    """Without the right to mount: a limit on the size of files fails in the same place as a full disk."""
    events_of(0, 5000).write_parquet(tmp_path / "events.parquet")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "store"), str(tmp_path / "events.parquet")]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "table interactions" in answer.stdout, answer.stderr
    assert "Check free space and permissions" in answer.stdout
    assert Store(tmp_path / "store").table(INTERACTIONS).count() == 100
