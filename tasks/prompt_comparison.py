"""Two prompts side by side on a sample of items, before a whole catalog is paid for.

Missing answers are asked for and stored like any others, so what a comparison cost is not paid again.
"""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from jinja2 import Environment

from storage.picture_checks import PictureError
from storage.pictures import PictureStore, load_picture
from storage.schemas import GENERATION_KEY, GENERATIONS, ITEM_ID, ITEMS
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage, asked_views, start_engine
from tasks.engines.protocol import Engine
from tasks.generation_keys import wanted_generations
from tasks.prompt_files import Prompt, load_prompt
from tasks.stage import ReportProgress, StageError, run_stage

_THUMBNAIL_PX = 192

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ old.name }} and {{ new.name }}</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } td, th { border-top: 1px solid #ccc; padding: .5rem; text-align: left;
vertical-align: top; } pre { white-space: pre-wrap; } img { max-width: 12rem; } .status { color: #a33; }
</style></head><body>
<h1>View {{ old.view }}: two prompts on {{ rows|length }} items</h1>
<p>{{ changed }} of {{ rows|length }} answers differ.</p>
<table><tr><th>Item</th><th>{{ old.name }} (before)<pre>{{ old.user }}</pre></th>
<th>{{ new.name }} (after)<pre>{{ new.user }}</pre></th></tr>
{% for row in rows %}<tr><td>{% if pictures[row.item_id] %}<img alt="" src="{{ pictures[row.item_id] }}"><br>{% endif %}
{{ row.item_id }}<br>{{ row.title or "" }}</td>
{% for answer in (row.old, row.new) %}<td>{{ answer.text or "" }}
{% if answer.status != "ok" %}<p class="status">{{ answer.status or "not asked" }}</p>{% endif %}</td>{% endfor %}</tr>
{% endfor %}</table></body></html>
"""


@dataclass(frozen=True)
class Answer:
    """An answer with its status; both None where there is none."""

    status: str | None
    text: str | None


@dataclass(frozen=True)
class Compared:
    """What two prompts got for one item."""

    item_id: str
    title: str | None
    image_reference: str | None
    image_digest: str | None
    old: Answer
    new: Answer


def compare_prompts(
    store: Store,
    config: DescribeConfig,
    old: str,
    new: str,
    items: int,
    work_folder: Path,
    report: ReportProgress,
    start: Callable[[DescribeConfig], Engine] = start_engine,
) -> list[Compared]:
    """Return both prompts' answers for a sample of at most `items` items, asking for those that the store lacks.

    The sample is the same each time. Raises StageError if the prompts make different views, or as the stage does.
    """
    if load_prompt(old).view != load_prompt(new).view:
        raise StageError(f"prompts {old} and {new} make different views, so their answers can't be compared")
    configs = [config.model_copy(update={"prompts": (name,)}) for name in (old, new)]
    sample = _sample(store, configs[0], items)
    for one in configs:
        run_stage(DescribeStage(one, store, work_folder, start, only_items=sample), report)
    before, after = (_answers(store, one, sample) for one in configs)
    columns = (ITEM_ID, "title", "image_reference", "image_digest")
    rows = store.table(ITEMS).scan().filter(pl.col(ITEM_ID).is_in(sample)).select(columns).sort(ITEM_ID).collect()
    nothing = Answer(None, None)
    return [
        Compared(**row, old=before.get(row[ITEM_ID], nothing), new=after.get(row[ITEM_ID], nothing))
        for row in rows.iter_rows(named=True)
    ]


def comparison_page(store: Store, old: Prompt, new: Prompt, rows: list[Compared]) -> str:
    """Return a comparison as an HTML page that is complete in itself, pictures included."""
    pictures = PictureStore(store)
    thumbnails = {row.item_id: _thumbnail(pictures, row) for row in rows}
    changed = sum(row.old != row.new for row in rows)
    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(old=old, new=new, rows=rows, pictures=thumbnails, changed=changed)


def _sample(store: Store, config: DescribeConfig, items: int) -> list[str]:
    """Return the items whose keys come first: keys are digests, so that is as good as drawn by lot."""
    wanted = wanted_generations(store.table(ITEMS).scan(), asked_views(config))
    return wanted.unique(GENERATION_KEY, keep="first").sort(GENERATION_KEY).head(items)[ITEM_ID].to_list()


def _answers(store: Store, config: DescribeConfig, sample: list[str]) -> dict[str, Answer]:
    items = store.table(ITEMS).scan().filter(pl.col(ITEM_ID).is_in(sample))
    wanted = wanted_generations(items, asked_views(config))
    stored = store.table(GENERATIONS).scan().select(GENERATION_KEY, "status", "text")
    rows = wanted.lazy().join(stored, on=GENERATION_KEY, how="inner").select(ITEM_ID, "status", "text").collect()
    return {item_id: Answer(status, text) for item_id, status, text in rows.iter_rows()}


def _thumbnail(pictures: PictureStore, row: Compared) -> str | None:
    """Return a picture as a data URL; None where there is none to show."""
    if row.image_reference is None or row.image_digest is None:
        return None
    try:
        picture = load_picture(pictures, row.image_reference, row.image_digest, max_side=_THUMBNAIL_PX)
    except PictureError:
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
