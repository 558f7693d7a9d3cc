"""How many stored answers each prompt has: what `dmesr prompts` shows."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from storage.schemas import GENERATIONS
from storage.tables import Store
from tasks.answers import FAILED, OK
from tasks.prompt_files import PROMPT_FOLDER, Prompt, load_prompt


@dataclass(frozen=True)
class PromptAnswers:
    """A prompt as it is now, or (where `prompt` is None) one that only the store remembers, with its answers."""

    name: str
    view: str
    digest: str
    prompt: Prompt | None
    ok: int
    unusable: int  # answered, but empty, cut off, repeating, ...
    failed: int

    @property
    def answers(self) -> int:
        return self.ok + self.unusable + self.failed


def prompt_answers(store: Store, configured: Iterable[str] = ()) -> list[PromptAnswers]:
    """Return the project's prompts and the `configured` ones (names or paths), then versions that are gone but stored.

    Raises StageError where a prompt file is wrong.
    """
    names = dict.fromkeys([*configured, *sorted(path.stem for path in PROMPT_FOLDER.glob("*.yaml"))])
    present = {(prompt.view, prompt.digest): prompt for prompt in map(load_prompt, names)}
    stored = {(row["view"], row["prompt_digest"]): row for row in _counts(store).iter_rows(named=True)}
    rows = [_row(prompt.name, *key, prompt, stored.get(key)) for key, prompt in present.items()]
    gone = {key: row for key, row in stored.items() if key not in present}
    return rows + [_row(row["prompt_name"], *key, None, row) for key, row in sorted(gone.items())]


def _counts(store: Store) -> pl.DataFrame:
    is_ok, has_failed = pl.col("status") == OK, pl.col("status") == FAILED
    return (
        store.table(GENERATIONS)
        .scan()
        .group_by("view", "prompt_digest")
        .agg(
            pl.col("prompt_name").max(),
            is_ok.sum().alias("ok"),
            (~is_ok & ~has_failed).sum().alias("unusable"),
            has_failed.sum().alias("failed"),
        )
        .collect()
    )


def _row(name: str, view: str, digest: str, prompt: Prompt | None, counts: dict[str, int] | None) -> PromptAnswers:
    found = counts or {"ok": 0, "unusable": 0, "failed": 0}
    return PromptAnswers(name, view, digest, prompt, found["ok"], found["unusable"], found["failed"])
