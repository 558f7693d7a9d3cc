import json

import polars as pl
import pytest

from storage.schemas import INTERACTIONS, ITEMS, REJECTS, RUNS
from storage.tables import Store
from tasks.ingest import events
from tasks.ingest.stage import IngestConfig, IngestStage
from tasks.stage import StageError, run_stage

APPLE = {"item_id": "a", "title": "Apple", "description": "Red.", "color": "red"}
BREAD = {"item_id": "b", "title": "Bread", "description": "Brown.", "tags": ["food", None, "baked"]}
CHEESE = {"item_id": "c", "title": "Cheese", "weight": 2.0, "none": None}


def test_items_and_events_are_taken_in(shop):
    shop.catalog(APPLE, BREAD, CHEESE)
    shop.events("u,a,1700000001", "u,b,1700000000", "u,c,1700000000")
    plan = shop.plan()
    assert (plan.new, plan.changed, plan.failed_before, plan.up_to_date) == (6, 0, 0, 0)
    summary = shop.ingest()
    assert summary.counts["items_new"] == 3
    assert summary.counts["events_new"] == 3
    assert shop.items("title", "description", "attributes", "active") == [
        ("a", "Apple", "Red.", '{"color": "red"}', True),
        ("b", "Bread", "Brown.", '{"tags": ["food", "baked"]}', True),
        ("c", "Cheese", None, '{"weight": "2"}', True),
    ]
    assert shop.rows(INTERACTIONS, "file_order", "user_id", "item_id", "timestamp") == [
        (0, "u", "a", 1_700_000_001_000),
        (1, "u", "b", 1_700_000_000_000),
        (2, "u", "c", 1_700_000_000_000),
    ]


@pytest.mark.parametrize("with_note", [True, False])
def test_the_same_files_again_change_nothing_but_runs(shop, with_note):
    shop.catalog(APPLE, "{broken", BREAD, APPLE)
    shop.events("u,a,1700000001", "u,nowhere,1700000001")
    shop.ingest()
    versions = shop.versions()
    if not with_note:
        (shop.work_folder / "ingest_memo.json").unlink()
    plan = shop.plan()
    assert plan.to_do == 0
    assert plan.up_to_date == 3  # 2 items, 1 event
    shop.ingest()
    assert shop.versions() == versions
    assert shop.store.table(RUNS).count() == 2


def test_changed_gone_and_back(shop):
    shop.catalog(APPLE, BREAD, CHEESE)
    shop.ingest()
    first = dict(shop.items("first_seen_at"))
    shop.catalog({**APPLE, "description": "Green."}, BREAD)
    plan = shop.plan()
    assert (plan.new, plan.changed, plan.up_to_date) == (0, 2, 1)  # a changed, c gone
    shop.ingest()
    assert shop.items("description", "active") == [("a", "Green.", True), ("b", "Brown.", True), ("c", None, False)]
    shop.catalog(APPLE, BREAD, CHEESE)
    assert shop.plan().changed == 2  # a changed again, c back
    summary = shop.ingest()
    assert (summary.counts["items_changed"], summary.counts["items_returned"]) == (1, 1)
    assert shop.items("description", "active")[2] == ("c", None, True)
    assert dict(shop.items("first_seen_at")) == first


def test_only_changed_rows_are_written(shop):
    shop.catalog(APPLE, BREAD)
    first = shop.ingest().run_id
    shop.catalog(APPLE, {**BREAD, "title": "Cream"})  # a file of the same size
    second = shop.ingest().run_id
    assert shop.items("run_id") == [("a", first), ("b", second)]


def test_an_attribute_alone_is_a_change(shop):
    shop.catalog(APPLE)
    shop.ingest()
    shop.catalog({**APPLE, "color": "green"})
    assert shop.ingest().counts["items_changed"] == 1
    assert shop.items("attributes") == [("a", '{"color": "green"}')]


def test_the_order_of_an_items_columns_is_no_change(shop):
    shop.catalog({"item_id": "a", "x": "1", "y": "2"})
    shop.ingest()
    shop.catalog({"y": "2", "x": "1", "item_id": "a"})
    assert shop.plan().to_do == 0


