"""What the stores hold, as text for the terminal."""

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from storage.schemas import CREATED_AT, ITEM_ID, ITEMS, REJECTS, RUNS, TABLES
from storage.tables import Store
from tasks.config import PipelineConfig
from tasks.prompt_answers import PromptAnswers, prompt_answers
from tasks.prompt_files import load_prompts
from tasks.report import report_path
from tasks.semantics import current_generations, current_segments
from tasks.stage import StageError
from tasks.text_tables import TextTable

if TYPE_CHECKING:
    from tasks.evaluation.results import Results

REJECT_COLUMNS = ("source", "row", ITEM_ID, "field", "reason", "detail")
_RUNS_SHOWN = 10


def status(config: PipelineConfig) -> str:
    """Return rows and versions of each table, the last runs, models and disk use."""
    store = config.open_store()
    models = config.work_folder / "models"
    parts = [
        f"{config.name}: store {store.url}, work folder {config.work_folder}",
        _table(("table", "rows", "version"), _table_rows(store), words=1),
        _table(("run", "status", "started (UTC)", "seconds", "counts"), _last_runs(store), words=5),
        f"models: {len(list(models.glob('*/summary.json')))} trained, in {models}",
        f"disk: {disk_use(config.work_folder):,.1f} MB under {config.work_folder}",
    ]
    return "\n\n".join(part for part in parts if part)


def item(config: PipelineConfig, item_id: str) -> str:
    """Return one item as delivered, the answers about it, and its segments. Raises StageError if there is none."""
    store = config.open_store()
    rows = store.table(ITEMS).scan().filter(pl.col(ITEM_ID) == item_id).collect()
    if rows.height == 0:
        raise StageError(f"no item {item_id} in {store.url}: ids are text, exactly as delivered")
    row = rows.row(0, named=True)
    fields = ("title", "description", "attributes", "image_reference", "active", "updated_at")
    answers = _of_item(current_generations(store, config.describe), item_id)
    segments = _of_item(current_segments(store, config.embed), item_id).sort("position")
    return "\n".join(
        [
            f"item {item_id}",
            *(f"  {field}: {row[field]}" for field in fields if row[field] is not None),
            *(f"  {view} ({status or 'not asked yet'}): {text or ''}" for view, status, text in _answer_rows(answers)),
            *(f"  segment {place} ({kind}): {text}" for place, kind, text in _segment_rows(segments)),
        ]
    )


def rejects(config: PipelineConfig, rows: int) -> str:
    """Return the last `rows` refused rows, the newest at the end, with what is wrong and its remedy."""
    table = config.open_store().table(REJECTS).scan()
    found, total = last_rejects(table, rows), table.select(pl.len()).collect().item()
    cells = [["" if cell is None else str(cell) for cell in row] for row in found.iter_rows()]
    shown = _table(REJECT_COLUMNS, cells, words=len(REJECT_COLUMNS)) or "nothing was ever refused"
    return shown if found.height == total else f"{shown}\n\nthe last {found.height:,} of {total:,}; --rows shows more"


def last_rejects(table: pl.LazyFrame, rows: int) -> pl.DataFrame:
    """Return the last `rows` rows of the `rejects` table, the newest at the end, in REJECT_COLUMNS."""
    return table.sort(CREATED_AT, maintain_order=True).tail(rows).select(REJECT_COLUMNS).collect()


def prompts(config: PipelineConfig) -> str:
    """Return each prompt with its digest, how many stored answers it has, and what it asks.

    Those in use come first, then the project's others, then versions that only the store remembers.
    """
    in_use = config.describe.prompts
    used = {prompt.digest for prompt in load_prompts(in_use)}
    return "\n\n".join(
        "\n".join(_prompt_lines(row, row.digest in used)) for row in prompt_answers(config.open_store(), in_use)
    )


def _prompt_lines(row: PromptAnswers, in_use: bool) -> Iterable[str]:
    state = "in use" if in_use else "not in use" if row.prompt else "changed or removed since"
    yield f"{row.name}: view {row.view}, digest {row.digest}, {state}"
    yield f"  {row.answers:,} stored answers: {row.ok:,} ok, {row.unusable:,} unusable, {row.failed:,} failed"
    if prompt := row.prompt:
        reads = (*(("picture",) if prompt.needs_picture else ()), *prompt.item_fields)
        yield f"  reads {', '.join(reads) or 'nothing'}"
        yield from (f"  {line}" for line in f"{prompt.system or ''}\n{prompt.user}".strip().splitlines())


def metrics_table(config: PipelineConfig) -> str:
    """Return the metrics of the config's models and baselines over all test users."""
    from tasks.evaluation.tables import metrics_text

    return metrics_text(present_results(config))


def present_results(config: PipelineConfig) -> "Results":
    """Return what is measured of the config's models on the present data."""
    from tasks.evaluation.results import Results

    keys = config.open_dataset().keys
    return Results.present(config.open_store(), config.evaluate, config.train, keys, config.work_folder)


def report_line(config: PipelineConfig) -> str:
    """Return where the report is."""
    path = report_path(config.work_folder)
    return f"report: {path}" if path.exists() else "no report yet"


def _table_rows(store: Store) -> Iterable[tuple[str, ...]]:
    for schema in TABLES:
        reference = store.table(schema).reference()
        if reference is not None:
            yield schema.name, f"{store.table(schema).count():,}", str(reference.version)


def _last_runs(store: Store) -> Iterable[tuple[str, ...]]:
    runs = store.table(RUNS).scan().sort("started_at", descending=True).head(_RUNS_SHOWN).collect()
    for row in runs.iter_rows(named=True):
        counts = ", ".join(f"{count:,} {name}" for name, count in json.loads(row["counts"]).items())
        started: datetime = row["started_at"]
        yield (
            row["stage"],
            row["status"],
            f"{started:%Y-%m-%d %H:%M:%S}",
            f"{row['seconds']:,.1f}",
            row["error"] or counts,
        )


def _of_item(frame: pl.LazyFrame, item_id: str) -> pl.DataFrame:
    return frame.filter(pl.col(ITEM_ID) == item_id).collect()


def _answer_rows(answers: pl.DataFrame) -> Iterable[tuple[str, str | None, str | None]]:
    return answers.select("view", "status", "text").iter_rows()


def _segment_rows(segments: pl.DataFrame) -> Iterable[tuple[int, str, str]]:
    return segments.select("position", "kind", "text").iter_rows()


def disk_use(folder: Path) -> float:
    """Return MB of the files under `folder`, whatever a run removes meanwhile."""
    size = 0
    for parent, _, names in os.walk(folder):  # which says nothing of folders that are gone
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(parent, name).stat().st_size
    return size / 1e6


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> str:
    table = TextTable("", header, list(rows), words)
    return table.plain() if table.rows else ""
