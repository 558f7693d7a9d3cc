from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dmesr_model.features import ItemFeatures
from dmesr_model.sequences import Sequences
from storage.digests import digest_of_text
from storage.schemas import INTERACTIONS
from storage.vectors import vectors_from_frame
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.features import EVERY_EVENT, Dataset, open_features, sequences_digest
from tasks.ingest.filters import FilterConfig
from tasks.segments import SegmentConfig
from tasks.stage import StageError


def dataset(shop, filters: FilterConfig = EVERY_EVENT) -> Dataset:
    return Dataset(shop.store, shop.describe, shop.embed, filters, shop.work_folder)


@pytest.fixture
def three_items(hand_made_shop):
    """a and b share their title; a's picture is described, b's answer failed, c has no text with a vector."""
    shop = hand_made_shop
    mug_b = {"item_id": "b", "title": "mug", "picture": "p2"}
    shop.put_items(mug_b, {"item_id": "a", "title": "mug", "picture": "p1"}, {"item_id": "c", "title": "lamp"})
    shop.put_answers(("a", "image", "a blue mug", "ok"), ("b", "image", "a a a a", "repetition"))
    shop.put_segments(a=("mug", "It is blue."), c=("lamp",))
    shop.put_vectors({"a blue mug": [1, 2], "a a a a": [9, 9], "mug": [3, 4], "It is blue.": [5, 6]})
    shop.put_vectors({"It is blue.": [0, 0, 7]}, encoder="another")
    return shop


def test_views_and_segments_point_at_unique_vectors(three_items) -> None:
    features, facts = open_features(dataset(three_items).features_folder())
    assert features.item_ids == ("a", "b", "c")
    assert features.views == ("image", "text")
    assert sorted(features.vectors_UE.tolist()) == [[1, 2], [3, 4], [5, 6]]
    row = {tuple(vector): place for place, vector in enumerate(features.vectors_UE.tolist())}
    # b's answer is not ok and c has no picture: no view. Nobody has a summary.
    assert features.coarse_index_NV.tolist() == [[row[1, 2], -1], [-1, -1], [-1, -1]]
    # a and b have the same text of their own, so the same segments; lamp has no vector.
    assert features.segment_index_NL.tolist() == [[row[3, 4], row[5, 6]], [row[3, 4], row[5, 6]], [-1, -1]]
    assert facts.rows() == [("a", True, False), ("b", True, True), ("c", False, False)]


