"""Timestamps as delivered, made milliseconds since 1970-01-01 UTC or, where only the order is known, order numbers."""

import math
import statistics
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal

from tasks.ingest.cleaning import BadValueError
from tasks.ingest.config import TimestampUnit

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

# Below these magnitudes a number is taken for an order number, seconds, milliseconds, microseconds; above, nanoseconds.
# As times they lie in 1973: no log of a shop is older.
_MAGNITUDES: tuple[tuple[float, TimestampUnit], ...] = ((1e8, "order"), (1e11, "s"), (1e14, "ms"), (1e17, "us"))

_EARLIEST = int(datetime(1980, 1, 1, tzinfo=UTC).timestamp() * 1000)
_LATEST = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp() * 1000)
_LARGEST_ORDER = 2**62


def decide_unit(values: Iterable[object]) -> TimestampUnit:
    """Return the unit of a file's first timestamps, by the median of its numbers; `iso` where most are dates.

    What is no number in a log of numbers is refused row by row later, and so is a number among dates. A number that
    names a day, as 20260228, is a date: of numbers that count on, few do.
    """
    given = [value for value in values if value is not None and str(value).strip()]
    numbers = [number for value in given if (number := _number(value)) is not None]
    days = sum(_calendar_day(number) is not None for number in numbers)
    if len(numbers) - days <= days + sum(map(_is_date, given)):
        return "iso"
    middle = abs(statistics.median_low(numbers))
    return next((unit for bound, unit in _MAGNITUDES if middle < bound), "ns")


def timestamp_of(value: object, unit: TimestampUnit) -> int:
    """Return a timestamp in milliseconds, or the order number.

    Raises BadValueError of reason `missing_timestamp`, `bad_timestamp` or `implausible_timestamp`.
    """
    number = _number(value)
    if number is None:
        return _plausible(_from_text(value), value, unit)
    if unit == "iso":
        if day := _calendar_day(number):
            return _plausible(_from_text(day), value, unit)
        detail = (
            f"{value!r} is a number, neither ISO 8601 nor a day as 20260228; correct it, or set ingest.timestamp_unit"
        )
        raise BadValueError("bad_timestamp", detail)
    if unit == "order":
        if number != int(number) or not 0 <= number < _LARGEST_ORDER:
            raise BadValueError("bad_timestamp", f"{value!r} is no order number (0, 1, 2, …)")
        return int(number)
    per_second = _PER_SECOND[unit]
    if isinstance(number, int) or abs(number) >= _LARGEST_ORDER:
        return _plausible(int(number) * 1000 // per_second, value, unit)
    return _plausible(math.floor(number * (1000 / per_second)), value, unit)


def _plausible(milliseconds: int, value: object, unit: str) -> int:
    if not _EARLIEST <= milliseconds < _LATEST:
        detail = f"{value!r} in {unit} is no time from 1980 to 2199; check the row, or set ingest.timestamp_unit"
        raise BadValueError("implausible_timestamp", detail)
    return milliseconds


def _calendar_day(number: float) -> date | None:
    """The day, from 1980 to 2199, that a number names by its year, month and day."""
    if number != int(number) or not 1980_00_00 <= number < 2200_00_00:
        return None
    year, month_day = divmod(int(number), 10_000)
    try:
        return date(year, *divmod(month_day, 100))
    except ValueError:
        return None


def _is_date(value: object) -> bool:
    try:
        _from_text(value)
    except BadValueError:
        return False
    return _number(value) is None


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str):
        return None
    try:
        return int(value)
    except ValueError:
        pass
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _from_text(value: object) -> int:
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
    elif value is None or isinstance(value, float) or (isinstance(value, str) and not value.strip()):
        raise BadValueError("missing_timestamp", "the row has no timestamp; an event without one has no place in order")
    else:
        moment = _parsed(str(value))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return math.floor(moment.timestamp() * 1000)


def _parsed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError as error:
        detail = f"{text[:40]!r} is neither a number nor ISO 8601 (2026-11-23T16:30:00Z)"
        raise BadValueError("bad_timestamp", detail) from error
