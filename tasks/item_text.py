"""Item text is data: cleaned, cut to length, and unable to close a delimiter or open a chat turn."""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.prompt_files import Limits, Prompt, compiled
from tasks.segments import attribute_values, whole_words
from tasks.stage import StageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CHARS_PER_TOKEN = 16  # no tokenizer makes longer tokens of real text; what lies beyond is cut before it is encoded
_LOOKALIKES = str.maketrans({"<": "‹", ">": "›"})
_SPACES = re.compile(r"\s+")
_WORDS_NEAR_TOKEN_COUNT = re.compile(r"\w{1,4}|[^\w\s]")


class TextLimiter:
    """Cleans and shortens item text for one model.

    `tokenizer` counts the model's tokens; None (a server's model, whose tokenizer is not at hand) counts pieces of at
    most four letters instead, which is on the safe side for common tokenizers.
    """

    def __init__(self, tokenizer: "Tokenizer | None") -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().values() if tokenizer else ()
        marks = {token.content.strip() for token in added} | {"[INST]", "[/INST]"}
        # Longest first, so that a mark inside another doesn't hide it; single letters can open nothing.
        self._marks = sorted((mark for mark in marks if len(mark) > 1), key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return `text` with single spaces, no control characters, no angle brackets, and no mark of the model."""
        visible = text if text.isprintable() else _without_controls(text)
        plain = _SPACES.sub(" ", visible).strip().translate(_LOOKALIKES)
        for mark in self._marks:
            # A space inside the mark makes it ordinary text; repeated, since what is left may close up to it again.
            while mark in plain:
                plain = plain.replace(mark, f"{mark[0]} {mark[1:]}")
        return plain

    def shorten(self, text: str, tokens: int) -> str:
        """Return what of `text` fits into `tokens` tokens, ended as `whole_words` has it."""
        if text.isascii() and len(text) < tokens:
            return text  # a token holds a character at least (and some tokenizers put one before the text)
        head = text[: tokens * _CHARS_PER_TOKEN]
        ends = self._token_ends(head)
        if len(ends) <= tokens and len(head) == len(text):
            return text
        if not ends:
            return ""  # the model sees nothing in it (some tokenizers drop invisible characters)
        cut = ends[min(tokens, len(ends)) - 1]
        return text[: whole_words(text, cut) if cut < len(text) else cut].rstrip()

    def limited(self, text: str | None, tokens: int) -> str:
        """Return `text` cleaned and shortened; the empty text for None."""
        return self.shorten(self.clean(text), tokens) if text else ""

    def _token_ends(self, text: str) -> list[int]:
        if self._tokenizer is None:
            return [match.end() for match in _WORDS_NEAR_TOKEN_COUNT.finditer(text)]
        return [end for _, end in self._tokenizer.encode(text, add_special_tokens=False).offsets]


def _without_controls(text: str) -> str:
    return "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text)


def rendered_turns(prompt: Prompt, item: Mapping[str, str | None], limiter: TextLimiter) -> tuple[str | None, str]:
    """Return the system and user turns of a prompt for an item (title, description, attributes as stored).

    Raises jinja2.TemplateError where the template fails on this item.
    """
    texts = {"title": prompt.limits.title_tokens, "description": prompt.limits.description_tokens}
    fields = prompt.item_fields  # what no template mentions is not worth its tokens' count
    values: dict[str, object] = {f: limiter.limited(item.get(f), most) for f, most in texts.items() if f in fields}
    if "attributes" in fields:
        values["attributes"] = _attributes(item, prompt.limits, limiter)
    system = None if prompt.system is None else compiled(prompt.system).render(values)
    return system, compiled(prompt.user).render(values)


def _attributes(item: Mapping[str, str | None], limits: Limits, limiter: TextLimiter) -> dict[str, str]:
    values = attribute_values(item.get("attributes"))
    return {limiter.clean(name): limiter.limited(text, limits.attribute_tokens) for name, text in values.items()}


@lru_cache(maxsize=4)
def limiter_for(model: str, revision: str | None) -> TextLimiter:
    """Return the limiter of a model, from its folder or the hub. Raises StageError if it has no tokenizer.json."""
    from tokenizers import Tokenizer

    folder = Path(model)
    try:
        if folder.is_dir():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            tokenizer = Tokenizer.from_pretrained(model, revision=revision or "main")
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise StageError(
            f"describe.model {model}: its tokenizer.json can't be read ({error}); "
            "give a folder that holds the model, or a hub id that this machine reaches or has in its cache"
        ) from error
    tokenizer.no_padding()  # a model's training may leave either in the file; here tokens are counted
    tokenizer.no_truncation()
    return TextLimiter(tokenizer)
