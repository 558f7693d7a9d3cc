"""`dmesr prompts diff` on a night's shop, and describe and embed limited to some items."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from flows import command_line, flow_runs, prompt_commands
from storage.schemas import GENERATIONS, ITEMS
from tasks.prompt_files import PROMPT_FOLDER


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Catch what would run a flow, or a stage's process."""
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr(flow_runs, "run_one_stage", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(prompt_commands, "run_isolated", lambda *arguments: calls.append(arguments))
    return calls


def dmesr(*arguments: str) -> str:
    result = CliRunner().invoke(command_line.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_prompt_that_asks_the_same_reuses_the_stored_answers(night, asked, tmp_path: Path) -> None:
    shutil.copy(PROMPT_FOLDER / "caption.yaml", tmp_path / "mine.yaml")
    config = str(night.shop.config_file)
    output = dmesr("prompts", "diff", str(tmp_path / "mine.yaml"), "--config", config, "--items", "5")
    assert "caption: describe: 5 answers: 0 new" in output and asked == []
    assert "0 of 5 answers differ: " in output
    page = Path(output.rpartition("differ: ")[2].replace("\n", ""))
    assert page.is_relative_to(night.shop.folder)
    text = page.read_text()
    assert text.count("data:image/webp") == 5 and "Usable: 5 before, 5 after" in text


def test_what_a_new_prompt_lacks_is_asked_for_on_the_same_items_alone(night, asked, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: mine\nview: text\nuser: 'Say {{ title }}'\n")
    config, out = str(night.shop.config_file), tmp_path / "page.html"
    output = dmesr("prompts", "diff", "summary", str(mine), "-c", config, "--items", "4", "--out", str(out))
    assert f"{mine}: describe: " in output and "0 failed before, 0 up to date" in output  # equal texts share an answer
    ((pipeline, stage, _),) = asked
    assert stage == "describe" and pipeline.describe.prompts == (str(mine),)
    assert len(pipeline.describe.items.read_text().split()) == 4
    assert out.read_text().count("not asked") == 4  # nothing ran here


def test_describe_and_embed_say_their_plan_and_take_their_items_from_a_file(night, asked, tmp_path: Path) -> None:
    store = night.shop.config.open_store()
    ids = store.table(ITEMS).read("item_id")["item_id"].head(3).to_list()
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    config, given = str(night.shop.config_file), str(tmp_path / "ids.txt")
    wanted = store.table(GENERATIONS).scan().filter(pl.col("item_id").is_in(ids)).collect().height
    output = dmesr("describe", "--config", config, "--items", given, "--retry-failed")
    assert f"describe: {wanted} answers: 0 new" in output
    assert asked[-1][3] == [f'describe.items="{given}"', "describe.retry_failed=true"]
    assert "embed: " in dmesr("embed", "--config", config, "--items", given)
    assert asked[-1][3] == [f'embed.items="{given}"']
