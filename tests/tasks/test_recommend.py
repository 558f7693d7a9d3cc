import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dmesr_model.encoding import encode_items, encode_sequences
from dmesr_model.model import DMESR
from dmesr_model.sequences import Sequences
from storage.approximate_index import IndexConfig
from storage.schemas import INTERACTIONS, RECOMMENDATIONS
from storage.vector_index import VectorIndex
from tasks.features import Dataset, open_features
from tasks.recommend import RecommendConfig, RecommendStage, chosen_model
from tasks.stage import StageError, run_stage
from tasks.train import TrainStageConfig


def stage(shop, train: TrainStageConfig, config: RecommendConfig) -> RecommendStage:
    return RecommendStage(config, train, shop.describe, shop.embed, shop.store, shop.work_folder)


def recommended(shop) -> pl.DataFrame:
    return shop.store.table(RECOMMENDATIONS).read().sort("user_id", "rank")


def test_rows_equal_brute_force(lively_shop, small_models) -> None:
    # i29, which has no event, is a candidate; i05, bought by some, has left the catalog and is none.
    lively_shop.put_item("i05", "mug 5", picture="p5", active=False)
    lively_shop.put_events(("short", "i00", 1))
    models = lively_shop.pretend_to_train(small_models)
    run_stage(stage(lively_shop, small_models, RecommendConfig(k=26, users_a_commit=7)), lambda progress: None)
    rows = recommended(lively_shop)

    dataset = Dataset(
        lively_shop.store, lively_shop.describe, lively_shop.embed, small_models.filters, lively_shop.work_folder
    )
    features, _ = open_features(dataset.features_folder())
    histories = Sequences.open(dataset.histories_folder())
    made = DMESR.from_pretrained(models[0].checkpoint)
    items = encode_items(made, features)
    scores = encode_sequences(made, items, histories) @ items.T
    gone = features.item_ids.index("i05")
    assert histories.user_count == 25  # also the user with one event, whom no training sees
    for user, user_id in enumerate(histories.user_ids):
        barred = {int(item) - 1 for item in histories.history(user)} | {gone}
        wanted = sorted(set(range(30)) - barred, key=lambda row: -scores[user, row])[:26]
        mine = rows.filter(pl.col("user_id") == user_id)
        assert mine["item_id"].to_list() == [features.item_ids[row] for row in wanted]
        assert mine["rank"].to_list() == list(range(1, len(wanted) + 1))
        assert mine["score"].to_numpy() == pytest.approx(scores[user, wanted], abs=1e-4)
    # 24 users of 6 items have 24 or 23 left, fewer than K.
    assert rows.filter(pl.col("user_id") == "u00").height in (23, 24)
    assert "i29" in set(rows["item_id"])