def test_events_are_cumulative_and_repeats_are_dropped(shop):
    shop.catalog(APPLE, BREAD)
    shop.events("u,a,1700000000", "u,a,1700000000", "u,b,1700000000")
    assert shop.ingest().counts["events_new"] == 2
    shop.events("u,b,1700000000", "v,a,1700000000")
    plan = shop.plan()
    assert (plan.new, plan.up_to_date) == (1, 3)  # one event new; one known, two items
    shop.ingest()
    assert shop.rows(INTERACTIONS, "file_order", "user_id", "item_id") == [(0, "u", "a"), (1, "u", "b"), (2, "v", "a")]


def test_an_id_that_is_a_number_in_one_file_and_a_text_in_the_other(shop):
    shop.catalog({"item_id": 1, "title": "one"}, {"item_id": "2", "title": "two"}, {"item_id": 3.0, "title": "three"})
    events = pl.DataFrame({"user_id": [7, 7, 8], "item_id": [1.0, 2.0, 3.0], "timestamp": [1_700_000_000] * 3})
    events.write_parquet(shop.delivery / "interactions.parquet")
    shop.ingest()
    assert [item for (item,) in shop.items()] == ["1", "2", "3"]
    assert shop.rows(INTERACTIONS, "item_id", "user_id") == [("1", "7"), ("2", "7"), ("3", "8")]
    assert shop.rejects() == []


def test_rejects_say_row_field_item_and_reason(shop):
    shop.catalog(
        APPLE,
        "{broken",
        {"item_id": "", "title": "no id"},
        {**APPLE, "title": "again"},
        {"item_id": "long", "description": "x" * 101},
    )
    shop.events("u,a,1700000000", "u,a,soon", "u,a,", ",a,1700000000", "u,nowhere,1700000000", "u,a,17")
    shop.ingest(max_text_chars=100)
    assert shop.rejects() == [
        (2, None, None, "broken_json"),
        (3, "item_id", None, "empty_id"),
        (3, "timestamp", "a", "bad_timestamp"),
        (4, "item_id", "a", "duplicate_id"),
        (4, "timestamp", "a", "missing_timestamp"),
        (5, "description", "long", "text_too_long"),
        (5, "user_id", "a", "empty_id"),
        (6, "item_id", "nowhere", "unknown_item"),
        (7, "timestamp", "a", "implausible_timestamp"),
    ]
    assert shop.items("title") == [("a", "Apple")]


def test_a_row_refused_today_keeps_the_item_of_yesterday(shop):
    shop.catalog(APPLE, BREAD)
    shop.ingest()
    shop.catalog({**APPLE, "title": "x" * 101}, BREAD)
    shop.ingest(max_text_chars=100)
    assert shop.items("title", "active") == [("a", "Apple", True), ("b", "Bread", True)]


def test_an_event_of_an_item_that_is_gone_still_counts(shop):
    shop.catalog(APPLE, BREAD)
    shop.ingest()
    shop.catalog(APPLE)
    shop.events("u,b,1700000000")
    assert shop.ingest().counts["events_new"] == 1


@pytest.mark.parametrize("attempt", [1, 2])
def test_too_many_refused_rows_stop_the_stage_and_are_written(shop, attempt):
    shop.catalog(APPLE, "{broken", "[]", BREAD)  # 2 of 4
    for _ in range(attempt):
        plan = shop.plan(max_reject_share=0.4)
        assert (plan.new, plan.failed_before) == (2, 2)  # two items; two refused rows, counted once
        assert "a run will stop" in plan.sentence()
        with pytest.raises(StageError) as error:
            shop.ingest(max_reject_share=0.4)
    assert "catalog.jsonl: 2 of 4 rows refused (1 broken_json, 1 not_an_object)" in str(error.value)
    assert "ingest.max_reject_share (0.4)" in str(error.value)
    assert shop.rejects() == [(2, None, None, "broken_json"), (3, None, None, "not_an_object")]
    assert shop.items() == []
    assert shop.ingest(max_reject_share=0.5).counts["items_new"] == 2
    assert len(shop.rejects()) == 2


