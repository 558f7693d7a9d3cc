"""Which tests stay together when the suite runs in several processes (`pytest -n 3`), and with how many threads."""

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["report_page"]

# Before torch and numba are imported, here and in every process that a test starts: as many threads as cores in each
# of several test processes wait for each other, and take several times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_NIGHT = "tests/flows/night/"  # tests of one small shop, whose night takes minutes to make


class SharedFixtures(LoadScopeScheduling):
    """Keeps a file's tests in one process, and those of `SHARED_NIGHT` too: they share fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return SHARED_NIGHT if file.startswith(SHARED_NIGHT) else file


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return SharedFixtures(config, log)