def test_an_approximate_index_says_what_it_misses_and_publishes_anew(
    lively_shop, small_models, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With so few items an index is exact unless it is made to be none.
    monkeypatch.setattr("storage.approximate_index.FEWEST_APPROXIMATED", 1)
    lively_shop.pretend_to_train(small_models)
    exact, *listed = (
        RecommendConfig(k=5),
        RecommendConfig(k=5, index=IndexConfig(kind="ivf", lists=3, probes=3)),
        RecommendConfig(k=5, index=IndexConfig(kind="ivf", lists=3, probes=1)),
    )
    run_stage(stage(lively_shop, small_models, exact), lambda progress: None)
    wanted = recommended(lively_shop)
    recalls = []
    for config in listed:
        asked = stage(lively_shop, small_models, config)
        assert asked.plan().new == 24  # another index is another publication
        recalls.append(float(asked.run(asked.plan(), "run", lambda progress: None).details["index_recall@5"]))
        assert recommended(lively_shop).group_by("user_id", "recommendation_key").len()["len"].to_list() == [5] * (
            24 * (1 + len(recalls))
        )
    # All lists looked at: nothing is missed, the same items. One of three: something is.
    all_lists = stage(lively_shop, small_models, listed[0]).published()
    assert all_lists["item_id"].explode().to_list() == wanted["item_id"].to_list()
    shutil.rmtree(lively_shop.work_folder / "indexes")  # what is made again then is nobody's recall
    assert run_stage(stage(lively_shop, small_models, listed[1]), lambda progress: None).details.keys() >= {"index"}
    assert recalls[0] == 1.0
    assert recalls[1] < 1.0


def test_what_a_killed_run_left_is_finished_with_no_row_lost_or_doubled(lively_shop, small_models) -> None:
    lively_shop.pretend_to_train(small_models)
    config = RecommendConfig(k=5, users_a_commit=10)
    killed = stage(lively_shop, small_models, config)
    commits = []

    class Killed(Exception):
        pass

    def kill(progress) -> None:
        commits.append(progress.done)
        raise Killed

    with pytest.raises(Killed):
        run_stage(killed, kill)
    assert commits == [10]
    plan = stage(lively_shop, small_models, config).plan()
    assert (plan.new, plan.up_to_date) == (14, 10)
    run_stage(stage(lively_shop, small_models, config), lambda progress: None)
    rows = recommended(lively_shop)
    assert rows.height == 24 * 5
    assert rows.select("user_id", "rank").is_duplicated().sum() == 0
    assert stage(lively_shop, small_models, config).plan().to_do == 0
    # Another K is another publication, another model too.
    assert stage(lively_shop, small_models, RecommendConfig(k=6)).plan().new == 24
    assert stage(lively_shop, small_models, RecommendConfig(k=5, seed=1)).plan().new == 24
    # A new event changes histories, an answer what an item's vector is made of: the model and the items stay.
    lively_shop.put_events(("u00", "i29", 99))
    assert stage(lively_shop, small_models, config).plan().new == 24
    run_stage(stage(lively_shop, small_models, config), lambda progress: None)
    lively_shop.put_answer("i00", "text", "A mug.")
    assert stage(lively_shop, small_models, config).plan().new == 24


def test_user_who_has_seen_everything_gets_nothing_and_is_no_work(hand_made_shop, small_models) -> None:
    shop = hand_made_shop
    shop.put_items(*({"item_id": name, "title": name} for name in "abcd"))
    shop.put_vectors({"z": [1, 2]})
    walks = {"all": "abcd", "most": "abc", "v": "cba"}
    shop.put_events(*((user, item, time) for user, walk in walks.items() for time, item in enumerate(walk)))
    shop.pretend_to_train(small_models)
    config = RecommendConfig(k=20, variant="id_only", seed=1)
    made = stage(shop, small_models, config)
    plan = made.plan()
    assert (plan.new, plan.notes) == (2, ("1 users have seen every active item",))
    summary = run_stage(made, lambda progress: None)
    assert summary.details["model"] == "id_only, seed 1"
    assert recommended(shop).select("user_id", "rank", "item_id").rows() == [("most", 1, "d"), ("v", 1, "d")]
    assert stage(shop, small_models, config).plan().to_do == 0


def test_a_store_without_items_says_so(hand_made_shop, small_models, tmp_path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("u\n")
    plan = stage(hand_made_shop, small_models, RecommendConfig(users=users)).plan()
    assert (plan.to_do, plan.notes[0]) == (0, "no item is on offer: the store has no active one: ingest a catalog")


def test_the_index_is_saved_with_its_ids(lively_shop, small_models) -> None:
    lively_shop.pretend_to_train(small_models)
    indexes = lively_shop.work_folder / "indexes"
    for left in ("a.unfinished-dropped-1", "b.unfinished-dropped-2", "c.unfinished-3", "earlier"):
        (indexes / left).mkdir(parents=True)
    (indexes / ".DS_Store").touch()
    summary = run_stage(stage(lively_shop, small_models, RecommendConfig(k=1)), lambda progress: None)
    (folder,) = (path for path in indexes.iterdir() if path.name.isalnum() and path.name != "earlier")
    assert (indexes / "earlier").exists()  # a server may still read it
    index, ids = VectorIndex.open(folder)
    assert ids == [f"i{number:02d}" for number in range(30)]
    assert index.search(np.zeros((1, 8), np.float32), 1)[1].shape == (1, 1)
    assert summary.details["index"] == str(folder)


def test_an_index_that_is_gone_is_made_again_and_a_list_of_users_drops_none(
    lively_shop, small_models, tmp_path
) -> None:
    lively_shop.pretend_to_train(small_models)
    everyones = stage(lively_shop, small_models, RecommendConfig(k=1))
    folder = Path(str(run_stage(everyones, lambda progress: None).details["index"]))
    (folder / "about.json").unlink()
    plan = everyones.plan()
    assert (plan.new, plan.changed, plan.to_do) == (0, 1, 1)
    assert plan.notes == ("the index for serving is gone, and is made again",)
    shutil.rmtree(folder)
    assert run_stage(everyones, lambda progress: None).counts["recommendations"] == 0
    assert VectorIndex.open(folder)[0].count == 30 and everyones.plan().to_do == 0
    users = tmp_path / "users.txt"
    for number in range(4):
        users.write_text(f"u0{number}\n")
        listed = stage(lively_shop, small_models, RecommendConfig(k=1, users=users))
        run_stage(listed, lambda progress: None)
    assert everyones.plan().to_do == listed.plan().to_do == 0
    assert len(list((lively_shop.work_folder / "indexes").glob("listed-*"))) == 3


def test_unknown_variant_and_missing_training_are_said(lively_shop, small_models) -> None:
    with pytest.raises(StageError, match=r"recommend\.variant 'other'.*variants dmesr, id_only and the seeds \[0, 1\]"):
        stage(lively_shop, small_models, RecommendConfig(variant="other")).plan()
    with pytest.raises(StageError, match="dmesr, seed 0, is not trained: run train first"):
        run_stage(stage(lively_shop, small_models, RecommendConfig()), lambda progress: None)


def test_of_the_seeds_that_which_validates_best_is_chosen(lively_shop, small_models) -> None:
    models = lively_shop.pretend_to_train(small_models)  # dmesr with seeds 0 and 1, id_only with both
    for model, validation in zip(models, (None, 0.1, 0.3, 0.2), strict=True):  # None: no validation events
        summary = model.summary | {"validation_ndcg_at_10": validation}
        (model.folder / "summary.json").write_text(json.dumps(summary))
    keys = stage(lively_shop, small_models, RecommendConfig()).dataset.keys

    def chosen(**named: object) -> str:
        return chosen_model(RecommendConfig(**named), small_models, keys, lively_shop.work_folder).name

    assert (chosen(), chosen(seed=0)) == ("dmesr, seed 1", "dmesr, seed 0")
    assert chosen(variant="id_only") == "id_only, seed 0"


def test_users_of_a_file_known_and_unknown(lively_shop, small_models, tmp_path) -> None:
    lively_shop.pretend_to_train(small_models)
    run_stage(stage(lively_shop, small_models, RecommendConfig(k=4)), lambda progress: None)
    everyone = recommended(lively_shop)
    users = tmp_path / "users.jsonl"
    users.write_text(
        'u03\n{"user_id": "guest", "history": ["i01", "nonsense", "i03"]}\n{"user_id": "blank", "history": []}\n'
    )
    config = RecommendConfig(k=4, users=users)
    plan = stage(lively_shop, small_models, config).plan()
    assert plan.new == 3
    assert plan.notes == ("1 items of histories are unknown and left out (nonsense)",)
    summary = run_stage(stage(lively_shop, small_models, config), lambda progress: None)
    assert summary.counts["without a history"] == 1
    rows = recommended(lively_shop).filter(pl.col("recommendation_key") == summary.details["key"])
    assert set(everyone["recommendation_key"]).isdisjoint(rows["recommendation_key"])
    assert rows.group_by("user_id").len().sort("user_id").rows() == [("blank", 4), ("guest", 4), ("u03", 4)]

    mine, among_all = (table.filter(user_id="u03").sort("rank") for table in (rows, everyone))
    assert mine["item_id"].to_list() == among_all["item_id"].to_list()
    # Few queries are scored one by one, many as a product of matrices: the same numbers but for their last digit.
    assert mine["score"].to_list() == pytest.approx(among_all["score"].to_list(), rel=1e-6)
    assert not {"i01", "i03"} & set(rows.filter(user_id="guest")["item_id"])
    assert set(rows.filter(user_id="guest")["source"]) == {"model"}
    # Popular: the four items with the most events, ties by id.
    events = lively_shop.store.table(INTERACTIONS).read("item_id").group_by("item_id").len()
    popular = events.sort("len", "item_id", descending=[True, False]).head(4)
    blank = rows.filter(user_id="blank")
    assert blank["item_id"].to_list() == popular["item_id"].to_list()
    assert blank["score"].to_list() == popular["len"].to_list()
    assert set(blank["source"]) == {"popularity"}
    assert stage(lively_shop, small_models, config).plan().to_do == 0
    published = {
        user: (source, items) for user, source, items in stage(lively_shop, small_models, config).published().rows()
    }
    assert published["blank"] == ("popularity", blank["item_id"].to_list())
    assert set(published) == {"u03", "guest", "blank"}


def test_blocked_items_are_never_recommended(lively_shop, small_models, tmp_path) -> None:
    lively_shop.pretend_to_train(small_models)
    blocklist = tmp_path / "blocked.txt"
    blocklist.write_text("i28\n\n i29\nunheard-of\n")
    config = RecommendConfig(k=30, blocklist=blocklist)
    made = stage(lively_shop, small_models, config)
    assert made.plan().notes == (f"1 ids of {blocklist} are of no item (unheard-of)",)
    summary = run_stage(made, lambda progress: None)
    assert not {"i28", "i29"} & set(recommended(lively_shop)["item_id"])
    _, ids = VectorIndex.open(Path(str(summary.details["index"])))
    assert not {"i28", "i29"} & set(ids) and len(ids) == 28
    blocklist.write_text("i28\n")  # another list is another publication
    assert stage(lively_shop, small_models, config).plan().new == 24
    blocklist.write_text("7.0\n007\n")  # ids are read as a catalog's are
    assert stage(lively_shop, small_models, config).plan().notes == (f"2 ids of {blocklist} are of no item (007, 7)",)
    blocklist.write_text("".join(f"i{number:02d}\n" for number in range(30)))
    plan = stage(lively_shop, small_models, config).plan()
    assert (plan.to_do, plan.notes) == (0, (f"no item is on offer: {blocklist} names all of them",))
    blocklist.unlink()
    with pytest.raises(StageError, match=r"recommend\.blocklist: .* can't be read"):
        stage(lively_shop, small_models, config).plan()


def test_a_new_item_enters_index_and_lists_without_training(lively_shop, small_models) -> None:
    models = lively_shop.pretend_to_train(small_models)
    before = run_stage(stage(lively_shop, small_models, RecommendConfig(k=31)), lambda progress: None)
    lively_shop.put_item("new", "mug 1", attributes='{"kind": "mug"}')
    lively_shop.put_segments(new=("mug 1", "A mug."))
    after = run_stage(stage(lively_shop, small_models, RecommendConfig(k=31)), lambda progress: None)
    assert before.details["checkpoint"] == after.details["checkpoint"] == models[0].key
    index, ids = VectorIndex.open(Path(str(after.details["index"])))
    assert "new" in ids and index.count == 31
    about = json.loads((Path(str(after.details["index"])) / "about.json").read_text())
    assert about["model"] == models[0].key
    rows = recommended(lively_shop).filter(recommendation_key=str(after.details["key"]))
    assert rows.filter(item_id="new").height == 24
