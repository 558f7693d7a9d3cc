"""Prompts with the number of their stored answers."""

from pathlib import Path

import polars as pl

from storage.schemas import GENERATIONS
from storage.tables import Store
from tasks.prompt_answers import prompt_answers
from tasks.prompt_files import load_prompt


def test_answers_are_counted_by_what_the_prompt_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    caption = load_prompt("caption").digest
    rows = [
        {"generation_key": str(i), "view": view, "prompt_name": name, "prompt_digest": digest, "status": status}
        for i, (view, name, digest, status) in enumerate(
            [
                ("image", "caption", caption, "ok"),
                ("image", "caption", caption, "ok"),
                ("image", "caption", caption, "cut_off"),
                ("image", "caption", caption, "failed"),
                ("text", "summary", "an older wording", "ok"),
            ]
        )
    ]
    schema = store.table(GENERATIONS).empty().schema
    store.table(GENERATIONS).append(pl.DataFrame([{n: row.get(n) for n in schema} for row in rows], schema=schema))
    found = prompt_answers(store, ("summary",))
    assert [(row.name, row.ok, row.unusable, row.failed) for row in found] == [
        ("summary", 0, 0, 0),  # configured prompts come first
        ("caption", 2, 1, 1),
        ("joint", 0, 0, 0),
        ("summary", 1, 0, 0),
    ]
    assert found[1].answers == 4
    assert found[-1].prompt is None
