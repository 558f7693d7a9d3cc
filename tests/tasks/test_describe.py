"""The describe stage against an engine that fails on command: nothing is lost, nothing is asked or stored twice.

Run as a script (`test_describe.py STORE MODEL SECONDS`), it describes the store with a slow engine, to be killed.
"""

import io
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import polars as pl
import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from storage.digests import digest_of_text
from storage.pictures import PictureStore
from storage.schemas import GENERATIONS, ITEMS
from storage.tables import Store
from tasks.describe import DescribeConfig, DescribeStage
from tasks.describe_rows import with_items
from tasks.engines.protocol import Completion, EngineDied, Request
from tasks.stage import Plan, Progress, StageError, Summary, run_stage

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class ScriptedEngine:
    """Answers "about <user turn>"; refuses, dies or hangs where the user turn holds the word for it."""

    starts = 0

    def __init__(self, room: int = 4, seconds: float = 0.0) -> None:
        type(self).starts += 1
        self._queue: deque[Request] = deque()
        self._room = room
        self._seconds = seconds
        self.asked: list[str] = []
        self.digests: list[str | None] = []
        self.sizes: list[tuple[int, int] | None] = []

    @property
    def room(self) -> int:
        return self._room - len(self._queue)

    def submit(self, request: Request) -> None:
        self.asked.append(request.user)
        self.digests.append(request.picture_digest)
        self.sizes.append(request.picture and request.picture.size)
        self._queue.append(request)

    def completions(self, timeout_seconds: float) -> Sequence[Completion]:
        time.sleep(self._seconds)
        for word, kind in (("poison", "engine_died"), ("hang", "engine_hung")):
            if any(word in request.user for request in self._queue):
                raise EngineDied(kind, f"{word} was asked")
        # The latest first: answers come in any order.
        return [_answer(self._queue.pop())] if self._queue else []

    def close(self) -> None:
        pass


def _answer(request: Request) -> Completion:
    if "refuse" in request.user:
        return Completion(request.key, error_kind="request_refused", error_detail="too long")
    if "lost" in request.user:
        return Completion(request.key, error_kind="http_503", error_detail="HTTP 503: down")
    words = "on and on and on and on and on and on and on" if "loop" in request.user else f"about {request.user}"
    return Completion(request.key, words, "length" if "long" in request.user else "stop", 5, 3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "see.yaml").write_text("name: see\nview: image\nuser: Look.\n")
    (tmp_path / "read.yaml").write_text("name: read\nview: text\nuser: '{{ title }}'\n")
    return str(tmp_path / "see.yaml"), str(tmp_path / "read.yaml")


def put(store: Store, *titles: str, pictures: dict[str, tuple[str, str]] | None = None) -> None:
    rows = []
    for title in titles:
        reference, digest = (pictures or {}).get(title, (None, None))
        texts = {"title": title, "title_digest": digest_of_text(title)}
        rows.append({"item_id": title, "image_reference": reference, "image_digest": digest, "active": True, **texts})
    schema = store.table(ITEMS).empty().schema
    store.table(ITEMS).upsert(pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema))


def config_for(model: Path, prompts: tuple[str, ...], **more: object) -> DescribeConfig:
    return DescribeConfig.model_validate({"model": str(model), "prompts": prompts, **more})


def describe(store: Store, config: DescribeConfig, folder: Path, room: int = 4) -> Summary:
    stage = DescribeStage(config, store, folder / "work", start=lambda _: ScriptedEngine(room))
    return run_stage(stage, lambda progress: None)


def planned(store: Store, config: DescribeConfig, folder: Path) -> Plan:
    return DescribeStage(config, store, folder / "work").plan()


def rows_of(store: Store) -> dict[str, tuple[str, str | None, int]]:
    table = store.table(GENERATIONS).read("item_id", "status", "error_kind", "attempts")
    assert table["item_id"].is_unique().all()
    return {item_id: rest for item_id, *rest in table.iter_rows()}  # type: ignore[misc]


