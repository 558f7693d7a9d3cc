"""What the UI shows of the small shop's night."""

import polars as pl
import pytest

from flows.findings import captions, findings, metrics, rejects, training_curves
from storage.schemas import REJECTS, RUNS
from tasks.stage import Summary


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


def test_captions_stand_beside_their_pictures(night, summary_of) -> None:
    text = captions(night.shop.config, summary_of("describe"))
    rows = text.splitlines()[2:]
    assert len(rows) == 12
    assert any("data:image/webp;base64," in row and "**image**: " in row for row in rows)


def test_curves_are_a_picture_with_the_best_validation_of_each_model(night, summary_of) -> None:
    text = training_curves(night.shop.config, summary_of("train"))
    assert text.startswith("![training curves](data:image/png;base64,")
    assert text.count("| 2 |") == 2  # two models, two epochs


def test_metrics_say_when_there_is_nothing_to_compare_with(night, summary_of) -> None:
    text = metrics(night.shop.config, summary_of("evaluate"))
    assert "popularity" in text and "There is no earlier evaluation" in text


def test_other_stages_have_nothing_to_show(night, summary_of) -> None:
    assert findings(night.shop.config, summary_of("embed")) is None
