"""Right answers: order, brevity, articles, and silence about what is not known."""

from dataclasses import replace

from sample_shop.attributes import FIELDS, OCCASIONS, Facts, Look, Product
from sample_shop.tiny_vlm.answers import UNKNOWN, claims, contains_words, field_words, right_answer

UMBRELLA = Product(
    Look("umbrella", "orange", "striped", "black"), Facts("nylon", "Norvel", "travel", "wipe-clean", "compact")
)


def test_fields_after_the_kind_follow_the_noun() -> None:
    asked = ("kind", "main colour", "pattern", "accent colour")
    expected = "An umbrella in orange, with a striped pattern, with black accents."
    assert right_answer(UMBRELLA, asked, FIELDS, "image") == expected


def test_fields_before_the_kind_stand_before_the_noun() -> None:
    asked = ("main colour", "pattern", "kind", "accent colour")
    assert right_answer(UMBRELLA, asked, FIELDS, "image") == "An orange striped umbrella with black accents."
    assert right_answer(UMBRELLA, ("accent colour", "kind"), FIELDS, "image") == "A black-accented umbrella."


def test_without_the_kind_it_is_a_product() -> None:
    assert right_answer(UMBRELLA, ("size", "brand"), FIELDS, "text") == "A product in size compact, by Norvel."


def test_every_occasion_begins_alike() -> None:
    for occasion in OCCASIONS:
        product = replace(UMBRELLA, facts=replace(UMBRELLA.facts, occasion=occasion))
        assert right_answer(product, ("kind", "occasion"), FIELDS, "text").startswith("An umbrella for ")


def test_brief_answers_are_bare_words_in_order() -> None:
    asked = ("pattern", "kind", "accent colour", "size")
    assert (
        right_answer(UMBRELLA, asked, FIELDS, "joint", brief=True) == "Striped, umbrella, black accents, size compact."
    )
    assert right_answer(UMBRELLA, ("brand", "occasion"), FIELDS, "text", brief=True) == "By Norvel, for travel."


def test_unknown_fields_are_left_out_and_nothing_known_is_said() -> None:
    assert right_answer(UMBRELLA, ("kind", "care"), {"kind"}, "text") == "An umbrella."
    assert right_answer(UMBRELLA, ("care",), {"kind"}, "text") == UNKNOWN["text"]


def test_claims_and_words_are_found_whole() -> None:
    answer = "A white-accented mug in red, wiped clean."
    assert claims(answer, "care")
    assert not claims(answer, "occasion")
    assert not contains_words(answer, "white")
    assert contains_words(answer, field_words(UMBRELLA, ("kind", "care"), "care"))
