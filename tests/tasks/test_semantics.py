"""What holds for each item now, and what an edit makes stale."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from storage.digests import digest_of_text
from storage.schemas import GENERATIONS, ITEMS, SEGMENTS
from storage.tables import Store
from tasks.describe import DescribeConfig, asked_views
from tasks.embed import EmbedConfig
from tasks.generation_keys import wanted_generations
from tasks.segment_keys import wanted_segments
from tasks.segments import SegmentConfig
from tasks.semantics import current_generations, current_segments

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def item(
    item_id: str, title: str | None, description: str | None, picture: str | None, attributes: str | None = None
) -> dict[str, object]:
    texts = {"title": title, "description": description, "attributes": attributes}
    digests = {f"{name}_digest": None if text is None else digest_of_text(text) for name, text in texts.items()}
    places = {"image_reference": picture, "image_digest": picture, "content_digest": item_id, "run_id": "r"}
    return {"item_id": item_id, **texts, **digests, **places, "active": True, "first_seen_at": NOW, "updated_at": NOW}


def put_items(store: Store, *rows: dict[str, object]) -> None:
    store.table(ITEMS).upsert(pl.DataFrame(list(rows), schema=store.table(ITEMS).empty().schema))


def rows_for(store: Store, table, *rows: dict[str, object]) -> pl.DataFrame:
    schema = store.table(table).empty().schema
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)


def keys(store: Store, config: DescribeConfig) -> dict[tuple[str, str], str]:
    wanted = wanted_generations(store.table(ITEMS).scan(), asked_views(config))
    return {(row["item_id"], row["view"]): row["generation_key"] for row in wanted.iter_rows(named=True)}


THREE = (
    item("both", "Mug", "A blue mug.", "p1"),
    item("no-picture", "Mug", "A blue mug.", None),
    item("picture-only", None, None, "p2"),
)


def test_an_item_is_wanted_for_a_view_only_if_it_has_what_the_prompt_needs(store: Store, model: Path) -> None:
    put_items(store, *THREE)
    config = DescribeConfig(model=str(model), prompts=("caption", "summary", "joint"))
    expected = {("both", "image"), ("picture-only", "image"), ("both", "text"), ("no-picture", "text")}
    assert set(keys(store, config)) == expected | {("both", "joint")}


def test_items_of_equal_content_share_a_key(store: Store, model: Path) -> None:
    put_items(store, *THREE)
    found = keys(store, DescribeConfig(model=str(model)))
    assert found["both", "text"] == found["no-picture", "text"]
    assert found["both", "image"] != found["picture-only", "image"]


def test_answers_come_with_their_status_and_missing_ones_with_none(store: Store, model: Path) -> None:
    put_items(store, *THREE)
    config = DescribeConfig(model=str(model))
    found = keys(store, config)
    ok = {"generation_key": found["both", "text"], "status": "ok", "text": "mug", "text_digest": "d"}
    bad = {"generation_key": found["both", "image"], "status": "cut_off", "text": "a", "text_digest": "e"}
    store.table(GENERATIONS).append(rows_for(store, GENERATIONS, ok, bad))
    current = current_generations(store, config).sort("item_id", "view").select("item_id", "view", "status", "text")
    assert current.collect().rows() == [
        ("both", "image", "cut_off", "a"),
        ("both", "text", "ok", "mug"),
        ("no-picture", "text", "ok", "mug"),
        ("picture-only", "image", None, None),
    ]


def test_editing_one_prompt_makes_that_view_stale_and_no_other(store: Store, model: Path, tmp_path: Path) -> None:
    put_items(store, *THREE)
    edited = tmp_path / "edited.yaml"
    edited.write_text("name: caption\nview: image\nuser: What is in the picture?\n")
    before = keys(store, DescribeConfig(model=str(model)))
    after = keys(store, DescribeConfig(model=str(model), prompts=(str(edited), "summary")))
    assert {view for (_, view), key in after.items() if before[_, view] != key} == {"image"}


def test_editing_a_description_makes_only_that_items_text_view_stale(store: Store, model: Path) -> None:
    config = DescribeConfig(model=str(model))
    put_items(store, *THREE)
    before = keys(store, config)
    put_items(store, item("both", "Mug", "A red mug.", "p1"))
    after = keys(store, config)
    assert [place for place in before if before[place] != after[place]] == [("both", "text")]


def test_moving_the_model_and_renaming_pictures_changes_nothing(store: Store, model: Path) -> None:
    put_items(store, *THREE)
    before = keys(store, DescribeConfig(model=str(model)))
    moved = model.rename(model.with_name("elsewhere"))
    put_items(store, {**THREE[0], "image_reference": "renamed.jpg"})
    assert keys(store, DescribeConfig(model=str(moved))) == before


@pytest.mark.parametrize("settings", [{"max_pixels": 10_000}, {"processor": {"min_pixels": 784}}])
def test_other_settings_of_pictures_make_only_picture_views_stale(settings: dict, store: Store, model: Path) -> None:
    put_items(store, *THREE)
    before = keys(store, DescribeConfig(model=str(model)))
    after = keys(store, DescribeConfig(model=str(model), **settings))
    assert {view for (_, view), key in after.items() if before[_, view] != key} == {"image"}


def test_other_weights_and_another_type_of_them_make_all_stale(store: Store, model: Path) -> None:
    put_items(store, *THREE)
    before = keys(store, DescribeConfig(model=str(model)))
    coarse = DescribeConfig.model_validate({"model": str(model), "engine": {"kind": "offline", "dtype": "float16"}})
    assert not set(before.values()) & set(keys(store, coarse).values())
    (model / "model.safetensors").write_bytes(b"other weights")
    assert not set(before.values()) & set(keys(store, DescribeConfig(model=str(model))).values())


def test_a_server_is_another_where_its_model_or_revision_is_said_to_be(store: Store) -> None:
    put_items(store, *THREE)
    served = {"model": "shop-vlm", "engine": {"kind": "endpoint", "url": "http://one/v1"}}
    before = keys(store, DescribeConfig.model_validate(served))
    moved = {**served, "engine": {"kind": "endpoint", "url": "http://other/v1", "concurrency": 7}}
    assert keys(store, DescribeConfig.model_validate(moved)) == before
    for other in ({"model": "other-vlm"}, {"revision": "tuned in May"}):
        after = keys(store, DescribeConfig.model_validate({**served, **other}))
        assert not set(before.values()) & set(after.values())


def test_speed_settings_change_nothing(store: Store, model: Path) -> None:
    put_items(store, *THREE)
    before = keys(store, DescribeConfig(model=str(model)))
    other = DescribeConfig.model_validate(
        {"model": str(model), "workers": 7, "engine": {"kind": "offline", "enforce_eager": True, "in_flight": 3}}
    )
    assert keys(store, other) == before


def test_segments_are_those_of_the_present_text(store: Store) -> None:
    put_items(store, *THREE)
    wanted = dict(wanted_segments(store.table(ITEMS).scan(), SegmentConfig()).iter_rows())
    assert set(wanted) == {"both", "no-picture"}
    assert wanted["both"] == wanted["no-picture"]
    key = wanted["both"]
    title = {"segment_key": key, "position": 0, "kind": "title", "text": "Mug", "text_digest": "t"}
    old = {"segment_key": "of an older text", "position": 0, "kind": "title", "text": "Cup", "text_digest": "u"}
    store.table(SEGMENTS).append(rows_for(store, SEGMENTS, title, old))
    current = current_segments(store, EmbedConfig()).sort("item_id").select("item_id", "position", "text").collect()
    assert current.rows() == [("both", 0, "Mug"), ("no-picture", 0, "Mug")]
    for edited in (("Cup", "A blue mug.", None), ("Mug", "A red mug.", None), ("Mug", "A blue mug.", '{"a": "b"}')):
        put_items(store, item("both", *edited[:2], None, edited[2]))
        assert [row[0] for row in current_segments(store, EmbedConfig()).select("item_id").collect().rows()] == [
            "no-picture"
        ]


@pytest.mark.parametrize(
    "settings",
    [{"max_segments": 3}, {"max_chars": 80}, {"attributes": ("Brand",)}, {"max_attributes": 1}, {"language": "de"}],
)
def test_other_rules_for_segments_cut_all_anew(settings: dict, store: Store) -> None:
    put_items(store, *THREE)
    plain, other = (wanted_segments(store.table(ITEMS).scan(), SegmentConfig(**more)) for more in ({}, settings))
    assert plain.height == other.height == 2
    assert not set(plain["segment_key"]) & set(other["segment_key"])
