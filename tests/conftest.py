"""Which tests stay together when the suite runs in several processes (`pytest -n 2 --dist loadgroup`)."""

import pytest

SHARED_NIGHT = "flows"  # tests of one small shop, whose night takes a minute to make


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests in one process, and those of `tests/flows` too: they share fixtures."""
    for item in items:
        path = item.path.relative_to(item.config.rootpath)
        together = SHARED_NIGHT if SHARED_NIGHT in path.parts else str(path)
        item.add_marker(pytest.mark.xdist_group(together))
