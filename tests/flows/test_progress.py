from flows.progress import sentence
from tasks.stage import Progress


def test_progress_says_how_far_how_fast_and_how_long() -> None:
    # 750 left at 50 a second: 15 s
    line = sentence("describe", Progress(250, 1000, "answers", 50.0))
    assert line == "describe: 250 of 1,000 answers, 50.0 a second, about 15 s left"


def test_progress_without_a_rate_yet() -> None:
    assert sentence("embed", Progress(0, 10, "texts", 0.0)) == "embed: 0 of 10 texts"


def test_progress_at_the_end() -> None:
    assert sentence("embed", Progress(10, 10, "texts", 2.0)) == "embed: 10 of 10 texts, 2.0 a second"