def test_every_item_gets_its_answer_once_and_a_second_run_starts_no_engine(store, model, prompts, tmp_path) -> None:
    put(store, *"abcdefghij")
    config = config_for(model, prompts[1:])
    assert describe(store, config, tmp_path).counts == {"up_to_date": 0, "done": 10, "ok": 10}
    texts = dict(store.table(GENERATIONS).read("item_id", "text").iter_rows())
    assert texts == {name: f"about {name}" for name in "abcdefghij"}
    starts = ScriptedEngine.starts
    assert describe(store, config, tmp_path).counts == {"up_to_date": 10, "done": 0}
    assert ScriptedEngine.starts == starts


def test_the_plan_tells_new_from_changed(store, model, prompts, tmp_path) -> None:
    put(store, "a", "b")
    config = config_for(model, prompts[1:])
    describe(store, config, tmp_path)
    put(store, "c")
    plan = planned(store, config, tmp_path)
    assert (plan.new, plan.changed, plan.up_to_date) == (1, 0, 2)
    (tmp_path / "read.yaml").write_text("name: read\nview: text\nuser: 'Say {{ title }}'\n")
    plan = planned(store, config, tmp_path)
    assert (plan.new, plan.changed, plan.up_to_date) == (1, 2, 0)


def test_answers_that_are_no_use_are_stored_with_their_status(store, model, prompts, tmp_path) -> None:
    put(store, "good", "long", "loop")
    summary = describe(store, config_for(model, prompts[1:]), tmp_path)
    assert {item: row[0] for item, row in rows_of(store).items()} == {
        "good": "ok",
        "long": "cut_off",
        "loop": "repeating",
    }
    assert summary.counts["done"] == 3


def test_a_refused_request_is_a_row_and_is_tried_again_until_given_up(store, model, prompts, tmp_path) -> None:
    put(store, "a", "refuse", "b")
    config = config_for(model, prompts[1:], max_attempts=2)
    describe(store, config, tmp_path)
    assert rows_of(store)["refuse"] == ["failed", "request_refused", 1]
    assert planned(store, config, tmp_path).failed_before == 1
    describe(store, config, tmp_path)
    assert rows_of(store) == {
        "a": ["ok", None, 1],
        "b": ["ok", None, 1],
        "refuse": ["failed", "request_refused", 2],
    }
    plan = planned(store, config, tmp_path)
    assert (plan.to_do, plan.up_to_date) == (0, 2)  # a and b
    assert plan.notes[0].startswith("1 more given up after 2 attempts: --retry-failed")
    assert planned(store, config_for(model, prompts[1:], retry_failed=True), tmp_path).failed_before == 1


@pytest.mark.parametrize(("word", "kind"), [("poison", "engine_died"), ("hang", "engine_hung")])
def test_a_request_that_brings_the_engine_down_is_found_and_set_aside(
    word: str, kind: str, store, model, prompts, tmp_path
) -> None:
    put(store, "a", "b", word, "c", "d", "e")
    starts = ScriptedEngine.starts
    summary = describe(store, config_for(model, prompts[1:]), tmp_path)
    found = rows_of(store)
    assert found.pop(word) == ["failed", kind, 1]
    assert {row[0] for row in found.values()} == {"ok"}
    assert len(found) == 5
    assert summary.details == {kind: 1}
    # The first engine, one after it died among four requests, one after the culprit killed it alone.
    assert ScriptedEngine.starts - starts == 3


def test_a_request_that_an_engine_dies_with_once_gets_its_answer(store, model, prompts, tmp_path) -> None:
    put(store, "a")
    engines = [ScriptedEngine(), ScriptedEngine()]
    engines[1].completions = Mock(side_effect=EngineDied("engine_died", "killed for memory"))
    stage = DescribeStage(config_for(model, prompts[1:]), store, tmp_path / "work", start=lambda _: engines.pop())
    run_stage(stage, lambda _: None)
    assert rows_of(store) == {"a": ["ok", None, 1]}


