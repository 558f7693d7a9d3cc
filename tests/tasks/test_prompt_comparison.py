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
from tasks.describe import DescribeConfig
from tasks.engines.protocol import Completion, Request
from tasks.prompt_comparison import compare_prompts, comparison_page
from tasks.prompt_files import load_prompt
from tasks.stage import StageError


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


def test_a_sample_is_answered_under_both_prompts_and_the_answers_are_kept(store, config, tmp_path: Path) -> None:
    old, new = prompt(tmp_path, "old", "About {{ title }}"), prompt(tmp_path, "new", "Say {{ title }}")
    rows = compare_prompts(store, config, old, new, 3, tmp_path / "w", lambda progress: None, lambda _: Echo())
    assert len(rows) == 3
    assert all(row.old.text == f"About Mug {row.item_id} ‹b›" for row in rows)
    assert all(row.new.text == f"Say Mug {row.item_id} ‹b›" for row in rows)
    assert store.table(GENERATIONS).count() == 6

    def no_engine(_: DescribeConfig) -> Echo:
        raise AssertionError("a second comparison asks nothing")

    assert compare_prompts(store, config, old, new, 3, tmp_path / "w", lambda progress: None, no_engine) == rows
    page = comparison_page(store, load_prompt(old), load_prompt(new), rows)
    assert "3 of 3 answers differ" in page
    assert "<b>" not in page and "Mug" in page


def test_prompts_of_different_views_are_refused(store, config, tmp_path: Path) -> None:
    old, new = prompt(tmp_path, "old", "About {{ title }}"), prompt(tmp_path, "new", "Look", "image")
    with pytest.raises(StageError, match="different views"):
        compare_prompts(store, config, old, new, 3, tmp_path / "w", lambda progress: None)
