"""Which tests stay together when the suite runs in several processes (`pytest -n 2`)."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["report_page"]

SHARED_NIGHT = "tests/flows/"  # tests of one small shop, whose night takes a minute to make


class SharedFixtures(LoadScopeScheduling):
    """Keeps a file's tests in one process, and those of `SHARED_NIGHT` too: they share fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return SHARED_NIGHT if file.startswith(SHARED_NIGHT) else file


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return SharedFixtures(config, log)