def test_requests_that_killed_before_come_last(store, model, prompts, tmp_path) -> None:
    put(store, "a", "poison")
    config = config_for(model, prompts[1:])
    describe(store, config, tmp_path)
    put(store, "b", "c")
    assert planned(store, config, tmp_path).work["item_id"].to_list()[-1] == "poison"


def test_what_failed_before_comes_after_what_is_new_whichever_file_it_is_in(store, model, prompts, tmp_path) -> None:
    put(store, "fresh 1", "fresh 2")
    put(store, "refuse 1", "poison 1")
    config = config_for(model, prompts)
    describe(store, config, tmp_path)
    put(store, "fresh 3", "fresh 4")
    work = planned(store, config, tmp_path).work
    frames = [frame["item_id"].to_list() for frame in with_items(store, work, rows=1)]
    assert sorted(frames[:2]) == [["fresh 3"], ["fresh 4"]] and frames[2:] == [["refuse 1"], ["poison 1"]]


def test_items_are_read_once_however_few_are_handed_on_at_a_time(store, model, prompts, tmp_path, monkeypatch) -> None:
    put(store, *(f"item {number}" for number in range(8)))
    work = planned(store, config_for(model, prompts), tmp_path).work
    parts, read = store.table(ITEMS).parts, list[object]()
    monkeypatch.setattr(store.table(ITEMS), "parts", lambda: (read.append(part) or part for part in parts()))
    assert [frame.height for frame in with_items(store, work, rows=3)] == [3, 3, 2]
    assert len(read) == 1


def test_an_engine_that_keeps_dying_stops_the_stage_and_what_was_answered_stays(
    store, model, prompts, tmp_path
) -> None:
    put(store, "a", "b", "poison1", "poison2", "poison3")
    with pytest.raises(StageError, match=r"describe\.max_restarts"):
        describe(store, config_for(model, prompts[1:], max_restarts=3), tmp_path, room=1)
    died = ["failed", "engine_died", 1]  # the second is known by the death that leaves no start for the third
    assert rows_of(store) == {"a": ["ok", None, 1], "b": ["ok", None, 1], "poison1": died, "poison2": died}


