from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.torch import load_file, save_file

from flows import serving_commands
from storage.schemas import METRICS, PROMOTIONS
from tasks.evaluate import EvaluateConfig, EvaluateStage, ranks_folder
from tasks.promote import PromoteConfig, PromoteStage, decide
from tasks.recommend import RecommendConfig, RecommendStage
from tasks.serving import model_named, promote_by_hand, serving_model
from tasks.stage import StageError, Summary, run_stage
from tasks.train import TrainStageConfig, Variant
from tasks.trained_models import finished_models
from tasks.work_lock import only_run

EVALUATE = EvaluateConfig(ks=(1, 10), negatives=0, baselines=())
SMALL = {"width": 8, "adapter_width": 8, "layers": 1, "heads": 1, "max_length": 8}
ONE = TrainStageConfig(variants=(Variant(name="dmesr", model=SMALL),), seeds=(0,))


def test_worse_by_a_little_for_everyone_is_refused() -> None:
    # Differences −0.1, −0.2, −0.1, −0.2: mean −0.15, deviation 0.0577, error 0.0289, t = −5.2 with 3 degrees.
    serving = np.array([0.5, 0.6, 0.7, 0.8])
    decision = decide(serving, serving - [0.1, 0.2, 0.1, 0.2], level=0.05)
    assert not decision.promoted and decision.reason == "significantly worse"
    assert decision.comparison.difference == pytest.approx(-0.15)
    assert decision.comparison.p_value == pytest.approx(0.0138, abs=1e-4)
    assert decide(serving, serving - [0.1, 0.2, 0.1, 0.2], level=0.01).promoted


def test_worse_by_luck_and_better_are_promoted() -> None:
    # Differences −0.5, +0.4, −0.3, +0.2: mean −0.05, error 0.21, t = −0.24.
    serving = np.array([0.5, 0.4, 0.3, 0.2])
    noisy = decide(serving, serving + np.array([-0.5, 0.4, -0.3, 0.2]), level=0.05)
    assert noisy.promoted and noisy.reason == "not significantly worse"
    assert noisy.comparison.difference == pytest.approx(-0.05)
    assert noisy.comparison.p_value > 0.5
    better = decide(serving, serving + np.array([0.1, 0.2, 0.1, 0.2]), level=0.05)
    assert better.promoted and better.comparison.p_value < 0.05


def test_equal_models_and_too_few_users_are_promoted() -> None:
    same = np.array([0.5, 0.0])
    assert decide(same, same, 0.05).comparison.p_value == 1.0
    assert decide(same, same, 0.05).promoted
    assert decide(same[:1], same[:1] - 0.5, 0.05).reason.startswith("too few test users")
    assert decide(np.ones(2), np.zeros(2), 0.05).promoted  # two who lose the same: no spread, and no certainty


class House:
    """A shop with its stages, for one night after another."""

    def __init__(self, shop, train: TrainStageConfig = ONE, recommend: RecommendConfig | None = None) -> None:
        self.shop, self.train, self.config = shop, train, PromoteConfig()
        self.recommend = recommend or RecommendConfig(k=3)
        self.places = (shop.describe, shop.embed, shop.store, shop.work_folder)

    def promote(self, recommend: RecommendConfig | None = None) -> PromoteStage:
        return PromoteStage(self.config, EVALUATE, recommend or self.recommend, self.train, *self.places)

    def evaluate(self) -> Summary:
        return run_stage(EvaluateStage(EVALUATE, self.train, *self.places), lambda progress: None)

    def judge(self, recommend: RecommendConfig | None = None) -> str:
        return str(run_stage(self.promote(recommend), lambda progress: None).details.get("decision", ""))

    @property
    def serving(self) -> str:
        keys = self.promote().dataset.keys
        found = serving_model(self.shop.store, keys, self.shop.work_folder)
        return "" if found is None else found.model.key

    def train_anew(self) -> str:
        """A new event, and a model trained on it; return its key."""
        count = self.shop.store.table(PROMOTIONS).count()
        self.shop.put_events((f"u{count:02d}", "i28", 1000 + count))
        (model,) = self.shop.pretend_to_train(self.train)
        return model.key

    def pretend_ranks(self, ranks: dict[str, int]) -> None:
        """Give all test users of each model (by key) one rank, and every other one rank 1."""
        stage = EvaluateStage(EVALUATE, self.train, *self.places)
        for candidate in stage._candidates():
            path = ranks_folder(self.shop.work_folder, candidate) / "full.npy"
            worst = ranks.get(candidate.model.key, 1)
            np.save(path, np.where(np.arange(len(np.load(path))) % 3, worst, 1).astype(np.int32))


