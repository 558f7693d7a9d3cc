"""Which tests begin first and stay together when several processes run the suite (`pytest -n 4`), and their threads."""

import os
from collections import Counter

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from flows.embedded_server import bypass_proxies

pytest_plugins = ["report_page"]

# Before torch and numba are imported, here and in every process that a test starts: as many threads as cores in each
# of several test processes wait for each other, and take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
bypass_proxies()  # tests talk to servers that they start

SHARED_NIGHT = "tests/flows/night/"  # its tests look at one night, and run on it again: one after another
# Minutes each, so they begin first, in this order. The last two want the night of the first, and wait until it is over.
LONG = (
    SHARED_NIGHT,
    "tests/tasks/engines/test_offline.py",
    "tests/dmesr_model/test_processes.py",
    "tests/flows/test_command_line.py",
    "tests/flows/test_embedded_server.py",
    "tests/dmesr_model/test_trainer.py",
    "tests/flows/deployments/",
    "tests/flows/test_kills.py",
)


class SharedFixtures(LoadScopeScheduling):
    """Keeps a file's tests in one process, and those of `SHARED_NIGHT` too: they share fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        return SHARED_NIGHT if nodeid.startswith(SHARED_NIGHT) else file_of(nodeid)


def file_of(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # in the order of pytest_collection_modifyitems
    return SharedFixtures(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, then those with many tests: what begins last decides when the run ends."""
    tests = Counter(file_of(item.nodeid) for item in items)

    def place(item: pytest.Item) -> tuple[int, int]:
        rank = next((rank for rank, path in enumerate(LONG) if item.nodeid.startswith(path)), len(LONG))
        return rank, -tests[file_of(item.nodeid)]

    items.sort(key=place)
