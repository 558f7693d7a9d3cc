"""Two prompts side by side on a sample of items, before a whole catalog is paid for.

Missing answers are asked for by the describe stage and stored like any others, so what a comparison cost is not paid
again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from storage.digests import digest_of
from storage.schemas import GENERATION_KEY, GENERATIONS, ITEM_ID, ITEMS
from storage.tables import Store
from tasks.describe import DescribeConfig, asked_views
from tasks.generation_keys import keys_of, wanted_generations
from tasks.prompt_files import Prompt, load_prompt, load_prompts
from tasks.stage import StageError

_COLUMNS = (ITEM_ID, "title", "description", "image_reference", "image_digest")


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
    description: str | None
    image_reference: str | None
    image_digest: str | None
    old: Answer
    new: Answer


@dataclass(frozen=True)
class Comparison:
    """Two prompts of one view, and what they got for a sample."""

    old: Prompt
    new: Prompt
    rows: tuple[Compared, ...]


def prompt_in_use(config: DescribeConfig, other: str) -> str:
    """Return the config's prompt that makes the same view as `other`. Raises StageError if there is none."""
    view = load_prompt(other).view
    for name, prompt in zip(config.prompts, load_prompts(config.prompts), strict=True):
        if prompt.view == view:
            return name
    raise StageError(
        f"prompt {other} makes view {view}, and no prompt in describe.prompts does: name the one to compare it with"
    )


def compare_prompts(
    store: Store,
    config: DescribeConfig,
    prompts: tuple[str, str],
    items: int,
    seed: int,
    work_folder: Path,
    describe: Callable[[DescribeConfig], None],
) -> Comparison:
    """Return both prompts' answers for a sample of at most `items` items, having the missing ones asked for.

    `describe` runs the describe stage under the config it is given, if that has anything to do. The same seed gives the
    same sample. Raises StageError if the prompts make different views, or no item suits both.
    """
    old, new = (load_prompt(name) for name in prompts)
    if old.view != new.view:
        raise StageError(
            f"prompts {prompts[0]} and {prompts[1]} make different views ({old.view}, {new.view}), so their answers "
            "can't be compared"
        )
    configs = [config.model_copy(update={"prompts": (name,)}) for name in prompts]
    sample = _sample(store, configs, items, seed)
    chosen = _written(sample, work_folder)
    for one in configs:
        describe(one.model_copy(update={"items": chosen}))
    before, after = (_answers(store, one, sample) for one in configs)
    rows = store.table(ITEMS).scan().filter(pl.col(ITEM_ID).is_in(sample)).select(_COLUMNS).sort(ITEM_ID).collect()
    nothing = Answer(None, None)
    return Comparison(
        old,
        new,
        tuple(
            Compared(**row, old=before.get(row[ITEM_ID], nothing), new=after.get(row[ITEM_ID], nothing))
            for row in rows.iter_rows(named=True)
        ),
    )


def _sample(store: Store, configs: list[DescribeConfig], items: int, seed: int) -> list[str]:
    """Return items that suit both prompts, those of one content once, in an order drawn by the seed."""
    first, second = (wanted_generations(store.table(ITEMS).scan(), asked_views(config)) for config in configs)
    both = first.unique(GENERATION_KEY, keep="first", maintain_order=True).join(second, on=ITEM_ID, how="semi")
    if both.height == 0:
        raise StageError("no item in the store has what both prompts need (picture, title, description, attributes)")
    lot = keys_of(both.select(ITEM_ID), f"sample {seed}").alias("lot")
    return both.with_columns(lot).sort("lot").head(items)[ITEM_ID].to_list()


def _written(sample: list[str], work_folder: Path) -> Path:
    """Write the sample where the describe stage, in a process of its own, finds it."""
    path = work_folder / "prompts" / f"sample-{digest_of(sample)[:12]}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(sample) + "\n", encoding="utf-8")
    return path


def _answers(store: Store, config: DescribeConfig, sample: list[str]) -> dict[str, Answer]:
    items = store.table(ITEMS).scan().filter(pl.col(ITEM_ID).is_in(sample))
    wanted = wanted_generations(items, asked_views(config))
    stored = store.table(GENERATIONS).scan().select(GENERATION_KEY, "status", "text")
    rows = wanted.lazy().join(stored, on=GENERATION_KEY, how="inner").select(ITEM_ID, "status", "text").collect()
    return {item_id: Answer(status, text) for item_id, status, text in rows.iter_rows()}
