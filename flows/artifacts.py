"""What a stage leaves in the Prefect UI: its plan and its summary, under keys so that their history shows."""

import logging

from prefect.artifacts import create_markdown_artifact

from flows.findings import findings
from tasks.config import PipelineConfig
from tasks.stage import Plan, Summary
from tasks.text_tables import TextTable, markdown_text

logger = logging.getLogger(__name__)


def publish_plan(plan: Plan) -> None:
    """Publish a plan as a table, under the key `STAGE-plan`."""
    rows = [
        ("new", plan.new),
        ("changed", plan.changed),
        ("failed before", plan.failed_before),
        ("up to date", plan.up_to_date),
    ]
    table = TextTable("", (plan.unit, ""), [(name, f"{count:,}") for name, count in rows]).markdown()
    notes = "\n".join(f"- {markdown_text(note)}" for note in plan.notes)
    create_markdown_artifact(f"{table}\n\n{notes}", key=f"{plan.stage}-plan", description=plan.sentence())


def publish_summary(summary: Summary) -> None:
    """Publish what a stage did, under the key `STAGE-summary`."""
    create_markdown_artifact(
        summary_markdown(summary), key=f"{summary.stage}-summary", description=f"What {summary.stage} did"
    )


def publish_findings(config: PipelineConfig, summary: Summary) -> None:
    """Publish what the stage found: `rejects`, `captions`, `training-curves` or `metrics`. Nothing for other stages.

    What the stage did is stored by now: if it can't be shown, a warning says so, and the night goes on.
    """
    try:
        found = findings(config, summary)
    except Exception:
        logger.warning("what %s found cannot be shown; its results are stored", summary.stage, exc_info=True)
        return
    if found:
        key, description, text = found
        create_markdown_artifact(text, key=key, description=description)


def summary_markdown(summary: Summary) -> str:
    """Return counts, details and the tables written as Markdown tables."""
    counts = [(name.replace("_", " "), f"{count:,}") for name, count in summary.counts.items()]
    details = [(name, f"{v:,.4g}" if isinstance(v, float) else str(v)) for name, v in summary.details.items()]
    written = [(name, str(reference.version)) for name, reference in summary.writes.items()]
    tables = (("count", ""), counts), (("detail", ""), details), (("table", "version"), written)
    return "\n\n".join(
        [
            f"# {summary.stage}",
            f"{summary.counts.get('done', 0):,} {summary.unit} in {summary.seconds:,.1f} s "
            f"({summary.rate:,.1f} a second)",
            *(TextTable("", header, rows).markdown() for header, rows in tables if rows),
            f"run `{summary.run_id}`",
        ]
    )
