"""What each stage found, as Markdown for the UI: refused rows, captions with pictures, curves, metrics against before.

Knows nothing of Prefect. Pictures stand in the text as data URIs, small: an artifact is a row of Prefect's database.
"""

import base64
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl

from flows.overview import REJECT_COLUMNS, last_rejects, present_results
from storage.pictures import PictureStore
from storage.schemas import CREATED_AT, GENERATION_KEY, GENERATIONS, ITEM_ID, ITEMS, METRICS, REJECTS, RUN_ID
from tasks.config import PipelineConfig
from tasks.evaluation.kept import experiments_evaluations
from tasks.evaluation.measures import FULL
from tasks.evaluation.slices import ALL
from tasks.report.thumbnails import Thumbnails
from tasks.semantics import current_generations
from tasks.stage import Summary
from tasks.text_tables import Markdown, TextTable, markdown_text
from tasks.trained_models import models_on_disk

_ROWS = 20
_GALLERY = 12
_CURVES = 8
_SIDE = 96  # pixels
_LINE = 44  # characters

_Epoch = dict[str, Any]  # as in ModelRef.epochs; without an event held out there is no validation


def findings(config: PipelineConfig, summary: Summary) -> tuple[str, str, str] | None:
    """Return key, description and Markdown of what a stage found, if its kind has anything to show."""
    tellers: dict[str, tuple[str, str, Callable[[PipelineConfig, Summary], str]]] = {
        "ingest": ("rejects", "Rows and pictures refused", rejects),
        "describe": ("captions", "The newest answers", captions),
        "train": ("training-curves", "Loss and validation by epoch", training_curves),
        "evaluate": ("metrics", "All test users, and against the evaluation before", metrics),
    }
    if summary.stage not in tellers:
        return None
    key, description, tell = tellers[summary.stage]
    return key, description, tell(config, summary)


def rejects(config: PipelineConfig, summary: Summary) -> str:
    """Return how many rows each reason has, and those of this run, or, where it refused none anew, the last ones."""
    table = config.open_store().table(REJECTS).scan()
    reasons = table.group_by("stage", "field", "reason").len("rows").sort("rows", descending=True).collect()
    if reasons.is_empty():
        return "Nothing was ever refused."
    new = table.filter(pl.col(RUN_ID) == summary.run_id).select(REJECT_COLUMNS).collect()
    rows = new.head(_ROWS) if new.height else last_rejects(table, _ROWS)
    shown = [(*_words(cells), _broken(detail or "")) for *cells, detail in rows.iter_rows()]
    counted = [_words(row) for row in reasons.iter_rows()]
    return "\n\n".join(
        [
            "# Refused in this run",
            f"{new.height:,} rows" + (f", the first {_ROWS} shown" if new.height > _ROWS else ""),
            *(() if new.height else ("Nothing new in this run. Refused last:",)),
            TextTable("", REJECT_COLUMNS, shown, words=len(REJECT_COLUMNS)).markdown(),
            "# Refused so far",
            TextTable("", reasons.columns, counted, words=3).markdown(),
        ]
    )


def captions(config: PipelineConfig, _summary: Summary) -> str:
    """Return the newest answers beside their items' pictures."""
    store = config.open_store()
    times = store.table(GENERATIONS).scan().select(GENERATION_KEY, CREATED_AT)
    answers = current_generations(store, config.describe).filter(pl.col("text").is_not_null())
    dated = answers.join(times, on=GENERATION_KEY, how="inner")
    newest = dated.with_columns(pl.col(CREATED_AT).max().over(ITEM_ID)).sort(
        [CREATED_AT, ITEM_ID, "view"], descending=[True, False, False]
    )
    columns = (ITEM_ID, "title", "image_reference", "image_digest")
    shown = newest.join(
        newest.select(pl.col(ITEM_ID).unique(maintain_order=True)).head(_GALLERY),
        on=ITEM_ID,
        how="semi",
        maintain_order="left",
    )
    rows = shown.join(
        store.table(ITEMS).scan().select(columns), on=ITEM_ID, how="left", maintain_order="left"
    ).collect()
    thumbnails = Thumbnails(PictureStore(store), _SIDE)
    cells = []
    for item in rows[ITEM_ID].unique(maintain_order=True).to_list():
        mine = rows.filter(pl.col(ITEM_ID) == item)
        row = mine.row(0, named=True)
        uri = thumbnails.of(row["image_reference"], row["image_digest"])
        name, title = markdown_text(item), markdown_text(row["title"] or "")
        said = (f"**{view}**: {_broken(text)}" for view, text in mine.select("view", "text").iter_rows())
        picture = f"![{name}]({uri})" if uri else "no picture"
        cells.append([Markdown(cell) for cell in (picture, f"{name}<br>{title}", "<br>".join(said))])
    return TextTable("", ("picture", "item", "what the model says"), cells, words=3).markdown()


