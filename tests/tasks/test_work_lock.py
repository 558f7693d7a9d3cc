"""Two runs on one work folder, as two real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.stage import StageError
from tasks.work_lock import only_run

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from tasks.work_lock import only_run
with only_run(Path(sys.argv[1]), "the night from ingest on"):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_run_stops_with_the_name_of_the_first(holder, tmp_path: Path) -> None:
    said = rf"another run \(the night from ingest on, process {holder.pid} on .*, since .* UTC\) works in "
    with pytest.raises(StageError, match=said), only_run(tmp_path, "the stage embed", patience=0.2):
        pytest.fail("two runs at once")


def test_the_folder_is_free_when_its_holder_is_killed(holder, tmp_path: Path) -> None:
    holder.kill()
    with only_run(tmp_path, "the stage embed"):
        pass
    with only_run(tmp_path, "the stage train"):  # and when it ends well
        pass


def test_a_run_waits_a_little_for_one_that_ends(holder, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({holder.pid}, 9)"])
    with only_run(tmp_path, "the stage embed", patience=60):
        assert holder.wait() == -9
    ended.wait()