@pytest.fixture
def house(lively_shop) -> House:
    house = House(lively_shop)
    house.first = lively_shop.pretend_to_train(ONE)[0].key
    house.evaluate()
    house.judge()
    return house


def test_the_first_is_promoted_without_a_comparison(house) -> None:
    (row,) = house.shop.store.table(PROMOTIONS).read().rows(named=True)
    assert (row["model"], row["before"], row["promoted"], row["p_value"]) == (house.first, None, True, None)
    assert house.serving == house.first
    plan = house.promote().plan()
    assert (plan.to_do, plan.notes) == (0, (f"dmesr, seed 0 ({house.first[:10]}) serves",))


def test_a_model_that_this_version_cannot_load_stands_in_no_ones_way(house) -> None:
    (served,) = (ref for ref in finished_models(house.shop.work_folder) if ref.key == house.first)
    weights = served.checkpoint / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop(sorted(tensors)[0])  # as an earlier version of the model may have saved it
    save_file(tensors, weights)
    second = house.train_anew()
    assert "can't be loaded" in str(house.evaluate().details)
    assert "promoted: nothing to compare with" in house.judge()
    assert house.serving == second


def test_the_model_that_serves_is_evaluated_under_its_own_name_too(house) -> None:
    renamed = Variant(name="before", model=ONE.variants[0].model)
    house.shop.put_events(("u00", "i28", 1000))
    house.train = ONE.model_copy(
        update={"variants": (Variant(name="dmesr", model={**renamed.model, "layers": 2}), renamed)}
    )
    house.shop.pretend_to_train(house.train.model_copy(update={"variants": house.train.variants[:1]}))
    house.evaluate()
    assert "promoted: not significantly worse" in house.judge() or "refused" in house.judge()


def test_a_new_model_is_judged_on_the_present_split_against_the_one_that_serves(house) -> None:
    second = house.train_anew()
    plan = house.promote().plan()
    assert plan.new == 1
    assert plan.notes == (f"dmesr, seed 0 ({second[:10]}): against dmesr, seed 0 ({house.first[:10]}), which serves",)
    with pytest.raises(StageError, match=r"is not evaluated on the present data: run evaluate first"):
        house.judge()
    house.evaluate()
    rows = house.shop.store.table(METRICS).read("model", "users").unique()
    assert {key for key, _ in rows.rows()} == {house.first, second}
    house.pretend_ranks({house.first: 1, second: 7})
    # 24 test users, 16 of them at rank 7 instead of 1: 16 / 24 · (1 / log2(8) − 1) = −0.4444.
    assert "refused: significantly worse; ndcg@10 -0.4444" in house.judge()
    row = house.shop.store.table(PROMOTIONS).read().sort("created_at").row(-1, named=True)
    assert (row["model"], row["before"], row["promoted"], row["users"]) == (second, house.first, False, 24)
    assert row["difference"] == pytest.approx(16 / 24 * (1 / np.log2(8) - 1))
    assert house.serving == house.first
    # Judged once: it doesn't try again every night.
    plan = house.promote().plan()
    assert plan.to_do == 0 and "was judged before: significantly worse" in plan.notes[0]
    assert recommended_model(house) == house.first

    third = house.train_anew()
    house.evaluate()
    house.pretend_ranks({third: 7})
    house.config = PromoteConfig(level=1e-9)  # the p-value is 6e-7: refused at 0.05, as the second was
    assert "promoted: not significantly worse; ndcg@10 -0.4444" in house.judge()
    assert house.serving == third
    assert recommended_model(house) == third


def recommended_model(house) -> str:
    stage = RecommendStage(house.recommend, house.train, *house.places)
    return str(run_stage(stage, lambda progress: None).details["checkpoint"])


def test_a_person_rolls_back_and_pins(house) -> None:
    second = house.train_anew()
    house.evaluate()
    house.pretend_ranks({})
    house.judge()
    assert house.serving == second
    keys, folder = house.promote().dataset.keys, house.shop.work_folder
    promote_by_hand(house.shop.store, model_named(folder, house.first[:6]), keys, folder, pin=False)
    assert house.serving == house.first
    # The one that was replaced does not come back by itself; a newer one may.
    assert house.promote().plan().to_do == 0
    third = house.train_anew()
    assert house.promote().plan().new == 1
    promote_by_hand(house.shop.store, model_named(folder, house.first[:6]), keys, folder, pin=True)
    plan = house.promote().plan()
    assert plan.to_do == 0 and "pinned by hand" in plan.notes[0]
    assert third != house.first == house.serving
    with pytest.raises(StageError, match="no finished model begins with 'zz'; finished are: "):
        model_named(folder, "zz")


