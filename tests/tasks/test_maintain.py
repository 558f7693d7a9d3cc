import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from storage.schemas import CREATED_AT, METRICS, RECOMMENDATIONS, RUNS
from tasks.evaluate import EvaluateConfig, EvaluateStage
from tasks.maintain import MaintainConfig, MaintainStage
from tasks.recommend import RecommendConfig, RecommendStage
from tasks.retention import drop_folder, old_models
from tasks.retraining import RetrainConfig
from tasks.serving import decisions, record_decision
from tasks.stage import run_stage
from tasks.train import TrainStageConfig
from tasks.trained_models import models_on_disk

EVALUATE, RECOMMEND = EvaluateConfig(ks=(10,), negatives=0, baselines=("popularity",)), RecommendConfig(k=2)


def maintain(shop, train: TrainStageConfig, recommend: RecommendConfig = RECOMMEND, **config: object) -> MaintainStage:
    places = (shop.describe, shop.embed, shop.store, shop.work_folder)
    return MaintainStage(MaintainConfig(**config), EVALUATE, recommend, train, *places)


def night(shop, train: TrainStageConfig) -> None:
    shop.pretend_to_train(train)
    places = (train, shop.describe, shop.embed, shop.store, shop.work_folder)
    run_stage(EvaluateStage(EVALUATE, *places), lambda progress: None)
    run_stage(RecommendStage(RECOMMEND, *places), lambda progress: None)


@pytest.fixture
def two_seeds(small_models) -> TrainStageConfig:
    """The smaller of the small models, twice."""
    return small_models.model_copy(update={"variants": small_models.variants[1:]})


@pytest.fixture
def two_nights(lively_shop, small_models):
    """Two models of each kind: the first night's, and the second's, after one event more."""
    train = small_models.model_copy(update={"seeds": (0,), "keep_models": 0, "retrain": RetrainConfig(max_age_days=0)})
    night(lively_shop, train)
    lively_shop.put_events(("u00", "i29", 77))
    night(lively_shop, train)
    return lively_shop, train


def test_what_no_kept_model_needs_is_deleted(two_nights) -> None:
    shop, train = two_nights
    serving, present = models_on_disk(shop.work_folder)[-1], models_on_disk(shop.work_folder)[:2]
    record_decision(shop.store, serving, None, "run", promoted=True, pinned=True, reason="by hand")
    places = (train, shop.describe, shop.embed, shop.store, shop.work_folder)
    run_stage(EvaluateStage(EVALUATE, *places), lambda progress: None)  # the one that serves, on the present data
    run_stage(RecommendStage(RECOMMEND, *places), lambda progress: None)
    time.sleep(0.01)  # so that all of it is older than no hours
    stage = maintain(shop, train, keep_hours=0)
    assert dict(stage.plan().work.rows())["old models"] == 1
    summary = run_stage(stage, lambda progress: None)

    left = {model.key for model in models_on_disk(shop.work_folder)}
    assert left == {serving.key, *(model.key for model in present)}
    metrics = shop.store.table(METRICS).read()
    # Of three models and the baseline the present evaluations; of the one that serves also that of the first night.
    assert set(metrics["model"]) == {*left, None}
    assert metrics.filter(model=serving.key)["evaluation_key"].n_unique() == 2
    assert len(list((shop.work_folder / "evaluations").iterdir())) == 4
    assert shop.store.table(RECOMMENDATIONS).read("recommendation_key").n_unique() == 1
    assert summary.counts["rows of old recommendations"] == 24 * 2 * 2
    assert len(list((shop.work_folder / "features").iterdir())) == 1
    assert stage.plan().to_do == 0
    # What is left is all that the stages want.
    assert EvaluateStage(EVALUATE, *places).plan().to_do == RecommendStage(RECOMMEND, *places).plan().to_do == 0


def test_young_rows_and_ranks_stay(two_nights) -> None:
    shop, train = two_nights
    stage = maintain(shop, train.model_copy(update={"keep_models": 9}))
    assert set(stage.plan().work["what"]) == {"folders of old features and sequences"}
    run_stage(stage, lambda progress: None)
    assert shop.store.table(RECOMMENDATIONS).read("recommendation_key").n_unique() == 2
    assert len(list((shop.work_folder / "evaluations").iterdir())) == 6


def recommend(shop, train: TrainStageConfig, config: RecommendConfig = RECOMMEND, report=lambda progress: None) -> str:
    """Publish; return the key."""
    stage = RecommendStage(config, train, shop.describe, shop.embed, shop.store, shop.work_folder)
    run_stage(stage, report)
    return stage.present_key()


def kept(shop, train: TrainStageConfig, config: RecommendConfig = RECOMMEND) -> set[str]:
    """The publications that maintain leaves where nothing old is kept."""
    time.sleep(0.01)  # so that all of it is older than no hours
    run_stage(maintain(shop, train, config, keep_hours=0), lambda progress: None)
    return set(shop.store.table(RECOMMENDATIONS).read("recommendation_key")["recommendation_key"])


