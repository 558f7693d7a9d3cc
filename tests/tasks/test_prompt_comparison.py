"""Two prompts side by side on a sample."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from storage.digests import digest_of_text
from storage.schemas import GENERATIONS, ITEMS
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage
from tasks.engines.protocol import Completion, Request
from tasks.prompt_comparison import Comparison, compare_prompts, prompt_in_use
from tasks.stage import StageError, run_stage


class Echo:
    """Answers with the user turn."""

    room = 8

    def __init__(self) -> None:
        self._queue: deque[Request] = deque()

    def submit(self, request: Request) -> None:
        self._queue.append(request)

    def completions(self, timeout_seconds: float) -> Sequence[Completion]:
        request = self._queue.popleft()
        return [Completion(request.key, request.user, "stop")]

    def close(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    schema = made.table(ITEMS).empty().schema
    titles = [f"Mug {i} <b>" for i in range(10)]
    rows = [{"item_id": str(i), "title": t, "title_digest": digest_of_text(t)} for i, t in enumerate(titles)]
    made.table(ITEMS).append(pl.DataFrame([{n: row.get(n) for n in schema} for row in rows], schema=schema))
    return made


@pytest.fixture
def config(tmp_path: Path) -> DescribeConfig:
    (tmp_path / "model").mkdir()
    Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>")).save(str(tmp_path / "model" / "tokenizer.json"))
    return DescribeConfig(model=str(tmp_path / "model"))


def prompt(folder: Path, name: str, user: str, view: str = "text") -> str:
    (folder / f"{name}.yaml").write_text(f"name: {name}\nview: {view}\nuser: '{user}'\n")
    return str(folder / f"{name}.yaml")


def compared(
    store: Store, config: DescribeConfig, folder: Path, *prompts: str, items: int = 3, seed: int = 0
) -> Comparison:
    """What the two prompts get from an engine that answers with the question."""

    def describe(trial: DescribeConfig) -> None:
        run_stage(DescribeStage(trial, store, folder / "w", start=lambda _: Echo()), lambda progress: None)

    old, new = prompts
    return compare_prompts(store, config, (old, new), items, seed, folder / "w", describe)


def test_a_sample_is_answered_under_both_prompts_and_the_answers_are_kept(store, config, tmp_path: Path) -> None:
    old, new = prompt(tmp_path, "old", "About {{ title }}"), prompt(tmp_path, "new", "Say {{ title }}")
    found = compared(store, config, tmp_path, old, new)
    assert len(found.rows) == 3
    assert all(row.old.text == f"About Mug {row.item_id} ‹b›" for row in found.rows)
    assert all(row.new.text == f"Say Mug {row.item_id} ‹b›" for row in found.rows)
    assert store.table(GENERATIONS).count() == 6
    plans: list[int] = []

    def plan_only(trial: DescribeConfig) -> None:
        plans.append(DescribeStage(trial, store, tmp_path / "w").plan().to_do)

    again = compare_prompts(store, config, (old, new), 3, 0, tmp_path / "w", plan_only)
    assert (again, plans) == (found, [0, 0])


def test_the_seed_decides_the_sample_whatever_the_prompts_say(store, config, tmp_path: Path) -> None:
    a, b, c = (prompt(tmp_path, name, f"{name} {{{{ title }}}}") for name in "abc")
    drawn = {row.item_id for row in compared(store, config, tmp_path, a, b).rows}
    assert {row.item_id for row in compared(store, config, tmp_path, a, c).rows} == drawn
    assert {row.item_id for row in compared(store, config, tmp_path, a, b, seed=1).rows} != drawn
    assert len(compared(store, config, tmp_path, a, b, items=50).rows) == 10


def test_prompts_of_different_views_or_without_items_are_refused(store, config, tmp_path: Path) -> None:
    old, look = prompt(tmp_path, "old", "About {{ title }}"), prompt(tmp_path, "look", "Look", "image")
    with pytest.raises(StageError, match=r"different views \(text, image\)"):
        compared(store, config, tmp_path, old, look)
    with pytest.raises(StageError, match="no item in the store"):
        compared(store, config, tmp_path, look, prompt(tmp_path, "see", "See", "image"))


def test_a_prompt_alone_is_compared_with_the_one_in_use(config, tmp_path: Path) -> None:
    assert prompt_in_use(config, prompt(tmp_path, "mine", "{{ title }}")) == "summary"
    with pytest.raises(StageError, match=r"view joint, and no prompt in describe\.prompts does"):
        prompt_in_use(config, prompt(tmp_path, "both", "{{ title }}", "joint"))