def training_curves(config: PipelineConfig, _summary: Summary) -> str:
    """Return loss and validation NDCG@10 by epoch of the models trained last, as a picture."""
    read = ((f"{model.name} ({model.short_key})", model.epochs) for model in models_on_disk(config.work_folder))
    newest = list(itertools.islice(((name, epochs) for name, epochs in read if epochs), _CURVES))
    curves = dict(reversed(newest))
    if not curves:
        return "No model has finished an epoch yet."
    last = [
        (name, str(len(epochs)), f"{epochs[-1]['loss']:.4f}", _best_validation(epochs))
        for name, epochs in curves.items()
    ]
    table = TextTable("", ("model", "epochs", "last loss", "best validation NDCG@10"), last)
    return f"![training curves](data:image/png;base64,{_drawn(curves)})\n\n{table.markdown()}"


def metrics(config: PipelineConfig, _summary: Summary) -> str:
    """Return the metrics of the present models, and what they were in the pipeline's evaluation before."""
    from tasks.evaluation.tables import metrics_markdown

    results = present_results(config)
    table = config.open_store().table(METRICS).scan()
    everybody = table.filter((pl.col("protocol") == FULL) & (pl.col("slice") == ALL) & pl.col("value").is_not_null())
    key, present = pl.col("evaluation_key"), results.rows["evaluation_key"].unique()
    shown = everybody.filter(key.is_in(present.implode())).collect()
    others = everybody.filter(~key.is_in([*present, *experiments_evaluations(config.work_folder)])).collect()
    text = metrics_markdown(results)
    both = _means(shown).join(_means(_before(shown, others)), on=("variant", "metric"), how="inner", suffix="_before")
    if both.is_empty():
        return text + "\n\nThere is no earlier evaluation to compare with."
    changes = [
        (variant, metric, f"{was:.4f}", f"{value:.4f}", f"{value - was:+.4f}")
        for variant, metric, value, was in sorted(both.iter_rows(), key=_by_metric)
        if metric.partition("@")[0] in ("hr", "ndcg", "mrr")
    ]
    header = ("model", "metric", "before", "now", "change")
    against = TextTable("Against the evaluation before", header, changes, words=2).markdown()
    return f"{text}\n\n{against}\n\nAnother test set where events came in: a change is not yet a verdict on the model."


def _by_metric(row: tuple[str, str, float, float]) -> tuple[str, str, int]:
    """A model's metrics by name, then by their k as a number: hr@5 before hr@10."""
    name, _, k = row[1].partition("@")
    return row[0], name, int(k or 0)


def _before(shown: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    """Return what the last run before had evaluated of each variant and seed shown.

    A run may have evaluated the model that served, too, always after those asked for, and under the same name.
    """
    model = ("variant", "seed")
    earlier = others.join(shown, on=model, how="semi").join(shown, on=(*model, RUN_ID), how="anti")
    last = earlier.filter(pl.col(RUN_ID) == pl.col(RUN_ID).sort_by(CREATED_AT).last().over(model))
    return last.filter(pl.col(CREATED_AT) == pl.col(CREATED_AT).min().over(model))


def _means(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.group_by("variant", "metric").agg(pl.col("value").mean())


def _best_validation(epochs: list[_Epoch]) -> str:
    values = [value for epoch in epochs if (value := epoch["validation_ndcg_at_10"]) is not None]
    return f"{max(values):.4f}" if values else "none held out"


def _drawn(curves: dict[str, list[_Epoch]]) -> str:
    """Return the curves as a PNG in base64."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, epochs in curves.items():
        numbers = [int(epoch["epoch"]) + 1 for epoch in epochs]
        left.plot(numbers, [epoch["loss"] for epoch in epochs], marker=".")
        validation = [math.nan if (value := epoch["validation_ndcg_at_10"]) is None else value for epoch in epochs]
        right.plot(numbers, validation, marker=".", label=name)
    for axes, title in ((left, "training loss"), (right, "validation NDCG@10")):
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return base64.b64encode(content.getvalue()).decode()


def _words(row: Iterable[object]) -> list[str]:
    return ["" if cell is None else str(cell) for cell in row]


def _broken(text: str) -> Markdown:
    """The UI's tables don't wrap: break lines where they would."""
    return Markdown("<br>".join(markdown_text(line) for line in textwrap.wrap(text, _LINE)))