def test_lists_for_some_users_replace_one_another_and_never_everyones(lively_shop, two_seeds, tmp_path: Path) -> None:
    shop, train = lively_shop, two_seeds
    shop.pretend_to_train(train)
    listed = [RECOMMEND.model_copy(update={"users": tmp_path / name}) for name in ("one.txt", "other.txt")]
    for number, config in enumerate(listed):
        config.users.write_text(f"u0{number}\n")
    everyones = recommend(shop, train)
    one, other = (recommend(shop, train, config) for config in listed)
    # The configured list is the present one of its kind; without one, the newest is.
    assert kept(shop, train, listed[0]) == {everyones, one, other}
    assert kept(shop, train) == {everyones, other}


def test_a_publication_that_a_kill_left_half_done_replaces_none(lively_shop, two_seeds) -> None:
    shop, train = lively_shop, two_seeds
    shop.pretend_to_train(train)
    whole = recommend(shop, train)
    again = RECOMMEND.model_copy(update={"k": 3, "users_a_commit": 10})
    with pytest.raises(KeyboardInterrupt):
        recommend(shop, train, again, _killed)
    assert len(kept(shop, train, again)) == 2
    assert kept(shop, train, again) - {recommend(shop, train, again)} == {whole}
    assert len(kept(shop, train, again)) == 1


def _killed(progress: object) -> None:
    raise KeyboardInterrupt


def test_what_a_roll_back_served_again_is_as_young_as_the_roll_back(lively_shop, two_seeds, tmp_path: Path) -> None:
    shop, train = lively_shop, two_seeds
    first, second = shop.pretend_to_train(train)
    (tmp_path / "users.txt").write_text("u01\n")
    keys = []
    for model in (first, second, first):
        record_decision(shop.store, model, None, "run", promoted=True, pinned=False, reason="by hand")
        keys.append(recommend(shop, train))
        if len(keys) == 1:  # a list by the same model, later than its publication for everyone
            listed = recommend(shop, train, RECOMMEND.model_copy(update={"users": tmp_path / "users.txt"}))
    rolled_back = decisions(shop.store)[CREATED_AT][-1]
    shop.put_events(("u00", "i28", 1000))
    present = recommend(shop, train)
    stage = maintain(shop, train)
    # A moment after the roll-back the second model's was replaced, the first's was not yet.
    stage._oldest_kept = lambda: rolled_back + timedelta(microseconds=1)
    run_stage(stage, lambda progress: None)
    left = set(shop.store.table(RECOMMENDATIONS).read("recommendation_key")["recommendation_key"])
    assert left == {keys[0], listed, present} and keys[1] not in left


def test_while_nothing_has_replaced_it_a_publication_stays(lively_shop, small_models) -> None:
    shop, train = lively_shop, small_models
    night(shop, train)
    shop.put_events(("u00", "i28", 1000))  # what would be published now is another one, and is not there yet
    shop.pretend_to_train(train)
    run_stage(maintain(shop, train, keep_hours=0), lambda progress: None)
    assert shop.store.table(RECOMMENDATIONS).count() == 48


def test_many_small_files_become_one(lively_shop, small_models) -> None:
    table = lively_shop.store.table(RUNS)
    for number in range(3):
        row = {name: None for name in table.empty().schema} | {"run_id": str(number)}
        table.append(pl.DataFrame([row], schema=table.empty().schema))
    assert maintain(lively_shop, small_models, small_files=4).plan().to_do == 0
    summary = run_stage(maintain(lively_shop, small_models, small_files=3, keep_hours=0), lambda progress: None)
    assert summary.counts["small files of runs joined"] == 3
    assert summary.counts["files of old versions"] >= 3
    assert table.count() == 4  # with the row of this run


def test_files_of_old_versions_are_a_chore_of_their_own(lively_shop, small_models) -> None:
    table = lively_shop.store.table(RUNS)
    table.append(pl.DataFrame([{name: None for name in table.empty().schema} | {"run_id": "a"}], table.empty().schema))
    assert table.delete("run_id = 'a'") == 1
    assert maintain(lively_shop, small_models).plan().to_do == 0  # for a week they stay
    at_once = maintain(lively_shop, small_models, keep_hours=0)
    plan = at_once.plan()
    (old,) = plan.work.filter(pl.col("what") == "files of old versions")["amount"]
    assert plan.to_do == 1 and old >= 1
    assert run_stage(at_once, lambda progress: None).counts["files of old versions"] == old
    assert maintain(lively_shop, small_models, keep_hours=0).plan().to_do == 0


def test_logs_remember_for_as_long_as_versions_are_kept(lively_shop, small_models) -> None:
    assert maintain(lively_shop, small_models, keep_hours=1000).plan().work["what"].to_list() == [
        "tables that are to remember longer"
    ]
    for _ in range(2):  # the first makes the table of runs
        run_stage(maintain(lively_shop, small_models, keep_hours=1000), lambda progress: None)
    assert maintain(lively_shop, small_models, keep_hours=1000).plan().to_do == 0


def test_an_empty_store_has_no_chores(hand_made_shop, small_models) -> None:
    assert maintain(hand_made_shop, small_models).plan().to_do == 0


def test_what_is_linked_is_left_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    drop_folder(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_a_folder_goes_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "key"
    folder.mkdir(parents=True)
    (folder / "about.json").write_text("{}")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tasks.retention.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            drop_folder(folder)
    assert models_on_disk(tmp_path) == [] == old_models(tmp_path, 0, ())
    folder.mkdir()
    drop_folder(folder)  # the next one clears the first away, too
    assert list((tmp_path / "models").iterdir()) == []
