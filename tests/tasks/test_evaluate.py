from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from dmesr_model.encoding import encode_items, encode_sequences
from dmesr_model.model import DMESR
from dmesr_model.sequences import Sequences, leave_one_out
from storage.approximate_index import IndexConfig
from storage.schemas import METRICS
from tasks.evaluate import EvaluateConfig, EvaluateStage, candidate_of, candidates, ranks_folder
from tasks.evaluation.protocols import MISSED, HeldOutUsers, draw_negatives
from tasks.features import Dataset, open_features
from tasks.stage import StageError, run_stage
from tasks.train import TrainStageConfig


def test_what_models_are_judged_by_is_always_measured() -> None:
    assert EvaluateConfig(ks=(50, 20, 20)).ks == (10, 20, 50)
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        EvaluateConfig(ks=(0,))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"history_edges": (10, 5)}, r"give the bounds as \[5, 10\]"),
        ({"history_edges": (5, 5, 10)}, r"give the bounds as \[5, 10\]"),
        ({"history_edges": (0, 5)}, "greater than or equal to 1"),
        ({"baselines": ("content", "content")}, "name each once"),
    ],
)
def test_slices_that_hold_nobody_and_baselines_named_twice_are_refused(settings, said) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluateConfig(**settings)


CONFIG = EvaluateConfig(ks=(1, 3), negatives=5, history_edges=(2, 4))


def stage(shop, train: TrainStageConfig, config: EvaluateConfig = CONFIG) -> EvaluateStage:
    return EvaluateStage(config, train, shop.describe, shop.embed, shop.store, shop.work_folder)


def brute_force_ranks(scores_HN: np.ndarray, histories: list[np.ndarray], targets: np.ndarray) -> list[int]:
    ranks = []
    for scores_N, history, target in zip(scores_HN, histories, targets, strict=True):
        others = set(range(len(scores_N))) - {int(item) - 1 for item in history} - {int(target)}
        ranks.append(1 + sum(scores_N[row] >= scores_N[target] for row in others))
    return ranks


def test_every_model_protocol_and_slice_equals_brute_force(lively_shop, small_models) -> None:
    models = lively_shop.pretend_to_train(small_models)
    summary = run_stage(stage(lively_shop, small_models), lambda progress: None)
    assert summary.counts == {"up_to_date": 0, "done": 6}
    rows = lively_shop.store.table(METRICS).read()

    dataset = Dataset(
        lively_shop.store, lively_shop.describe, lively_shop.embed, small_models.filters, lively_shop.work_folder
    )
    features, _ = open_features(dataset.features_folder())
    split = leave_one_out(Sequences.open(dataset.sequences_folder()))
    targets = split.test.target_index_H.astype(int) - 1
    histories = [split.test.histories.history(user) for user in range(24)]
    counts = np.bincount(split.train.item_index, minlength=31)[1:]
    groups = {
        "all": [True] * 24,
        "items_cold": [counts[target] == 0 for target in targets],
        "items_no_picture": [int(features.item_ids[target][1:]) % 3 == 0 for target in targets],
        "items_failed_view": [features.item_ids[target] == "i04" for target in targets],
        "items_missing_view": [True] * 24,  # nobody has a summary
        "history_1_2": [False] * 24,
        "history_3_4": [True] * 24,  # 6 events, 2 held out
    }
    users = HeldOutUsers.of(split.test, 30)
    scores = {("popularity", 0): np.tile(counts, (24, 1))}
    for model in models:
        made = DMESR.from_pretrained(model.checkpoint)
        items = encode_items(made, features)
        scores[model.variant, model.seed] = encode_sequences(made, items, split.test.histories) @ items.T
    for (variant, seed), scores_HN in scores.items():
        full = brute_force_ranks(scores_HN, histories, targets)
        sampled = []
        for user in range(24):
            rivals = scores_HN[user, draw_negatives(users, user, 5, 0)]
            sampled.append(1 + int((rivals >= scores_HN[user, targets[user]]).sum()))
        for protocol, ranks in (("full", full), ("sampled", sampled)):
            for name, members in groups.items():
                inside = [rank for rank, member in zip(ranks, members, strict=True) if member]
                for k in (1, 3):
                    wanted = {
                        f"hr@{k}": [float(rank <= k) for rank in inside],
                        f"ndcg@{k}": [1 / np.log2(1 + rank) if rank <= k else 0.0 for rank in inside],
                        f"mrr@{k}": [1 / rank if rank <= k else 0.0 for rank in inside],
                    }
                    for metric, values in wanted.items():
                        found = rows.filter(
                            (pl.col("variant") == variant)
                            & (pl.col("seed") == seed)
                            & (pl.col("protocol") == protocol)
                            & (pl.col("slice") == name)
                            & (pl.col("metric") == metric)
                        ).row(0, named=True)
                        assert found["users"] == len(values)
                        assert found["value"] == (pytest.approx(np.mean(values), abs=1e-12) if values else None)


