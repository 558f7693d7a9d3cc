"""`dmesr prompts diff` on three items: whose work folder it holds while it asks, and where its pages are."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows import command_line, prompt_commands
from tasks.config import load_config
from tasks.pipeline import stage_named
from tasks.stage import StageError, run_stage
from tasks.work_lock import only_run


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    model = Path(__file__).parents[2] / "sample_shop" / "tiny_vlm" / "checkpoint"
    lines = [f'{{"item_id": "{number}", "title": "Mug {number}"}}\n' for number in range(3)]
    (tmp_path / "catalog.jsonl").write_text("".join(lines))
    settings = {"name": "mugs", "store": {"url": "store"}, "work_folder": "work", "describe": {"model": str(model)}}
    (tmp_path / "mugs.yaml").write_text(yaml.safe_dump({**settings, "ingest": {"catalog": "catalog.jsonl"}}))
    (tmp_path / "mine.yaml").write_text("name: mine\nview: text\nuser: 'Say {{ title }}'\n")
    run_stage(stage_named(load_config(tmp_path / "mugs.yaml"), "ingest"), lambda _: None)
    return tmp_path / "mugs.yaml"


def diff(config_file: Path, *options: str) -> Path:
    words = ["prompts", "diff", str(config_file.with_name("mine.yaml")), "-c", str(config_file), *options]
    result = CliRunner().invoke(command_line.app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Path(re.sub(r"\s", "", result.output.rpartition("differ: ")[2]))


def test_no_night_begins_while_a_trial_asks(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned_away: list[str] = []

    def ask(*_: object) -> None:
        with pytest.raises(StageError) as refused, only_run(config_file.with_name("work"), "the night", patience=0.1):
            pytest.fail("two runs at once")
        turned_away.append(str(refused.value))

    monkeypatch.setattr(prompt_commands, "run_isolated", ask)
    diff(config_file)
    assert len(turned_away) == 2  # one for each prompt
    assert all("another run (the command prompts diff, process " in said for said in turned_away)
    with only_run(config_file.with_name("work"), "the night", patience=0.1):
        pass


def test_pages_of_other_samples_stand_beside_each_other(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_commands, "run_isolated", lambda *_: None)
    pages = {diff(config_file, "--items", "1", "--seed", str(seed)) for seed in range(6)}
    assert len(pages) == 3  # six draws of one from three items; each item is drawn
    assert {diff(config_file, "--items", "3", "--seed", seed) for seed in ("0", "1")} == {diff(config_file)}
    assert all(page.read_text(encoding="utf-8").startswith("<!doctype html>") for page in pages)
