from datetime import UTC, date, datetime

import pytest

from tasks.ingest.cleaning import BadValueError
from tasks.ingest.timestamps import decide_unit, timestamp_of

# 881,250,949 s after 1970 is 1997-12-04 15:55:49 UTC: the first row of MovieLens 100K.
SECONDS = 881_250_949
MILLISECONDS = SECONDS * 1000


@pytest.mark.parametrize(
    "value, unit",
    [(SECONDS, "s"), (MILLISECONDS, "ms"), (MILLISECONDS * 1000, "us"), (MILLISECONDS * 10**6, "ns"), (17, "order")],
)
def test_the_unit_is_seen_by_magnitude(value, unit):
    assert decide_unit([value, None, "text"]) == unit
    assert decide_unit([str(value)]) == unit
    assert timestamp_of(value, unit) == (17 if unit == "order" else MILLISECONDS)


def test_one_odd_number_does_not_decide():
    assert decide_unit([0, SECONDS, SECONDS, MILLISECONDS]) == "s"


def test_stray_numbers_among_dates_are_refused_and_make_no_order():
    unit = decide_unit(["1997-12-04T15:55:49Z", "0", "", "1997-12-05", "0", date(1997, 12, 6)])
    assert unit == "iso"
    with pytest.raises(BadValueError, match="'0' is a number, neither ISO 8601 nor a day"):
        timestamp_of("0", unit)


@pytest.mark.parametrize(
    "text",
    [
        "1997-12-04T15:55:49Z",
        "1997-12-04 15:55:49",
        "1997-12-04T16:55:49+01:00",
        " 1997-12-04T15:55:49.000Z ",
        datetime(1997, 12, 4, 15, 55, 49),
        datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC),
        str(SECONDS),
        float(SECONDS),
        f"{SECONDS}.0",
    ],
)
def test_texts_and_moments(text):
    assert timestamp_of(text, "s") == MILLISECONDS


@pytest.mark.parametrize("days", [[19971203, 19971204], ["19971204", "19971231"], [19971204.0, None], [19971204, 0]])
def test_numbers_that_name_days_are_dates(days):
    assert decide_unit(days) == "iso"
    assert timestamp_of(type(days[0])(19971204), "iso") == timestamp_of("1997-12-04", "iso") == 881_193_600_000


def test_numbers_that_count_on_are_no_days():
    assert decide_unit(range(19971228, 19971304 + 100)) == "order"
    assert decide_unit([12340511, 12340512]) == "order"  # no year of a shop
    with pytest.raises(BadValueError, match="19971304 is a number, neither"):
        timestamp_of(19971304, "iso")


def test_dates_and_fractions():
    assert timestamp_of(date(1997, 12, 4), "s") == 881_193_600_000
    assert timestamp_of(SECONDS + 0.5, "s") == MILLISECONDS + 500
    assert decide_unit(["1997-12-04"]) == "iso"


@pytest.mark.parametrize(
    "value, unit, reason",
    [
        (None, "s", "missing_timestamp"),
        ("", "s", "missing_timestamp"),
        (float("nan"), "s", "missing_timestamp"),
        ("yesterday", "s", "bad_timestamp"),
        ("1997-13-45", "s", "bad_timestamp"),
        (True, "s", "bad_timestamp"),
        (SECONDS, "iso", "bad_timestamp"),
        (1.5, "order", "bad_timestamp"),
        (-1, "order", "bad_timestamp"),
        (2**63, "order", "bad_timestamp"),
        (MILLISECONDS, "s", "implausible_timestamp"),
        (SECONDS, "ms", "implausible_timestamp"),
        (0, "s", "implausible_timestamp"),
        (10**400, "s", "implausible_timestamp"),
        (10**400, "us", "implausible_timestamp"),
        (1e308, "s", "implausible_timestamp"),
        (1e308, "order", "bad_timestamp"),
        ("0001-01-01T00:00:00", "s", "implausible_timestamp"),
    ],
)
def test_refused(value, unit, reason):
    with pytest.raises(BadValueError) as error:
        timestamp_of(value, unit)
    assert error.value.reason == reason
