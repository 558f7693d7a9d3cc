"""`dmesr compare` on a shop that went through a night, and `dmesr experiment` up to its plan."""

from pathlib import Path

import yaml
from typer.testing import CliRunner

from flows.command_line import app

RUNNER = CliRunner()


def test_compare_says_values_intervals_and_tests(night) -> None:
    config = ["--config", str(night.shop.config_file)]
    found = RUNNER.invoke(app, ["compare", "dmesr", "popularity", "--slices", *config])
    assert found.exit_code == 0, found.output
    for said in ("all items ranked; * is the best of its column", "minus dmesr", "items_tail", "target among sampled"):
        assert said in found.output
    assert "id_only" not in found.output
    markdown = RUNNER.invoke(app, ["compare", "--markdown", "--metric", "hr@5", *config])
    assert "| model | hr@5 | interval | minus dmesr | interval | p |" in markdown.output
    listed = RUNNER.invoke(app, ["compare", "--list", *config])
    assert "evaluations, the newest first" in listed.output and "present" in listed.output
    wrong = RUNNER.invoke(app, ["compare", "--metric", "auc", *config])
    assert wrong.exit_code == 2 and "was not evaluated" in wrong.output


def test_experiment_plans_its_grid(night, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    data = [{"config": str(night.shop.config_file)}]
    models = [{"name": "dmesr"}, {"name": "no_fusion", "model": {"fusion": "none"}}]
    path.write_text(yaml.safe_dump({"name": "grid", "data": data, "models": models, "seeds": [0, 1, 2]}))
    found = RUNNER.invoke(app, ["experiment", "--config", str(path), "--plan"])
    assert found.exit_code == 0, found.output
    assert found.output.startswith("small_shop: experiment_train: 6 models: 6 new")
    assert not (night.shop.config.work_folder / "experiments" / "models").exists()
