from uuid import uuid4

import pytest

from flows import progress
from flows.progress import ProgressReporter, sentence
from tasks.stage import Progress, Summary


def test_progress_says_how_far_how_fast_and_how_long() -> None:
    # 750 left at 50 a second: 15 s
    line = sentence("describe", Progress(250, 1000, "answers", 50.0))
    assert line == "describe: 250 of 1,000 answers, 50.0 a second, about 15 s left"


def test_progress_without_a_rate_yet() -> None:
    assert sentence("embed", Progress(0, 10, "texts", 0.0)) == "embed: 0 of 10 texts"


def test_progress_at_the_end() -> None:
    assert sentence("embed", Progress(10, 10, "texts", 2.0)) == "embed: 10 of 10 texts, 2.0 a second"


def test_a_stage_that_ends_short_of_its_total_is_shown_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, str]] = []
    monkeypatch.setattr(progress, "create_progress_artifact", lambda percent, key, text: uuid4())
    monkeypatch.setattr(progress, "update_progress_artifact", lambda _, percent, text: shown.append((percent, text)))
    reporter = ProgressReporter("ingest")
    reporter(Progress(627, 1227, "rows", 500.0))  # the other 600 had not changed
    summary = Summary("ingest", "run", "rows", {"done": 627}, 1.3)
    reporter.finish(summary)
    reporter.finish(summary)
    assert shown == [(100.0, "ingest: 627 rows in 1.3 s")]