def test_vectors_of_a_few_files_are_in_memory_at_a_time(three_items, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.tables._PART_BYTES", 1)
    three_items.put_vectors({"lamp": [7, 8]})  # a file of its own beside that of the other three
    read: list[int] = []
    monkeypatch.setattr(
        "tasks.features.vectors_from_frame", lambda frame: (read.append(frame.height), vectors_from_frame(frame))[1]
    )
    features, _ = open_features(dataset(three_items).features_folder())
    assert sorted(features.vectors_UE.tolist()) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert read == [1, 3]


def test_inactive_items_stay_only_with_a_history(three_items) -> None:
    three_items.put_item("b", "mug", picture="p2", active=False)
    three_items.put_item("c", "lamp", active=False)
    three_items.put_events(("u", "c", 1))
    assert open_features(dataset(three_items).features_folder())[0].item_ids == ("a", "c")


def test_sequences_are_in_time_order_and_of_known_items(three_items) -> None:
    three_items.put_events(("v", "a", 2), ("u", "c", 5), ("v", "b", 1), ("u", "gone", 1), ("u", "a", 5), ("w", "a", 1))
    # u: c and a at the same time keep the order of delivery; the event of an unknown item is left out.
    every = Sequences.open(dataset(three_items).histories_folder())
    assert every.user_ids == ("u", "v", "w")
    assert [every.history(user).tolist() for user in range(3)] == [[3, 1], [2, 1], [1]]
    long = Sequences.open(dataset(three_items, FilterConfig(min_sequence_length=2)).sequences_folder())
    assert long.user_ids == ("u", "v")


def test_nothing_is_made_again_while_nothing_changed(three_items, monkeypatch: pytest.MonkeyPatch) -> None:
    three_items.put_events(("u", "a", 1))
    first = dataset(three_items)
    folders = (first.features_folder(), first.sequences_folder(), first.histories_folder())
    monkeypatch.setattr(Dataset, "_read_keys", lambda self: pytest.fail("read the store again"))
    monkeypatch.setattr(Dataset, "_write_features", lambda self, folder: pytest.fail("wrote features again"))
    again = dataset(three_items)
    assert (again.features_folder(), again.sequences_folder(), again.histories_folder()) == folders


def test_what_was_named_is_not_written_from_a_store_that_changed(three_items) -> None:
    assert dataset(three_items).keys.events == 0
    named = dataset(three_items)
    assert named.keys.items == 3  # as remembered: nothing is read yet
    three_items.put_item("d", "vase")
    three_items.put_events(("u", "d", 1))
    for folder in (named.features_folder, named.sequences_folder, named.histories_folder):
        with pytest.raises(StageError, match="the store changed while it was read; nothing was written"):
            folder()
    assert not list((three_items.work_folder / "sequences").glob("*"))
    assert Sequences.open(named.as_it_is_now().histories_folder()).user_ids == ("u",)


def test_compaction_changes_no_digest_and_an_answer_does(three_items) -> None:
    before = dataset(three_items).keys
    three_items.put_events(("u", "a", 1), ("v", "a", 1))
    after_events = dataset(three_items).keys
    assert after_events.features == before.features
    assert after_events.sequences != before.sequences
    three_items.put_events(("u", "a", 2))
    three_items.store.table(INTERACTIONS).compact()
    after_more = dataset(three_items).keys
    three_items.put_item("d", "vase")
    assert dataset(three_items).keys.features != after_more.features


def test_vectors_that_came_since_are_known(three_items) -> None:
    before = dataset(three_items).keys
    three_items.put_vectors({"lamp": [7, 8]})
    features, _ = open_features(dataset(three_items).features_folder())
    assert [7, 8] in features.vectors_UE.tolist()
    assert dataset(three_items).keys.features != before.features


def test_another_encoder_gives_other_features_of_the_same_texts(three_items) -> None:
    dataset(three_items).features_folder()
    three_items.embed = EmbedConfig(model="made/other")
    three_items.put_vectors({"a blue mug": [1, 0], "a a a a": [9, 0], "mug": [3, 0], "It is blue.": [5, 0]})
    features, _ = open_features(dataset(three_items).features_folder())
    assert sorted(features.vectors_UE.tolist()) == [[1, 0], [3, 0], [5, 0]]


def test_views_in_another_order_are_other_features(three_items) -> None:
    before, _ = open_features(dataset(three_items).features_folder())
    three_items.describe = DescribeConfig(model="made/model", prompts=("summary", "caption"))
    after, _ = open_features(dataset(three_items).features_folder())
    assert (before.views, after.views) == (("image", "text"), ("text", "image"))
    assert after.coarse_index_NV.tolist() == before.coarse_index_NV[:, ::-1].tolist()


def test_settings_behind_the_data_are_another_configuration(three_items, tmp_path: Path) -> None:
    (tmp_path / "see.yaml").write_text("name: caption\nview: image\nuser: What is in the picture?\n")
    shop, before = three_items, dataset(three_items).keys.configuration
    shop.describe = DescribeConfig(model="made/model", prompts=(str(tmp_path / "see.yaml"), "summary"))
    prompt = dataset(shop).keys.configuration
    shop.embed = EmbedConfig(model="made/encoder", segments=SegmentConfig(max_segments=3))
    segments = dataset(shop).keys.configuration
    filters = dataset(shop, FilterConfig(k_items=2)).keys.configuration
    assert len({before, prompt, segments, filters}) == 4


def test_the_digest_of_sequences_knows_whose_they_are() -> None:
    users = (["a", "bc"], ["ab", "c"], ["a", "bd"])
    assert len({sequences_digest(Sequences.from_histories([[1, 2], [3]], ids)) for ids in users}) == 3


def test_no_items_and_no_events(hand_made_shop) -> None:
    made = dataset(hand_made_shop)
    assert made.keys.items == made.keys.users == 0
    features = ItemFeatures.open(made.features_folder())
    assert features.item_count == 0
    assert Sequences.open(made.sequences_folder()).user_count == 0


@pytest.mark.parametrize("batch_rows", [1, 100])
def test_vectors_of_two_widths_are_refused(three_items, monkeypatch: pytest.MonkeyPatch, batch_rows: int) -> None:
    monkeypatch.setattr("tasks.features._BATCH_ROWS", batch_rows)
    three_items.put_vectors({"lamp": [1, 2, 3]})
    # a and b share "mug" and "It is blue."
    said = r"encoder, made/encoder, .*: image 2 \(1\), segment 2 \(4\), segment 3 \(1\)\. .*embed\.revision"
    with pytest.raises(StageError, match=said):
        dataset(three_items).features_folder()
    assert list((three_items.work_folder / "features").iterdir()) == []


def test_vectors_that_are_not_finite_are_refused(three_items) -> None:
    three_items.put_vectors({"lamp": [1, float("nan")]})
    with pytest.raises(StageError, match="NaN or infinity; run embed"):
        dataset(three_items).features_folder()


def test_facts_lie_beside_the_features(lively_shop) -> None:
    folder = dataset(lively_shop).features_folder()
    features, facts = open_features(folder)
    assert facts["item_id"].to_list() == list(features.item_ids)
    assert facts.filter(pl.col("failed_view"))["item_id"].to_list() == ["i04"]
    assert not np.isnan(features.vectors_UE).any()
    assert Path(folder / "vectors.unsaved.npy").exists() is False
    assert digest_of_text("x") != folder.name
