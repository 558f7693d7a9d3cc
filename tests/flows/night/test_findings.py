"""What the UI shows of the small shop's night."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from flows import artifacts, overview, stage_tasks
from flows.artifacts import publish_findings
from flows.findings import captions, findings, metrics, rejects, training_curves
from storage.schemas import REJECTS, RUNS
from storage.tables import Store
from tasks.features import DatasetKeys
from tasks.ingest.stage import DeliveryRefusedError, IngestConfig, IngestStage
from tasks.stage import Summary
from tasks.trained_models import ModelRef


@pytest.fixture
def summary_of(night):
    def summary(stage: str) -> Summary:
        runs = night.shop.config.open_store().table(RUNS).read("stage", "run_id", "started_at")
        ids = runs.filter(pl.col("stage") == stage).sort("started_at")["run_id"]
        return Summary(stage, ids[-1] if len(ids) else "none", "rows", {}, 1.0)

    return summary


def test_refused_rows_are_listed_with_their_reasons(night, summary_of) -> None:
    config = night.shop.config
    run_id = config.open_store().table(REJECTS).read("run_id")["run_id"][0]
    text = rejects(config, Summary("ingest", run_id, "rows", {}, 1.0))
    assert "4 rows" in text and "picture_not_a_picture" in text  # the sample shop's four broken pictures
    assert "Nothing new in this run." in rejects(config, Summary("ingest", "another", "rows", {}, 1.0))


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_refused_delivery_leaves_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempt: int) -> None:
    (tmp_path / "catalog.jsonl").write_text("{broken\n")
    store = Store(tmp_path / "store")
    stage = IngestStage(IngestConfig(catalog=tmp_path / "catalog.jsonl"), store, tmp_path / "work")
    published = []
    monkeypatch.setattr(artifacts, "create_markdown_artifact", lambda text, key, **_: published.append((key, text)))
    monkeypatch.setattr(stage_tasks, "stage_named", lambda config, name: stage)
    monkeypatch.setattr(stage_tasks, "ProgressReporter", lambda name: lambda progress: None)
    config = SimpleNamespace(open_store=lambda: store, work_folder=tmp_path / "work")
    for _ in range(attempt):
        with pytest.raises(DeliveryRefusedError, match="`dmesr rejects` lists refused rows"):
            stage_tasks.run_stage_task.fn(config, "ingest", True, ())
    key, text = published[-1]
    assert key == "rejects" and "| catalog.jsonl | 1 |" in text and "write one JSON object" in text.replace("<br>", " ")
    assert ("Refused last" in text) == (attempt == 2)
    assert "broken_json" in overview.rejects(config, 20)


def test_captions_stand_beside_their_pictures(night, summary_of) -> None:
    text = captions(night.shop.config, summary_of("describe"))
    rows = text.splitlines()[2:]
    assert len(rows) == 12
    assert any("data:image/webp;base64," in row and "**image**: " in row for row in rows)


def begun_model(work_folder: Path, seed: int, day: int) -> Path:
    """The folder of a model whose training began on a day of January."""
    key = f"key{seed}"
    model = ModelRef("dmesr", seed, key, work_folder / "models" / key, {"model": {}, "train": {}}, "c")
    model.record_start(DatasetKeys("f", "s", "h", 1, 1, 1, "c", "e", ()), datetime(2026, 1, day, tzinfo=UTC))
    return model.folder


def test_curves_are_a_picture_with_the_best_validation_of_each_model(night, summary_of) -> None:
    text = training_curves(night.shop.config, summary_of("train"))
    assert text.startswith("![training curves](data:image/png;base64,")
    assert text.count("| 2 |") == 2  # two models, two epochs


def test_curves_of_models_trained_with_nothing_held_out(tmp_path: Path) -> None:
    for day, (seed, validation) in enumerate(((5, 0.25), (3, None)), start=1):
        line = {"epoch": 0, "loss": 1.5, "validation_ndcg_at_10": validation, "epoch_ended": True}
        (begun_model(tmp_path, seed, day) / "progress.jsonl").write_text(json.dumps(line) + '\n{"epoch": 1, "lo')
    begun_model(tmp_path, 9, 3)  # which has ended no epoch
    text = training_curves(SimpleNamespace(work_folder=tmp_path), None)
    assert text.splitlines()[-2:] == [
        "| dmesr, seed 5 (key5) | 1 | 1.5000 | 0.2500 |",
        "| dmesr, seed 3 (key3) | 1 | 1.5000 | none held out |",
    ]


def test_what_cant_be_shown_ends_no_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (begun_model(tmp_path, 0, 1) / "progress.jsonl").write_text("{broken\n")
    publish_findings(SimpleNamespace(work_folder=tmp_path), Summary("train", "run", "models", {}, 1.0))
    assert "what train found cannot be shown" in caplog.text


def test_metrics_say_when_there_is_nothing_to_compare_with(night, summary_of) -> None:
    text = metrics(night.shop.config, summary_of("evaluate"))
    assert "popularity" in text and "There is no earlier evaluation" in text


def test_other_stages_have_nothing_to_show(night, summary_of) -> None:
    assert findings(night.shop.config, summary_of("embed")) is None
