"""What is wrong with an answer, if anything: only `ok` ones become views, the others stay stored with their status."""

import json
import re
from collections import Counter

from tasks.prompt_files import AnswerRules

OK = "ok"
FAILED = "failed"  # the request failed: there is no answer

_REPEATED_WORDS = 4  # so many words in a row ...
_MOST_REPEATS = 3  # ... may occur so often; more is a loop
_CUT_OFF = ("length", "max_tokens")  # vLLM's and OpenAI's word, and what some servers pass on
_SAME_CHAR = re.compile(r"(\S)\1{15,}")
_WORD = re.compile(r"\w+")
_UNABLE = r"(can ?no|can['’])t|(am|['’]m) (unable|not able) to|(don['’]t|do not) have (access|the ability)"
_ACT = r"(see|view|help|assist|describe|provide|identify|summari[sz]e|fulfil|comply|process|answer|access)"
_PICTURE = r"(image|picture|photo)\b"
_OPENINGS = (
    r"i['’]?m (very )?sorry",
    r"i am sorry",
    r"sorry,",
    r"i apologi[sz]e",
    r"as an ai\b",
    rf"(unfortunately,? )?i ?({_UNABLE})\W+(\w+ )?{_ACT}",
    rf"(unfortunately,? )?i (don['’]t|do not) (see|have) (an?|any|the) {_PICTURE}",
    rf"(it (looks|seems) like )?(there (is|was) )?no {_PICTURE}( (is|was|has been))? (provided|attached|shown|visible)",
    *("抱歉", "很抱歉", "对不起", "申し訳", "죄송", "es tut mir leid", r"lo siento,? (pero )?no\b"),
    *(
        r"(je suis )?désolée?,? (mais )?je\b",
        r"mi dispiace,? (ma )?non\b",
        r"desculpe,? (mas )?(não|eu)\b",
        r"извините,? (но )?я\b",
    ),
)
_REFUSAL = re.compile(rf"^\W*({'|'.join(_OPENINGS)})", re.IGNORECASE)


def answer_status(text: str, finish_reason: str | None, rules: AnswerRules) -> str:
    """Return `ok`, or what is wrong: empty, cut_off, repeating, refusing, wrong_form, too_short or too_long.

    `finish_reason` is the engine's: `length` says that the answer was cut off.

    Repetition comes before cut_off: an endless loop is always cut off, and the loop is what is wrong with it.
    """
    stripped = text.strip()
    if not stripped:
        return "empty"
    if is_repeating(stripped):
        return "repeating"
    if finish_reason in _CUT_OFF:
        return "cut_off"
    if finish_reason == "content_filter":
        return "refusing"
    if rules.json_schema is not None:
        return OK if fits_schema(stripped, rules.json_schema) else "wrong_form"
    return _status_of_sentence(stripped, rules)


def is_repeating(text: str) -> bool:
    """Return whether the text is stuck: four words in a row more than three times, or 16 equal characters."""
    words = _WORD.findall(text.lower())
    runs = Counter(tuple(words[i : i + _REPEATED_WORDS]) for i in range(len(words) - _REPEATED_WORDS + 1))
    return _SAME_CHAR.search(text) is not None or max(runs.values(), default=0) > _MOST_REPEATS


def fits_schema(text: str, schema: dict[str, object]) -> bool:
    """Return whether the text is JSON that fits a JSON schema."""
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def _status_of_sentence(text: str, rules: AnswerRules) -> str:
    if _REFUSAL.search(text):
        return "refusing"
    if text.startswith(("{", "[", "```")) or "<|" in text or "</think>" in text:
        return "wrong_form"
    if len(text) < rules.min_chars:
        return "too_short"
    return "too_long" if len(text) > rules.max_chars else OK
