"""A whole night for real: killed and resumed, run again with nothing to do, and planned on the next delivery."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from report_page import check_page

from flows.night import open_night, open_stage
from sample_shop.delivery import INTERACTIONS_FILE
from storage.schemas import EMBEDDINGS, GENERATIONS, ITEMS, METRICS, RECOMMENDATIONS, REJECTS, RUNS, SEGMENTS, TABLES
from tasks.config import load_config, with_data
from tasks.pipeline import STAGE_NAMES, stage_named
from tasks.report import report_path
from tasks.serving import serving_key
from tasks.stage import StageError, run_stage

WITHOUT_ENGINE = ("ingest", "embed", "train", "evaluate", "promote", "recommend")
Catalog = dict[str, dict[str, str | None]]


def catalog(delivery: Path) -> Catalog:
    lines = (delivery / "catalog.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["item_id"]: row for row in map(json.loads, lines)}


def test_the_kill_came_in_the_middle(night) -> None:
    wanted = night.shop.config.open_store().table(GENERATIONS).count()
    assert 0 < night.answers_when_killed.height < wanted


def test_the_resumed_night_asked_only_what_was_missing(night) -> None:
    answers = night.shop.config.open_store().table(GENERATIONS).read("generation_key", "text", "run_id")
    assert answers["generation_key"].n_unique() == answers.height
    kept = night.answers_when_killed.join(answers, on=["generation_key", "text"], how="inner")
    assert kept.height == night.answers_when_killed.height
    assert answers["run_id"].n_unique() == 2


@pytest.mark.parametrize("schema", TABLES, ids=lambda schema: schema.name)
def test_every_table_has_rows_and_no_key_twice(night, schema) -> None:
    rows = night.shop.config.open_store().table(schema).read()
    assert rows.height > 0
    if key := schema.key:
        assert rows.select(pl.struct(key).n_unique()).item() == rows.height


def test_every_stage_completed_and_left_nothing_to_do(night) -> None:
    config = night.shop.config
    runs = config.open_store().table(RUNS).read("stage", "status")
    assert set(runs.filter(pl.col("status") == "completed")["stage"]) == set(STAGE_NAMES)
    assert {name: stage_named(config, name).plan().to_do for name in STAGE_NAMES} == dict.fromkeys(STAGE_NAMES, 0)


def test_the_report_in_a_browser(night, tab) -> None:
    check_page(tab, report_path(night.shop.config.work_folder))


def test_the_command_prints_metrics_and_where_the_report_is(night) -> None:
    path = report_path(night.shop.config.work_folder)
    assert f"report: {path}" in night.output
    assert path.stat().st_size > 10_000
    for word in ("dmesr", "id_only", "popularity", "ndcg@10"):
        assert word in night.output.lower()


def test_a_second_run_generates_and_trains_nothing(night) -> None:
    store = night.shop.config.open_store()
    tables = [schema for schema in TABLES if schema is not RUNS]
    before = store.references(*tables)
    again = night.shop.dmesr("run")
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("Cached(") == len(STAGE_NAMES)
    assert store.references(*tables) == before


def test_a_deleted_table_is_made_again_although_the_cache_says_it_is_done(night, tmp_path: Path) -> None:
    shop = night.shop.copy_to(tmp_path / "shop")
    shutil.rmtree(shop.config.work_folder / "store" / METRICS.name)
    again = shop.dmesr("run", "--from", "evaluate")
    assert again.returncode == 0, again.stdout
    assert "'evaluate' - Finished in state Completed()" in again.stdout
    assert shop.config.open_store().table(METRICS).count() > 0


def test_tomorrow_asks_about_exactly_what_changed(night, tmp_path: Path) -> None:
    shop = night.shop.copy_to(tmp_path / "shop")
    old, new = (catalog(shop.folder / "deliveries" / day) for day in ("day0", "tonight"))
    ingested = shop.dmesr("ingest", "--data", str(shop.folder / "deliveries" / "tonight"))
    assert ingested.returncode == 0, ingested.stdout
    plan = stage_named(shop.config, "describe").plan()
    texts = {item for item, row in new.items() if texts_of(row) != texts_of(old.get(item, {}))}
    assert len(texts) == 15  # 10 new descriptions, 5 new items
    pictures = pictures_that_changed(shop, old, new)
    assert plan.to_do == len(texts) + len(pictures)


def test_a_catalog_that_moved_trains_nothing_and_its_new_items_are_recommended(night, tmp_path: Path) -> None:
    shop = night.shop.copy_to(tmp_path / "shop")
    delivery = shop.folder / "deliveries" / "tonight"
    shutil.copy(shop.folder / "deliveries" / "day0" / INTERACTIONS_FILE, delivery / INTERACTIONS_FILE)
    config = load_config(shop.config_file, with_data(["recommend.k=60"], delivery))  # more than there are items
    store = config.open_store()
    models = {path.name for path in (config.work_folder / "models").glob("*/summary.json")}
    done = {name: run_stage(stage_named(config, name), lambda _: None).counts["done"] for name in WITHOUT_ENGINE}
    assert done["ingest"] > 0 and done["embed"] > 0 and done["evaluate"] > 0 and done["recommend"] > 0
    assert done["train"] == done["promote"] == 0
    assert {path.name for path in (config.work_folder / "models").glob("*/summary.json")} == models
    (note,) = stage_named(config, "train").plan().notes
    assert note.startswith("2 not trained anew: the catalog or the log moved, but 0.0% new events")

    new = set(catalog(delivery)) - set(catalog(shop.folder / "deliveries" / "day0"))
    assert len(new) == 5
    lists = store.table(RECOMMENDATIONS).read()
    tonight = lists.filter(pl.col("created_at") == pl.col("created_at").max())
    before = lists.filter(pl.col("created_at") < pl.col("created_at").max())
    assert set(tonight["model"]) == set(before["model"]) == serving_key(store)
    assert not new & set(before["item_id"])
    users = tonight["user_id"].n_unique()
    assert users == before["user_id"].n_unique()
    assert tonight.filter(pl.col("item_id").is_in(list(new))).height == 5 * users


def test_a_second_run_on_the_work_folder_is_turned_away(day0, tmp_path: Path) -> None:
    shop = day0.copy_to(tmp_path / "shop")
    with open_night(shop.config_file, None, [], "ingest", False) as first:
        assert first.chosen == STAGE_NAMES
        message = r"another run \(the night from ingest on, process \d+ on .*\) works in .*Nothing was changed"
        with (
            pytest.raises(StageError, match=message),
            open_stage(shop.config_file, None, [], "embed", False),
        ):
            pytest.fail("two runs at once")
    with open_night(shop.config_file, None, ["maintain.after_night=false"], "recommend", False) as second:
        assert second.chosen == ("recommend", "report")


def test_settings_that_train_refuses_are_said_before_the_first_stage(day0, tmp_path: Path) -> None:
    shop = day0.copy_to(tmp_path / "shop")
    wrong = ["train.train.max_epoch=3"]
    with (
        pytest.raises(StageError, match=r"max_epoch: Extra inputs.*Did you mean max_epochs\?"),
        open_night(shop.config_file, None, wrong, "ingest", False),
    ):
        pass
    with open_night(shop.config_file, None, wrong, "evaluate", False):
        pass


def test_models_are_listed_and_set_by_hand(night, tmp_path: Path) -> None:
    shop = night.shop.copy_to(tmp_path / "shop")
    listed = shop.dmesr("models").stdout
    (serving,) = serving_key(shop.config.open_store())
    (line,) = [line for line in listed.splitlines() if line.startswith(serving[:10])]
    assert line.split()[1:3] == ["dmesr", "0"] and line.endswith("serves, in use")
    (other,) = [line for line in listed.splitlines() if " id_only " in line]
    set_by_hand = shop.dmesr("promote", other.split()[0], "--pin")
    assert set_by_hand.returncode == 0 and "id_only, seed 0" in set_by_hand.stdout
    assert stage_named(shop.config, "promote").plan().to_do == 0
    assert stage_named(shop.config, "recommend").plan().new > 0


def texts_of(row: dict[str, str | None]) -> tuple[str | None, ...]:
    return row.get("title"), row.get("description")


def pictures_that_changed(shop, old: Catalog, new: Catalog) -> set[str]:
    """Items whose picture is new or other than before, and was taken in."""
    store = shop.config.open_store()
    refused = set(store.table(REJECTS).scan().filter(pl.col("field") == "image").collect()["item_id"])

    def content(day: str, row: dict[str, str | None]) -> bytes | None:
        path = row.get("image")
        return (shop.folder / "deliveries" / day / path).read_bytes() if path else None

    return {
        item
        for item, row in new.items()
        if (now := content("tonight", row)) and now != content("day0", old.get(item, {})) and item not in refused
    }


def test_store_and_work_folder_hold_one_row_a_text(night) -> None:
    store = night.shop.config.open_store()
    texts = pl.concat([store.table(SEGMENTS).read("text_digest"), answered(night)]).unique()
    embedded = store.table(EMBEDDINGS).read("text_digest")
    assert set(texts["text_digest"].drop_nulls()) == set(embedded["text_digest"])


def answered(night) -> pl.DataFrame:
    answers = night.shop.config.open_store().table(GENERATIONS).scan().filter(pl.col("status") == "ok")
    return answers.select("text_digest").collect()


def test_every_user_gets_unseen_active_items(night) -> None:
    store = night.shop.config.open_store()
    active = store.table(ITEMS).scan().filter("active").collect()["item_id"]
    lists = store.table(RECOMMENDATIONS).read("user_id", "rank", "item_id")
    assert set(lists["item_id"]) <= set(active)
    assert lists.group_by("user_id").agg(pl.col("rank").min())["rank"].unique().to_list() == [1]


def test_running_a_stage_again_in_this_process_does_nothing(night) -> None:
    summary = run_stage(stage_named(night.shop.config, "embed"), lambda _: None)
    assert summary.counts["done"] == 0