def test_second_run_does_nothing_and_a_new_seed_is_one_model_a_variant(lively_shop, small_models) -> None:
    lively_shop.pretend_to_train(small_models)
    run_stage(stage(lively_shop, small_models), lambda progress: None)
    count = lively_shop.store.table(METRICS).count()
    again = run_stage(stage(lively_shop, small_models), lambda progress: None)
    assert again.counts == {"up_to_date": 6, "done": 0}
    plan = stage(lively_shop, small_models.model_copy(update={"seeds": (0, 1, 2)})).plan()
    assert (plan.new, plan.up_to_date, plan.notes) == (2, 6, ("2 of them to be trained first",))
    # Ranks lost from the work folder are made again, and no row twice.
    (candidate, *_) = candidates(
        CONFIG, small_models, stage(lively_shop, small_models).dataset.keys, lively_shop.work_folder
    )
    folder = ranks_folder(lively_shop.work_folder, candidate)
    ranks = np.load(folder / "full.npy")
    folder.rename(folder.with_name("lost"))
    assert run_stage(stage(lively_shop, small_models), lambda progress: None).counts["done"] == 1
    assert lively_shop.store.table(METRICS).count() == count
    assert np.load(folder / "full.npy").tolist() == ranks.tolist()
    assert ((ranks >= 1) & ((ranks <= 10) | (ranks == MISSED))).all()


@pytest.mark.parametrize(
    "settings",
    [
        *({"ks": (1, 4)}, {"negatives": 6}, {"negatives_seed": 1}, {"head_share": 0.3}, {"history_edges": (2,)}),
        {"index": IndexConfig(kind="hnsw")},
    ],
)
def test_another_way_to_measure_is_another_evaluation(settings: dict, lively_shop, small_models) -> None:
    keys, folder = stage(lively_shop, small_models).dataset.keys, lively_shop.work_folder
    other = EvaluateConfig(**{**dict(CONFIG), **settings})
    before, after = ({one.key for one in candidates(how, small_models, keys, folder)} for how in (CONFIG, other))
    assert len(before) == len(after) == 6
    assert before.isdisjoint(after)


def test_the_same_model_or_baseline_on_other_data_is_another_evaluation(lively_shop, small_models) -> None:
    keys, folder = stage(lively_shop, small_models).dataset.keys, lively_shop.work_folder
    (first, *_, baseline) = candidates(CONFIG, small_models, keys, folder)
    for other in (replace(keys, features="other"), replace(keys, sequences="other")):
        assert candidate_of(CONFIG, first.model, other).key != first.key
        assert list(candidates(CONFIG, small_models, other, folder))[-1].key != baseline.key


def test_untrained_models_are_said(lively_shop, small_models) -> None:
    with pytest.raises(StageError, match="dmesr, seed 0, is not trained: run train first"):
        run_stage(stage(lively_shop, small_models), lambda progress: None)


def test_nan_weights_are_an_error_that_says_so(lively_shop, small_models) -> None:
    model = lively_shop.pretend_to_train(small_models)[0]
    broken = DMESR.from_pretrained(model.checkpoint)
    for parameter in broken.items.parameters():
        parameter.data.fill_(float("nan"))
    broken.save_pretrained(model.checkpoint)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        run_stage(stage(lively_shop, small_models), lambda progress: None)


def test_no_test_users_gives_nulls(hand_made_shop) -> None:
    hand_made_shop.put_item("a", "mug")
    hand_made_shop.put_events(("u", "a", 1))
    baselines = EvaluateConfig(ks=(5,), baselines=("popularity", "content"))
    made = stage(hand_made_shop, TrainStageConfig(), baselines)
    for candidate in (candidate for candidate in made._candidates() if candidate.model is None):
        made._evaluate(candidate, made._test_set(), "run")
    rows = hand_made_shop.store.table(METRICS).read("value", "users")
    assert rows["value"].null_count() == rows.height > 0
    assert set(rows["users"]) == {0}


def test_killed_between_ranks_and_rows(lively_shop, small_models, monkeypatch: pytest.MonkeyPatch) -> None:
    lively_shop.pretend_to_train(small_models)

    class Killed(Exception):
        pass

    def kill(self, candidate, rows, run_id) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(EvaluateStage, "_commit", kill)
        with pytest.raises(Killed):
            run_stage(stage(lively_shop, small_models), lambda progress: None)
    assert len(list((lively_shop.work_folder / "evaluations").iterdir())) == 1
    assert run_stage(stage(lively_shop, small_models), lambda progress: None).counts["done"] == 6
    rows = lively_shop.store.table(METRICS).read("evaluation_key", "protocol", "slice", "metric")
    assert rows["evaluation_key"].n_unique() == 6
    assert rows.is_duplicated().sum() == 0
