"""The page put together: sections gathered from the sources, rendered with everything escaped."""

from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from tasks.evaluation.results import FEWEST_TESTED
from tasks.evaluation.tables import metrics_markdown
from tasks.report.accuracy import (
    accuracy_chart,
    beyond_table,
    headline,
    model_table,
    slice_table,
    training_curves,
)
from tasks.report.alignment import alignment_of
from tasks.report.catalog import TileMaker, gallery, shoppers
from tasks.report.operations import facts_of, made_with, refused_input, run_table, token_table, unused_answers, versions
from tasks.report.sources import Sources
from tasks.report.thumbnails import Thumbnails

_FOLDER = Path(__file__).parent


class ReportConfig(BaseModel):
    """What the page shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str | None = Field(None, description="heading of the page; None: the name of the work folder")
    items: int = Field(18, ge=0, description="items of the gallery, the same ones every night")
    neighbours: int = Field(4, ge=0, description="nearest items shown with each")
    users: int = Field(6, ge=0, description="example users with their history and recommendations")
    picture_side: int = Field(128, ge=16, le=512, description="longest side of a picture in the page, in pixels")
    examples: int = Field(12, ge=0, description="unused answers, and refused rows, shown in full")
    alignment_items: int = Field(
        500, ge=3, description="items in the pictures of alignment, and among which views look for each other"
    )


def render_page(sources: Sources, config: ReportConfig, title: str, made_at: datetime) -> str:
    """Return the page as HTML: no script, no link to anything outside itself."""
    maker = TileMaker(sources, Thumbnails(sources.pictures, config.picture_side))
    results = sources.results
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            style=Markup((_FOLDER / "style.css").read_text(encoding="utf-8")),  # the project's own
            title=title,
            made_at=made_at,
            headline=[*headline(results, sources.saw_test_events), *_left_out(sources)],
            facts=facts_of(sources),
            made_with=made_with(sources),
            chart=accuracy_chart(results) if results.variants else None,
            tables=[model_table(results, protocol) for protocol in results.protocols],
            reference=results.variants[0] if results.variants else None,
            beyond=beyond_table(results) if results.variants else None,
            slices=slice_table(results) if results.variants else None,
            fewest_tested=FEWEST_TESTED,
            training=training_curves(sources),
            alignment=alignment_of(sources, config.alignment_items),
            cards=gallery(sources, maker, config.items, config.neighbours),
            shoppers=shoppers(sources, maker, config.users),
            unused=unused_answers(sources, config.examples),
            refused=refused_input(sources, config.examples),
            runs=run_table(sources),
            tokens=token_table(sources),
            versions=versions(),
        )
    )


def _left_out(sources: Sources) -> list[str]:
    """A sentence on what the page lacks, where the model that recommends can't be loaded."""
    model = sources.unreadable_model
    if model is None:
        return []
    return [
        f"{model.name} ({model.short_key}), which recommends, can't be loaded by this version: the page lacks the "
        "alignment of its views, the items near each item, and what its segments attend to. Train it again, or let "
        "another model serve (dmesr models, dmesr promote MODEL)."
    ]


def render_markdown(sources: Sources, title: str) -> str:
    """Return the report's short form: headline, counts, tables of metrics. Needs no model and no torch."""
    facts = " · ".join(f"{fact.name}: {fact.value} ({fact.note})" for fact in facts_of(sources))
    lines = "\n".join(f"- {line}" for line in headline(sources.results, sources.saw_test_events))
    return f"## {title}\n\n{lines}\n\n{facts}\n\n{metrics_markdown(sources.results)}\n"


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