def test_a_broken_picture_costs_no_other_item_its_answer(store, model, prompts, tmp_path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    good = PictureStore(store).save(buffer.getvalue())
    broken = PictureStore(store).save(buffer.getvalue()[:60])
    put(store, "good", "broken", "gone", pictures={"good": good, "broken": broken, "gone": ("pictures/no", "0")})
    describe(store, config_for(model, prompts[:1]), tmp_path)
    found = rows_of(store)
    assert found["good"] == ["ok", None, 1]
    assert found["gone"] == ["failed", "picture_missing", 1]
    assert found["broken"][0] == "failed" and found["broken"][1].startswith("picture_")


def test_an_engine_is_told_the_digest_of_a_picture_and_of_no_other_request(store, model, prompts, tmp_path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    reference, digest = PictureStore(store).save(buffer.getvalue())
    put(store, "mug", pictures={"mug": (reference, digest)})
    engine = ScriptedEngine()
    run_stage(
        DescribeStage(config_for(model, prompts), store, tmp_path / "work", start=lambda _: engine), lambda _: None
    )
    assert dict(zip(engine.asked, engine.digests, strict=True)) == {"Look.": digest, "mug": None}


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ((56, 28), (56, 28)),  # 1,568 pixels: at the limit
        ((224, 112), (56, 28)),  # 16 times as many: a quarter of each side
        ((57, 28), (56, 27)),
    ],
)
def test_a_picture_is_scaled_down_to_the_most_pixels(given, asked, store, model, prompts, tmp_path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", given, "red").save(buffer, "PNG")
    put(store, "mug", pictures={"mug": PictureStore(store).save(buffer.getvalue())})
    engine = ScriptedEngine()
    config = config_for(model, prompts[:1], max_pixels=1568)
    run_stage(DescribeStage(config, store, tmp_path / "work", start=lambda _: engine), lambda _: None)
    assert engine.sizes == [asked]


def test_a_template_that_fails_on_an_item_costs_no_other_item_its_answer(store, model, prompts, tmp_path) -> None:
    put(store, "1", "0", "2")
    path = tmp_path / "divide.yaml"
    path.write_text("name: divide\nview: text\nuser: '{{ title and 1 / title|int }}'\n")
    describe(store, config_for(model, (str(path),)), tmp_path)
    found = rows_of(store)
    assert found == {"1": ["ok", None, 1], "2": ["ok", None, 1], "0": ["failed", "prompt_error", 1]}


def test_a_run_whose_server_goes_away_late_stops_and_what_was_answered_stays(store, model, prompts, tmp_path) -> None:
    put(store, *(f"{n:03}" for n in range(300)), *(f"lost {n:03}" for n in range(200)))
    config = config_for(model, prompts[1:])
    with pytest.raises(StageError, match=r"the last 100 requests to the server failed one after another \(http_503\)"):
        describe(store, config, tmp_path)
    statuses = store.table(GENERATIONS).read("status")["status"]
    assert (statuses == "failed").sum() == 100 and (statuses == "ok").sum() > 290
    assert planned(store, config, tmp_path).new == 500 - len(statuses)


def test_a_small_run_none_of_whose_requests_the_server_takes_is_no_success(store, model, prompts, tmp_path) -> None:
    put(store, "lost 1", "lost 2")
    config = config_for(model, prompts[1:])
    with pytest.raises(
        StageError, match=r"all 2 requests to the server failed \(http_503\); see that the server is up"
    ):
        describe(store, config, tmp_path)
    store.table(GENERATIONS).delete("true")
    put(store, "0")
    path = tmp_path / "divide.yaml"
    path.write_text("name: divide\nview: text\nuser: '{{ 1 / (title != \"0\")|int }} {{ title }}'\n")
    with pytest.raises(StageError, match="all 2 requests to the server failed"):  # 0 never reached it
        describe(store, config_for(model, (str(path),)), tmp_path)
    put(store, "3")  # one answer: the server is there, and what failed is the items' own affair
    assert describe(store, config, tmp_path).counts["failed"] == 2


def test_a_run_in_which_most_requests_fail_stops(store, model, prompts, tmp_path) -> None:
    put(store, *(f"refuse {i}" for i in range(150)))
    with pytest.raises(StageError, match="100 request_refused"):
        describe(store, config_for(model, prompts[1:]), tmp_path)
    assert len(rows_of(store)) == 100


def test_progress_is_reported_in_answers(store, model, prompts, tmp_path) -> None:
    put(store, *"abc")
    seen: list[Progress] = []
    stage = DescribeStage(config_for(model, prompts[1:]), store, tmp_path / "w", start=lambda _: ScriptedEngine())
    run_stage(stage, seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (3, 3, "answers")


def test_killed_at_any_moment_it_goes_on_without_a_lost_or_doubled_row(store, model, prompts, tmp_path) -> None:
    titles = [f"item {i}" for i in range(60)]
    put(store, *titles)
    for kill_after_rows in (1, 15, 35):
        child = subprocess.Popen([sys.executable, __file__, store.url, str(model), prompts[1], str(tmp_path / "work")])
        deadline = time.monotonic() + 30
        while store.table(GENERATIONS).count() < kill_after_rows and time.monotonic() < deadline:
            time.sleep(0.02)
        child.kill()
        child.wait()
    assert 35 <= store.table(GENERATIONS).count() < 60
    describe(store, config_for(model, prompts[1:]), tmp_path)
    assert rows_of(store) == {title: ["ok", None, 1] for title in titles}


def _describe_slowly(url: str, model: str, prompt: str, folder: str) -> None:
    config = config_for(Path(model), (prompt,), commit_seconds=0.1)
    stage = DescribeStage(config, Store(url), Path(folder), start=lambda _: ScriptedEngine(seconds=0.03))
    run_stage(stage, lambda progress: None)


if __name__ == "__main__":
    _describe_slowly(*sys.argv[1:])