def test_the_share_refused_is_of_each_file_also_where_two_are_named_alike(shop):
    catalog = shop.catalog(APPLE, "{broken", name="part-0.jsonl")
    (shop.delivery / "events").mkdir()
    events = shop.delivery / "events" / "part-0.jsonl"
    events.write_text("".join(f'{{"user_id": {n}, "item_id": "a", "timestamp": {n}}}\n' for n in range(100)))
    with pytest.raises(StageError, match=r"delivery/part-0\.jsonl: 1 of 2 rows refused"):
        shop.ingest(catalog=catalog, interactions=events, max_reject_share=0.4)
    assert shop.rows(REJECTS, "source") == [("part-0.jsonl",)]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_catalog_takes_nothing_out(shop, content):
    path = shop.catalog(APPLE)
    shop.ingest()
    path.write_text(content)
    with pytest.raises(StageError, match=r"catalog\.jsonl: the catalog has no items; the items in the store stay"):
        shop.ingest()
    assert shop.items("active") == [("a", True)]


def test_an_empty_catalog_of_only_a_header(shop):
    (shop.delivery / "catalog.csv").write_text("item_id,title\n")
    with pytest.raises(StageError, match="the catalog has no items"):
        shop.ingest()


def test_a_catalog_that_lacks_too_much_stops(shop):
    shop.catalog(APPLE, BREAD, CHEESE)
    shop.ingest()
    shop.catalog(APPLE)
    with pytest.raises(StageError, match=r"lacks 2 of 3 active items, such as 'b': more than ingest\.max_gone_share"):
        shop.ingest(max_gone_share=0.5)
    assert shop.items("active") == [("a", True), ("b", True), ("c", True)]
    shop.ingest(max_gone_share=0.7)
    assert shop.items("active") == [("a", True), ("b", False), ("c", False)]
    shop.catalog(BREAD)  # of the three in the store one was active, and that one is not in it
    with pytest.raises(StageError, match=r"lacks 1 of 1 active items"):
        shop.ingest(max_gone_share=0.5)


def test_a_delivery_that_went_wrong_changes_nothing_without_a_setting(shop):
    shop.catalog(APPLE, BREAD, CHEESE)
    shop.ingest()
    before = shop.versions()
    for rows, said in (((APPLE,), "max_gone_share"), ((APPLE, BREAD, CHEESE, "{broken"), "max_reject_share")):
        shop.catalog(*rows)
        by_default = IngestStage(IngestConfig(catalog=shop.delivery / "catalog.jsonl"), shop.store, shop.work_folder)
        with pytest.raises(StageError, match=said):
            run_stage(by_default, lambda progress: None)
        assert {name: version for name, version in shop.versions().items() if name != "rejects"} == before


def test_a_column_map(shop):
    (shop.delivery / "catalog.csv").write_text("sku,name,text,price,color\n1,Apple,Red.,3,red\n")
    (shop.delivery / "interactions.csv").write_text("who,what,when\nu,1,2023-11-14T22:13:20Z\n")
    shop.ingest(
        columns={"item_id": "sku", "title": "name", "description": "text", "ignore": ["price"]},
        event_columns={"user_id": "who", "item_id": "what", "timestamp": "when"},
    )
    assert shop.items("title", "description", "attributes") == [("1", "Apple", "Red.", '{"color": "red"}')]
    assert shop.rows(INTERACTIONS, "item_id", "user_id", "timestamp") == [("1", "u", 1_700_000_000_000)]


def test_a_column_that_but_for_its_capitals_is_a_field_is_told(shop):
    (shop.delivery / "catalog.csv").write_text("item_id,Title,DESCRIPTION,image,IMAGE\n1,Apple,Red.,,\n")
    notes = [note for note in shop.plan().notes if "taken as an attribute" in note]
    assert [note.partition(" is taken")[0] for note in notes] == [
        "catalog.csv: column 'Title'",
        "catalog.csv: column 'DESCRIPTION'",
    ]
    assert "set ingest.columns.title: Title" in notes[0]
    mended = shop.plan(columns={"title": "Title", "ignore": ["DESCRIPTION"]})
    assert "taken as an attribute" not in mended.sentence()


def test_html_is_taken_out_of_texts_unless_it_is_meant(shop):
    shop.catalog({"item_id": "1", "title": "Tom &amp; Co", "description": "<p>Wool</p>", "care": ["<b>cold</b> wash"]})
    shop.ingest()
    assert shop.items("title", "description", "attributes") == [("1", "Tom & Co", "Wool", '{"care": ["cold wash"]}')]
    shop.ingest(html=False)
    assert shop.items("title", "description") == [("1", "Tom &amp; Co", "<p>Wool</p>")]


