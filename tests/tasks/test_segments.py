"""An item's own text in segments."""

from unittest.mock import Mock

import pytest
import sentencex

from tasks.segments import Segment, SegmentConfig, segments_of, shorten

ATTRIBUTES = '{"Brand": "Norvel", "Colour": ["red", "blue"], "Empty": "", "Nothing": null, "Year": 2020}'


def texts(*args: str | None, **settings: object) -> list[str]:
    title, description, attributes = args
    return [piece.text for piece in segments_of(title, description, attributes, SegmentConfig(**settings))]


def test_title_then_attributes_then_sentences() -> None:
    assert segments_of("Mug", "Blue. Round.", '{"Brand": "Norvel"}', SegmentConfig()) == [
        Segment("title", "Mug"),
        Segment("attribute", "Brand: Norvel"),
        Segment("sentence", "Blue."),
        Segment("sentence", "Round."),
    ]


def test_lists_are_joined_and_empty_values_left_out() -> None:
    assert texts(None, None, ATTRIBUTES) == ["Brand: Norvel", "Colour: red, blue", "Year: 2020"]


def test_attributes_can_be_named_and_their_number_is_bounded() -> None:
    assert texts(None, None, ATTRIBUTES, attributes=("Year", "Brand", "Unknown")) == ["Year: 2020", "Brand: Norvel"]
    assert texts("Mug", "Blue.", ATTRIBUTES, max_attributes=1) == ["Mug", "Brand: Norvel", "Blue."]


def test_an_attribute_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="one stands there twice, and would be two segments"):
        SegmentConfig(attributes=("Year", "Brand", "Year"))


def test_no_more_than_l_segments_the_last_sentences_go() -> None:
    assert texts("Mug", "One. Two. Three.", None, max_segments=3) == ["Mug", "One.", "Two."]


@pytest.mark.parametrize(
    ("description", "sentences"),
    [
        ("It costs 3.50 dollars at Dr. Smith's. Really!", ["It costs 3.50 dollars at Dr. Smith's.", "Really!"]),
        ("A line that\nwraps. End\n\nNext paragraph", ["A line that wraps.", "End", "Next paragraph"]),
        ("这是杯子。它是蓝色的。", ["这是杯子。", "它是蓝色的。"]),
        ("यह मग है। यह नीला है।", ["यह मग है।", "यह नीला है।"]),
        ("  \n ", []),
        ("With Vitamin C\u00a0. For all skin types.", ["With Vitamin C .", "For all skin types."]),
        ("Taille M\u202f! Livraison\u3000rapide.", ["Taille M !", "Livraison rapide."]),
    ],
)
def test_sentences_of_any_language(description: str, sentences: list[str]) -> None:
    assert texts(None, description, None) == sentences


@pytest.mark.parametrize("language", ["en", "fr", "de", "ru"])
@pytest.mark.parametrize("space", ["\u00a0", "\u1680", "\u2003", "\u2028", "\u202f", "\u3000"])
def test_no_kind_of_space_stops_the_splitter(language: str, space: str) -> None:
    description = f"Size B{space}. Plan 5{space}... Grade A{space}!{space}No{space}. É{space}."
    assert "".join("".join(texts(None, description, None, language=language)).split()) == "".join(description.split())


def test_what_the_splitter_panics_on_is_cut_at_line_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseException, match="char boundary") as panic:
        sentencex.segment("en", "Vitamin C\u00a0. For all.")  # if this passes, `_ODD_SPACE` may go
    panics = Mock(side_effect=panic.value)
    monkeypatch.setattr(sentencex, "segment", panics)
    assert texts(None, "One. Two.\nThree.", None) == ["One. Two.", "Three."]


def test_a_long_sentence_ends_at_a_whole_word() -> None:
    assert shorten("a long  sentence\nindeed", 100) == "a long sentence indeed"
    assert shorten("a long sentence", 8) == "a long"
    assert shorten("a long", 6) == "a long"
    assert shorten("indivisible", 5) == "indiv"


def test_nothing_gives_no_segments() -> None:
    assert texts(None, None, None) == []
    assert texts(" ", "", "{}") == []
