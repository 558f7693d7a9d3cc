"""Tables of text, for a terminal and as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

# An ampersand can begin a character's name; between two letters an underscore is one.
_MARKUP = re.compile(r"[\\`*{}\[\]<>|#~]|&(?=[#\w])|(?<![^\W_])_|_(?![^\W_])")


class Markdown(str):
    """Text that is Markdown already: a table shows it as what it says."""


def markdown_text(text: str) -> str:
    """Return words as Markdown shows them in a table's cell."""
    return text if isinstance(text, Markdown) else _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


@dataclass(frozen=True)
class TextTable:
    """Rows under a header; the first `words` columns are words, the others numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1

    def plain(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[place]) for line in lines) for place in range(len(self.header))]
        texts = [
            "  ".join(
                cell.rjust(width) if place >= self.words else cell.ljust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        ruled = [texts[0], "-" * (sum(widths) + 2 * len(widths) - 2), *texts[1:]]
        return "\n".join([self.title, *ruled] if self.title else ruled)

    def markdown(self) -> str:
        rule = ["---" if place < self.words else "---:" for place in range(len(self.header))]
        header, *rows = ([markdown_text(cell) for cell in line] for line in (self.header, *self.rows))
        table = "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *rows))
        return f"**{markdown_text(self.title)}**\n\n{table}" if self.title else table
