import pytest
from pydantic import ValidationError

from tasks.ingest.config import IngestConfig


def test_one_file_or_several():
    assert IngestConfig(catalog="a.csv").catalog == IngestConfig(catalog=["a.csv"]).catalog


@pytest.mark.parametrize(
    "settings, message",
    [
        ({}, "name the files"),
        ({"folder": "x", "catalog": "a.csv"}, "name one or the other"),
        ({"catalog": "a.csv", "colums": {}}, "Extra inputs"),
        ({"catalog": "a.csv", "max_reject_share": 2}, "less than or equal to 1"),
        ({"catalog": "a.csv", "pictures": {"schemes": ["ftp"]}}, "'http' or 'https'"),
        ({"catalog": "a.csv", "pictures": {"schemes": []}}, "at least 1 item"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValidationError, match=message):
        IngestConfig(**settings)
