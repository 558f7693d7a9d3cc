import time
from pathlib import Path

import polars as pl
import pytest

from storage.schemas import METRICS, RECOMMENDATIONS, RUNS
from tasks.evaluate import EvaluateConfig, EvaluateStage
from tasks.maintain import MaintainConfig, MaintainStage
from tasks.recommend import RecommendConfig, RecommendStage
from tasks.retention import drop_folder, old_models
from tasks.retraining import RetrainConfig
from tasks.serving import record_decision
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


def test_a_publication_for_a_list_of_users_is_the_present_one_where_the_config_names_the_list(
    lively_shop, small_models, tmp_path: Path
) -> None:
    users = tmp_path / "users.txt"
    users.write_text("u00\nu01\n")
    listed = RECOMMEND.model_copy(update={"users": users})
    shop, train = lively_shop, small_models
    shop.pretend_to_train(train)
    for config in (RECOMMEND, listed):
        stage = RecommendStage(config, train, shop.describe, shop.embed, shop.store, shop.work_folder)
        run_stage(stage, lambda progress: None)
    run_stage(maintain(shop, train, listed, keep_hours=0), lambda progress: None)
    assert shop.store.table(RECOMMENDATIONS).read("user_id")["user_id"].unique().sort().to_list() == ["u00", "u01"]


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
    assert summary.counts["files deleted"] >= 3
    assert table.count() == 4  # with the row of this run


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