def config_file(house, folder: Path) -> Path:
    values = {"name": "shop", "store": {"url": house.shop.store.url}, "work_folder": str(house.shop.work_folder)}
    values |= {"ingest": {"folder": "delivery"}, "describe": {"model": "made/model"}}
    values |= {"embed": {"model": "made/encoder"}, "train": {}, "evaluate": {}, "recommend": {}, "report": {}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(values))
    return folder / "shop.yaml"


def test_the_command_waits_for_its_turn(house, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    shop, folder = house.shop, house.shop.work_folder
    config_file(house, tmp_path)
    monkeypatch.setattr(serving_commands, "only_run", partial(only_run, patience=0.01))
    said = r"another run \(the night from ingest on, .* Nothing was changed"
    with only_run(folder, "the night from ingest on"), pytest.raises(StageError, match=said):
        serving_commands.promote(tmp_path / "shop.yaml", house.first[:6])
    assert shop.store.table(PROMOTIONS).count() == 1
    serving_commands.promote(tmp_path / "shop.yaml", house.first[:6], pin=True)
    assert "serves, pinned" in capsys.readouterr().out
    assert shop.store.table(PROMOTIONS).count() == 2


def test_models_are_listed_with_what_they_scored_last(house, tmp_path, capsys) -> None:
    table = house.shop.store.table(METRICS)
    tested = table.read().filter(metric="ndcg@10", slice="all")
    for day, value in ((2, 0.2), (3, 0.3), (1, 0.1)):
        again = {"evaluation_key": str(day), "value": value, "created_at": datetime(2100, 1, day, tzinfo=UTC)}
        table.append(tested.with_columns(**{name: pl.lit(one) for name, one in again.items()}).cast(tested.schema))
    serving_commands.models(config_file(house, tmp_path))
    listed = capsys.readouterr().out.splitlines()[-1]
    assert listed.split()[:3] == [house.first[:10], "dmesr", "0"]
    assert listed.split()[-3:] == ["0.1000", "0.3000", "serves"]


def test_the_config_may_name_another_model(lively_shop, small_models) -> None:
    house = House(lively_shop, small_models)
    models = lively_shop.pretend_to_train(small_models)
    house.evaluate()
    house.judge()
    assert house.serving == models[0].key  # dmesr, seed 0: the validations are equal
    other = RecommendConfig(k=3, variant="id_only", seed=1)
    house.pretend_ranks({models[3].key: 5})
    assert "promoted: named by the config, though significantly worse" in house.judge(other)
    assert house.serving == models[3].key
    # No longer named: the default comes back, as it is not worse; where it is, it is refused, and once.
    assert "promoted: not significantly worse" in house.judge()
    assert house.serving == models[0].key
    house.judge(other)
    house.pretend_ranks({models[0].key: 5})
    assert "refused: significantly worse" in house.judge()
    assert house.serving == models[3].key
    assert house.promote().plan().to_do == 0
    # What a person has set, the config does not undo.
    keys, folder = house.promote().dataset.keys, lively_shop.work_folder
    promote_by_hand(lively_shop.store, model_named(folder, models[0].key), keys, folder, pin=False)
    assert house.promote(other).plan().to_do == 0
    assert house.serving == models[0].key


def test_a_lost_model_or_another_encoder_serves_no_more(house) -> None:
    keys = house.promote().dataset.keys
    store, folder = house.shop.store, house.shop.work_folder
    others = type(keys)(**{**keys.__dict__, "encoder": "another"})
    assert serving_model(store, others, folder) is None
    with pytest.raises(StageError, match="another encoder"):
        promote_by_hand(store, model_named(folder, house.first), others, folder, pin=False)
    (folder / "models" / house.first).rename(folder / "lost")
    assert serving_model(store, keys, folder) is None
    assert house.promote().plan().notes == (
        f"dmesr, seed 0 ({house.first[:10]}): nothing serves yet; to be trained first",
    )


def test_models_trained_on_test_events_are_not_compared(lively_shop) -> None:
    everything = TrainStageConfig(variants=ONE.variants, seeds=(0,), train={"split": "none"})
    house = House(lively_shop, everything)
    lively_shop.pretend_to_train(everything)
    house.evaluate()
    house.judge()
    second = house.train_anew()
    assert "promoted: not comparable" in house.judge()
    house.train = ONE
    lively_shop.pretend_to_train(ONE)
    assert f"not comparable: dmesr, seed 0 ({second[:10]}) trained on test events" in house.judge()
