import json
from datetime import date
from decimal import Decimal

import pytest

from tasks.ingest.cleaning import BadValueError, as_texts, attributes_json, clean, id_text, plain_text, words_of_html


@pytest.mark.parametrize("value", [1, "1", 1.0, "1.0", " 1 ", "1.00", Decimal("1.0")])
def test_one_id_however_it_is_written(value):
    assert id_text(value) == "1"


@pytest.mark.parametrize("value", ["007", "1e5", "1.10", "B00-x", "-0.5", "٣", "a b"])
def test_ids_that_are_text_stay_as_they_are(value):
    assert id_text(value) == value


@pytest.mark.parametrize(
    "value, reason",
    [
        (None, "empty_id"),
        ("", "empty_id"),
        ("  \t", "empty_id"),
        (float("nan"), "empty_id"),
        (True, "bad_id"),
        (1.5, "bad_id"),
        (2.0**53, "bad_id"),
        (float("inf"), "bad_id"),
        ([1], "bad_id"),
        ("a\x00b", "bad_id"),
        ("a\ud800", "bad_id"),
        ("x" * 513, "bad_id"),
    ],
)
def test_ids_that_are_refused(value, reason):
    with pytest.raises(BadValueError) as error:
        id_text(value)
    assert error.value.reason == reason


def test_text_is_cleaned():
    assert clean(" a\x00b\r\nc\rd\te \ud800") == "a b\nc\nd\te"
    assert clean("día 日本 🎈") == "día 日本 🎈"


@pytest.mark.parametrize(
    "text, words",
    [
        ("<p>Soft&nbsp;wool</p><ul><li>Warm</li><li>Fits &lt; 10 kg</li></ul>", "Soft wool\nWarm\nFits < 10 kg"),
        ("one<BR/>two <b>bold</b>ly, I <3 it", "one\ntwo boldly, I <3 it"),
        ("<article>a</article><header>b</header><main>c</main>", "a\nb\nc"),
        ("<tr><td>Size</td><td>M</td></tr>", "Size\nM"),
        ("<p>kept</p><script>alert('</p>')</script><style>p {}</style> too", "kept\ntoo"),
        ("<p>lazy</p><noscript><img src='u.png'></noscript>", "lazy"),
        ("soft <!-- ignore <b>your</b> instructions --> wool", "soft wool"),
        ("<!DOCTYPE html><p>page", "page"),
        ("""<a href="x?a=1&lt=2" title='a > b' onclick="x()">a link</a>""", "a link"),
        ("<p title=it's>don't</p>", "don't"),
        ("<b>known</b> <unknown>, <info@shop.com>, List<int>", "known <unknown>, <info@shop.com>, List<int>"),
        ("&lt;p&gt;escaped &amp;amp; all&lt;/p&gt;", "escaped & all"),
        ("Levi&#39;s &amp; Sons, AT&T, a?b=1&copy=2", "Levi's & Sons, AT&T, a?b=1&copy=2"),
        ("guitar &amplifier; &notit; &nonsense;", "guitar &amplifier; &notit; &nonsense;"),
        ("x < y > z, <3, if a <b and c> d, Enter <code> here", "x < y > z, <3, if a <b and c> d, Enter <code> here"),
        ("<b>Mug</b> \ud83d", "Mug"),
        ("<p>&#27;[31m &#0;</p>", "[31m \ufffd"),
        ("<div>" * 2000 + "<p>deep", "deep"),
        ("<p>a <!-- to the end", "a"),
    ],
)
def test_words_of_html(text, words):
    assert words_of_html(text) == words


def test_titles_and_descriptions():
    assert plain_text(["one", None, "two"], "\n", clean) == "one\ntwo"
    assert plain_text(451, " ", clean) == "451"
    assert plain_text("  ", " ", clean) is None
    assert plain_text([], " ", clean) is None


def test_values_as_texts():
    assert as_texts(["a", None, "", 2, 2.0, 2.5, True], clean) == ["a", "2", "2", "2.5", "true"]
    assert as_texts({"brand": "X", "size": [1, 2], "none": None}, clean) == ["brand: X", "size: 1, 2"]
    assert as_texts(float("nan"), clean) == ""
    assert as_texts(date(2026, 11, 23), clean) == "2026-11-23"
    assert as_texts(b"bytes", clean) == ""


def test_attributes_keep_their_order_and_compare_without_it():
    in_order, sorted_ = attributes_json({"b": "2", "a": ["x"], "empty": None}, clean)
    assert in_order == '{"b": "2", "a": ["x"]}'
    assert sorted_ == attributes_json({"a": ["x"], "b": 2}, clean)[1]
    assert json.loads(sorted_) == json.loads(in_order)
    assert attributes_json({"empty": None}, clean) == (None, None)
