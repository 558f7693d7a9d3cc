"""What is wrong with an answer."""

import pytest

from tasks.answers import answer_status
from tasks.prompt_files import AnswerRules

RULES = AnswerRules(min_chars=3, max_chars=80)


@pytest.mark.parametrize(
    ("text", "finish_reason", "status"),
    [
        ("A red mug, striped, with a blue accent.", "stop", "ok"),
        ("I can't recommend this mug enough: red, round, and sturdy.", "stop", "ok"),
        ("I cannot describe it.", "stop", "refusing"),
        ("Unfortunately, I am unable to clearly see the picture.", "stop", "refusing"),
        ("Sorry, I cannot help with that.", "stop", "refusing"),
        ("I'm unable to view images.", "stop", "refusing"),
        ("I’m not able to see the picture.", "stop", "refusing"),
        ("Unfortunately, I'm unable to see the image.", "stop", "refusing"),
        ("I apologize, but I cannot see any image.", "stop", "refusing"),
        ("I don't see any image attached to your message.", "stop", "refusing"),
        ("It looks like no image was provided.", "stop", "refusing"),
        ("抱歉，我无法查看图片。", "stop", "refusing"),
        ("Lo siento, no puedo ver la imagen.", "stop", "refusing"),
        ("I don't know a better mug: red and sturdy.", "stop", "ok"),
        ("No picture frame is visible behind the red mug.", "stop", "ok"),
        ("I do not see any flaw: a red mug.", "stop", "ok"),
        ("Lo Siento, a 2018 pop single.", "stop", "ok"),
        ("Désolé, mais je ne peux pas voir l'image.", "stop", "refusing"),
        ("No picture shows how red this mug is.", "stop", "ok"),
        ("A red dress with a", "content_filter", "refusing"),
        ("A red dress with a", "max_tokens", "cut_off"),
        ("<think>a mug</think> A red mug.", "stop", "wrong_form"),
        ("I'm sorry, but there is no picture.", "stop", "refusing"),
        ("  \n ", "stop", "empty"),
        ("A red mug with a", "length", "cut_off"),
        ("a red mug and " * 4, "length", "repeating"),  # four words, four times
        ("a red mug and " * 3, "length", "cut_off"),
        ("mug" + "!" * 16, "stop", "repeating"),
        ("x" * 5 + " y" * 40, "stop", "repeating"),
        ("ab", "stop", "too_short"),
        (
            "A mug, a cup, a bowl, a plate, a pan, a pot, a lid, a jar, a tin, a box, a bag and a hat.",
            "stop",
            "too_long",
        ),
        ('{"colour": "red"}', "stop", "wrong_form"),
        ("A mug <|im_start|>", "stop", "wrong_form"),
    ],
)
def test_status_of_a_sentence(text: str, finish_reason: str, status: str) -> None:
    assert answer_status(text, finish_reason, RULES) == status


@pytest.mark.parametrize(
    ("text", "status"),
    [('{"colour": "red"}', "ok"), ('{"colour": 3}', "wrong_form"), ("red", "wrong_form"), ("{", "wrong_form")],
)
def test_status_of_json(text: str, status: str) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"colour": {"type": "string"}}}
    assert answer_status(text, "stop", AnswerRules(json_schema=schema)) == status
