import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from storage.schemas import REJECTS, RUNS
from tasks.evaluate import EvaluateConfig, EvaluateStage
from tasks.recommend import RecommendConfig
from tasks.report import ReportStage, report_path
from tasks.report.operations import refused_input, run_table
from tasks.report.page import ReportConfig
from tasks.stage import run_stage
from tasks.train import TrainStageConfig

EVALUATE, RECOMMEND = EvaluateConfig(), RecommendConfig(k=5)


def stage(shop, train: TrainStageConfig, config: ReportConfig) -> ReportStage:
    places = (shop.describe, shop.embed, shop.store, shop.work_folder)
    return ReportStage(config, EVALUATE, RECOMMEND, train, *places)


class Outline(HTMLParser):
    """Collects what accessibility and self-containment are judged by."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def test_the_page_holds_everything_and_nothing_hostile(reported_shop, small_models) -> None:
    config = ReportConfig(items=30, title="A & B")
    summary = run_stage(stage(reported_shop, small_models, config), lambda progress: None)
    html = report_path(reported_shop.work_folder).read_text(encoding="utf-8")
    assert summary.details["bytes"] == len(html.encode())
    assert "<script" not in html
    assert "onerror" not in re.sub(r"&lt;.*?&gt;", "", html)
    assert "&lt;script&gt;" in html
    assert "A &amp; B" in html
    page = Outline(html)
    for name in ("accuracy", "slices", "training", "alignment", "items", "users", "troubles", "runs"):
        assert f'id="{name}"' in html
    assert "duplicate_id" in html
    assert '<th scope="col">MiB of memory</th>' in html
    assert re.search(r"<td[^>]*>max_epochs</td>", html)
    assert "refusal" in html
    assert "described by made/model (prompts caption, summary); embedded by made/encoder; trained on sasrec" in html
    pictures = page.all("img")
    assert pictures and all(picture["alt"] and (picture["src"] or "").startswith("data:") for picture in pictures)
    outside = [value for attributes in page.all("a", "link", "img") for value in (attributes.get("href"),) if value]
    assert all(value.startswith(("#", "data:")) for value in outside)
    assert all(attributes.get("scope") for attributes in page.all("th"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert "dmesr ranks the item that a user chose next" in html
    markdown = (report_path(reported_shop.work_folder).parent / "summary.md").read_text(encoding="utf-8")
    assert "| id_only (2 seeds) |" in markdown


def test_the_page_is_made_again_only_if_something_changed(reported_shop, small_models) -> None:
    run_stage(stage(reported_shop, small_models, ReportConfig()), lambda progress: None)
    again = run_stage(stage(reported_shop, small_models, ReportConfig()), lambda progress: None)
    assert again.counts == {"up_to_date": 1, "done": 0}
    assert stage(reported_shop, small_models, ReportConfig(items=2)).plan().changed == 1
    reported_shop.put_events(("u00", "i29", 99))
    assert stage(reported_shop, small_models, ReportConfig()).plan().changed == 1
    report_path(reported_shop.work_folder).unlink()
    assert stage(reported_shop, small_models, ReportConfig()).plan().new == 1


def test_a_model_that_an_earlier_version_saved_is_left_out_with_a_note(reported_shop, small_models) -> None:
    for path in (reported_shop.work_folder / "models").glob("*/model/config.json"):
        settings = json.loads(path.read_text())
        settings["model"]["setting_of_an_earlier_version"] = 1
        path.write_text(json.dumps(settings))
    run_stage(stage(reported_shop, small_models, ReportConfig()), lambda progress: None)
    html = report_path(reported_shop.work_folder).read_text(encoding="utf-8")
    assert re.search(r"dmesr, seed 0 \(\w{10}\), which recommends, can&#39;t be loaded by this version", html)
    assert "Nearest" not in html and "dmesr ranks the item that a user chose next" in html
    assert stage(reported_shop, small_models, ReportConfig()).plan().to_do == 1  # until it can be whole


def test_the_newest_refusals_are_the_examples(hand_made_shop) -> None:
    table = hand_made_shop.store.table(REJECTS)
    for hour, reason in ((2, "newest"), (1, "older")):
        row = {"stage": "ingest", "source": "catalog.jsonl", "row": hour, "reason": reason, "detail": "mend it"}
        table.append(hand_made_shop._frame(REJECTS, [row | {"created_at": datetime(2026, 1, 1, hour, tzinfo=UTC)}]))
    found = refused_input(SimpleNamespace(store=hand_made_shop.store), 1)
    assert (found.total, found.examples) == (2, [("catalog.jsonl, row 2", "newest", "mend it")])


def test_the_last_run_that_did_something_or_failed_is_shown(hand_made_shop) -> None:
    table = hand_made_shop.store.table(RUNS)
    runs = (("train", "completed", 2), ("train", "completed", 0), ("embed", "completed", 5), ("embed", "failed", 0))
    for hour, (name, status, done) in enumerate(runs):
        row = {"run_id": str(hour), "stage": name, "status": status, "seconds": 1.0, "counts": f'{{"done": {done}}}'}
        table.append(hand_made_shop._frame(RUNS, [row | {"started_at": datetime(2026, 1, 1, hour, tzinfo=UTC)}]))
    rows = run_table(SimpleNamespace(store=hand_made_shop.store)).rows
    shown = {name: [cell.text for cell in cells[:3]] for name, cells in rows}
    assert shown == {
        "embed": ["2026-01-01 03:00", "failed", "0"],
        "train": ["2026-01-01 00:00", "completed", "2"],
    }


def test_an_empty_store_gives_a_page_too(hand_made_shop) -> None:
    run_stage(stage(hand_made_shop, TrainStageConfig(), ReportConfig()), lambda progress: None)
    html = Path(report_path(hand_made_shop.work_folder)).read_text(encoding="utf-8")
    assert "No model has been evaluated yet." in html
    assert "The catalog is empty." in html


def test_a_model_that_saw_the_test_events_is_named_before_all_numbers(reported_shop, small_models) -> None:
    first = small_models.variants[0]
    leaky = small_models.model_copy(
        update={"variants": (first.model_copy(update={"train": {**first.train, "split": "none"}}),)}
    )
    reported_shop.pretend_to_train(leaky)
    places = (leaky, reported_shop.describe, reported_shop.embed, reported_shop.store, reported_shop.work_folder)
    run_stage(EvaluateStage(EvaluateConfig(), *places), lambda progress: None)
    run_stage(ReportStage(ReportConfig(), EvaluateConfig(), RecommendConfig(k=5), *places), lambda progress: None)
    short = report_path(reported_shop.work_folder).with_name("summary.md").read_text()
    assert f"- {first.name} trained on the test events, too (train.train.split)" in short