def test_a_column_to_ignore_that_no_row_has_is_told(shop):
    shop.catalog({"item_id": "1", "title": "Apple"}, {"item_id": "2", "price": 3})
    ignore = {"columns": {"ignore": ["price", "stocks"]}}
    assert "no row of the catalog has the column 'stocks' of ingest.columns.ignore" in shop.plan(**ignore).sentence()
    assert "ingest.columns.ignore" not in shop.plan(columns={"ignore": ["price"]}).sentence()
    events = shop.events("u,1,5")
    shop.ingest(**ignore)
    assert "ingest.columns.ignore" not in shop.plan(catalog=[], interactions=[events], **ignore).sentence()


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"columns": {"item_id": "sku"}},
            r"catalog\.jsonl: no column 'sku'; it has 'item_id', .*Set ingest\.columns\.item_id",
        ),
        ({"columns": {"title": "name"}}, r"no column 'name'.*ingest\.columns\.title"),
        (
            {"event_columns": {"timestamp": "time"}},
            r"interactions\.csv: no column 'time'.*ingest\.event_columns\.timestamp",
        ),
    ],
)
def test_missing_columns(shop, settings, message):
    shop.catalog(APPLE)
    shop.events("u,a,1700000000")
    with pytest.raises(StageError, match=message):
        shop.ingest(**settings)


def test_a_missing_file(shop):
    with pytest.raises(StageError, match=r"nothing\.jsonl: can't be read: No such file"):
        shop.ingest(catalog=shop.delivery / "nothing.jsonl")


def test_control_characters_and_lone_surrogates_do_no_harm(shop):
    shop.catalog('{"item_id": "a", "title": "A\\u0000pple \\ud800", "description": "x\\r\\ny"}')
    shop.ingest()
    assert shop.items("title", "description") == [("a", "A pple", "x\ny")]


def test_catalog_alone_then_interactions_alone(shop):
    catalog = shop.catalog(APPLE)
    shop.ingest(catalog=catalog)
    shop.ingest(interactions=shop.events("u,a,5", "u,a,6"))
    assert shop.rows(INTERACTIONS, "timestamp") == [(5,), (6,)]  # small numbers are order numbers
    assert shop.items("active") == [("a", True)]


def test_several_files_are_one_delivery(shop):
    first = shop.catalog(APPLE, name="catalog.1.jsonl")
    second = shop.catalog(APPLE, BREAD, name="catalog.2.jsonl")
    shop.ingest(catalog=[first, second])
    assert [item for (item,) in shop.items()] == ["a", "b"]
    assert shop.rejects() == [(1, "item_id", "a", "duplicate_id")]


def test_batches_of_any_size_give_the_same_tables(shop, contents, monkeypatch):
    rows = [{"item_id": str(number % 40), "title": f"item {number}"} for number in range(50)]
    shop.catalog(*rows)
    shop.events(*(f"u{number % 5},{number},1700000000" for number in range(45)))  # at one time: their order counts
    shop.ingest()
    expected = contents(shop.store)
    assert {name: frame.height for name, frame in expected.items()} == {"items": 40, "interactions": 40, "rejects": 15}
    for size in (1, 7):
        shop.store = Store(shop.root / f"store{size}")
        monkeypatch.setattr(events, "EVENT_ROWS", size)
        shop.ingest(commit_rows=size)
        for name, frame in contents(shop.store).items():
            assert frame.equals(expected[name])


def test_a_note_of_another_store_is_not_believed(shop):
    shop.catalog(APPLE)
    shop.ingest()
    shop.store = Store(shop.root / "other_store")
    assert shop.plan().new == 1


def test_a_table_that_changed_since_is_read_again(shop):
    shop.catalog(APPLE)
    shop.ingest()
    table = shop.store.table(ITEMS)
    table.upsert(table.read().with_columns(active=False))
    assert shop.plan().changed == 1


def test_attributes_are_json_with_text_and_lists_of_text(shop):
    shop.catalog({"item_id": "a", "n": 1, "deep": {"k": [1, None]}, "yes": True, "list": [], "text": " x "})
    shop.ingest()
    ((_, text),) = shop.items("attributes")
    assert json.loads(text) == {"n": "1", "deep": ["k: 1"], "yes": "true", "text": "x"}
