import math

import pytest

from storage.digests import digest_of, digest_of_bytes, digest_of_text, digests_of_rows, event_digest


def test_digests_are_the_same_everywhere():
    # blake2b of "" with 16 bytes, from Python's hashlib and b2sum -l 128.
    assert digest_of_bytes(b"") == "cae66941d9efbd404e4d88758ea67670"
    assert digest_of_text("") == digest_of_bytes(b"")
    assert digest_of_text("é") == digest_of_bytes(b"\xc3\xa9")
    assert len(digest_of_text("\ud800")) == 32


def test_values_that_are_equal_as_json():
    assert digest_of({"a": 1, "b": [True, None]}) == digest_of({"b": [True, None], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": "1"})
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError):
            digest_of({"a": value})
    with pytest.raises(TypeError):
        digest_of({"a": b"bytes"})


def test_rows_are_told_apart():
    rows = [("ab", "c"), ("a", "bc"), ("abc", None), ("abc", ""), (None, "abc")]
    digests = digests_of_rows("p", rows)
    assert len(set(digests)) == len(rows)
    assert digests_of_rows("p", rows) == digests
    assert not set(digests) & set(digests_of_rows("q", rows))


def test_events_are_told_apart():
    digests = {event_digest("ab", "c", 1), event_digest("a", "bc", 1), event_digest("ab", "c", 2)}
    assert len(digests) == 3
    assert all(-(2**63) <= digest < 2**63 for digest in digests)
