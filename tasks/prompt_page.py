"""A comparison of two prompts as one HTML page, complete in itself: item, picture, old and new answer."""

import difflib
import re

from jinja2 import Environment
from markupsafe import Markup

from storage.pictures import PictureStore
from tasks.prompt_comparison import Answer, Compared, Comparison
from tasks.report.thumbnails import Thumbnails

_THUMBNAIL_PX = 192
_WORD_OR_SPACE = re.compile(r"\s+|\S+")

# The policy lets the page load nothing and run nothing, whatever stands in it.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ old.name }} and {{ new.name }}</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; table-layout: fixed; width: 100%; }
td, th { border-top: 1px solid #ccc; overflow-wrap: anywhere; padding: .5rem; text-align: left; vertical-align: top; }
th:first-child { width: 14rem; } pre { font-weight: normal; white-space: pre-wrap; } img { max-width: 12rem; }
ins { background: #d9f2df; text-decoration: none; } del { background: #fbdcdc; text-decoration: none; }
.same { color: #777; } .status { color: #a33; } .text { color: #555; font-size: .85em; }
</style></head><body>
<h1>View {{ old.view }}: two prompts on {{ rows|length }} items</h1>
<p>{{ changed }} of {{ rows|length }} answers differ. Usable: {{ usable[0] }} before, {{ usable[1] }} after.</p>
<table><thead><tr><th>Item</th>
{% for prompt, when in ((old, "before"), (new, "after")) %}<th>{{ prompt.name }} ({{ when }}, {{ prompt.digest[:12] }})
<pre>{{ prompt.system or "" }}
{{ prompt.user }}</pre></th>
{% endfor %}</tr></thead><tbody>
{% for row, picture, marked in rows %}<tr{% if row.old == row.new %} class="same"{% endif %}><td>
{% if picture %}<img alt="" src="{{ picture }}"><br>{% elif row.image_digest %}<em>picture can't be read</em><br>
{% endif %}<strong>{{ row.item_id }}</strong><br>{{ row.title or "" }}
{% if row.description %}<details class="text"><summary>description</summary>{{ row.description }}</details>{% endif %}
</td>{% for answer, text in ((row.old, marked[0]), (row.new, marked[1])) %}<td>{{ text }}
{% if answer.status != "ok" %}<p class="status">{{ answer.status or "not asked" }}</p>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></body></html>
"""


def comparison_page(comparison: Comparison, pictures: PictureStore) -> str:
    """Return the page. Every text in it is escaped; words that only one answer has are marked."""
    rows, thumbnails = comparison.rows, Thumbnails(pictures, _THUMBNAIL_PX)
    return (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            old=comparison.old,
            new=comparison.new,
            rows=[
                (row, thumbnails.of(row.image_reference, row.image_digest), _marked(row.old, row.new)) for row in rows
            ],
            changed=sum(row.old != row.new for row in rows),
            usable=[sum(answer.status == "ok" for answer in side) for side in zip(*_sides(rows), strict=True)],
        )
    )


def _sides(rows: tuple[Compared, ...]) -> list[tuple[Answer, Answer]]:
    return [(row.old, row.new) for row in rows]


def _marked(old: Answer, new: Answer) -> tuple[Markup, Markup]:
    """Return both texts, escaped, with the words that only they have in <del> and <ins>."""
    before, after = (_WORD_OR_SPACE.findall(answer.text or "") for answer in (old, new))
    sides: tuple[list[str], list[str]] = ([], [])
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        for side, words, tag in zip(sides, (before[i:j], after[k:m]), ("del", "ins"), strict=True):
            text = Markup.escape("".join(words))
            side.append(text if kind == "equal" or not words else Markup("<{0}>{1}</{0}>").format(Markup(tag), text))
    return Markup("").join(sides[0]), Markup("").join(sides[1])
