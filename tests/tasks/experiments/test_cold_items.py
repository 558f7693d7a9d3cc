import numpy as np
import polars as pl
import pytest

from dmesr_model.encoding import encode_items, encode_sequences
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.run_setup import build_model
from dmesr_model.sequences import Sequences
from storage.schemas import METRICS
from tasks.evaluate import EvaluateConfig
from tasks.evaluation.content import ContentVectors
from tasks.experiments.cold_items import DatasetWithoutColdItems, EvaluateColdItems, choose_cold_items, split_cold
from tasks.experiments.config import ColdItemsConfig
from tasks.features import Dataset, open_features
from tasks.stage import run_stage
from tasks.train import model_refs

COLD = ColdItemsConfig(share=0.25, seed=1)


def test_a_share_of_the_items_with_events_is_cold() -> None:
    events = np.array([3, 0, 1, 1, 9, 2])  # five items have events: a quarter of them, rounded up, is two
    cold = choose_cold_items(events, COLD)
    assert cold.sum() == 2 and not cold[1]
    assert cold.tolist() == choose_cold_items(events, COLD).tolist()
    draws = {tuple(choose_cold_items(events, ColdItemsConfig(share=0.25, seed=seed))) for seed in range(20)}
    assert len(draws) > 1
    assert choose_cold_items(np.array([5]), COLD).sum() == 0  # never all of them
    assert choose_cold_items(np.array([0, 0]), COLD).sum() == 0


def test_training_sees_no_cold_item_and_nothing_after_the_test_event() -> None:
    # Items 3 and 4 are cold.
    histories = [[1, 3, 2, 4, 5], [1, 2, 5], [4, 1, 2], [2, 2, 3, 3], [3, 4]]
    split = split_cold(Sequences.from_histories(histories, ["a", "b", "c", "d", "e"]), np.array([0, 0, 1, 1, 0], bool))
    # a: last cold event is 4, before it 1 3 2. b has none. c and e begin with cold events: nothing is known before.
    assert [split.known.history(user).tolist() for user in range(5)] == [[1, 2], [1, 2, 5], [], [2, 2], []]
    assert split.test.histories.user_ids == ("a", "d")
    assert split.test.target_index_H.tolist() == [4, 3]
    assert [split.test.histories.history(user).tolist() for user in range(2)] == [[1, 2], [2, 2]]
    assert [split.had.history(user).tolist() for user in range(2)] == [[1, 3, 2], [2, 2, 3]]


def test_no_cold_item_and_no_user() -> None:
    nobody = split_cold(Sequences.from_histories([], []), np.zeros(3, bool))
    assert (nobody.known.user_count, len(nobody.test.target_index_H)) == (0, 0)
    nothing_cold = split_cold(Sequences.from_histories([[1, 2]], ["a"]), np.zeros(3, bool))
    assert nothing_cold.known.history(0).tolist() == [1, 2]


@pytest.fixture
def cold_shop(lively_shop, small_models):
    """The shop, its dataset without cold items, and models that never saw one (weights as the seed left them)."""
    parts = (lively_shop.store, lively_shop.describe, lively_shop.embed, small_models.filters, lively_shop.work_folder)
    dataset = DatasetWithoutColdItems(*parts, COLD)
    features, _ = open_features(dataset.features_folder())
    for model in model_refs(small_models, dataset.keys, lively_shop.work_folder):
        known = Sequences.open(dataset.sequences_folder())
        build_model(features, known, ModelConfig(**model.settings["model"]), model.seed).save_pretrained(
            model.checkpoint
        )
        (model.folder / "summary.json").write_text("{}")
    return lively_shop, dataset, features


def test_equals_brute_force_from_content_alone(cold_shop, small_models) -> None:
    shop, dataset, features = cold_shop
    config = EvaluateConfig(ks=(1, 3), negatives=0)
    stage = EvaluateColdItems(config, small_models, shop.describe, shop.embed, shop.store, shop.work_folder)
    stage.dataset = dataset
    run_stage(stage, lambda progress: None)
    rows = shop.store.table(METRICS).read()

    every = Sequences.open(
        Dataset(shop.store, shop.describe, shop.embed, small_models.filters, shop.work_folder).sequences_folder()
    )
    cold = choose_cold_items(np.bincount(every.item_index, minlength=31)[1:], COLD)
    cases = []  # (known history, everything had before, target), as rows from 0, by a loop over events
    for user in range(every.user_count):
        history = [int(item) - 1 for item in every.history(user)]
        places = [place for place, item in enumerate(history) if cold[item]]
        known = [item for item in history[: places[-1]] if not cold[item]] if places else []
        if known:
            cases.append((known, history[: places[-1]], history[places[-1]]))
    assert len(cases) > 5
    assert set(rows.filter(slice="all", metric="ndcg@3")["users"]) == {len(cases)}

    counts = np.zeros(30)  # training events: without the validation event, the last of a history of two or more
    for user in range(every.user_count):
        history = [int(item) - 1 for item in every.history(user)]
        places = [place for place, item in enumerate(history) if cold[item]]
        known = [item for item in history[: places[-1] if places else len(history)] if not cold[item]]
        for item in known[:-1] if len(known) > 1 else known:
            counts[item] += 1
    assert (counts[cold] == 0).all()

    content = ContentVectors(features).all()
    scores = {
        ("popularity", 0): [counts for _ in cases],
        ("content", 0): [content @ content[known].mean(axis=0) for known, _, _ in cases],
    }
    for model in model_refs(small_models, dataset.keys, shop.work_folder):
        made = DMESR.from_pretrained(model.checkpoint)
        assert not cold[[features.item_ids.index(item_id) for item_id in made.item_ids]].any()
        items = encode_items(made, features)
        histories = Sequences.from_histories([[row + 1 for row in known] for known, _, _ in cases], ["u"] * len(cases))
        scores[model.variant, model.seed] = list(encode_sequences(made, items, histories) @ items.T)
    for (variant, seed), of_users in scores.items():
        ranks = [
            1 + sum(row not in had and row != target and score[row] >= score[target] for row in range(30))
            for score, (_, had, target) in zip(of_users, cases, strict=True)
        ]
        for k in (1, 3):
            found = rows.filter((pl.col("variant") == variant) & (pl.col("seed") == seed) & (pl.col("slice") == "all"))
            values = dict(found.filter(pl.col("protocol") == "full").select("metric", "value").iter_rows())
            assert values[f"hr@{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]), abs=1e-12)
            gains = [1 / np.log2(1 + rank) if rank <= k else 0 for rank in ranks]
            assert values[f"ndcg@{k}"] == pytest.approx(np.mean(gains), abs=1e-12)


def test_another_draw_of_cold_items_is_another_dataset(cold_shop, small_models) -> None:
    shop, dataset, _ = cold_shop
    parts = (shop.store, shop.describe, shop.embed, small_models.filters, shop.work_folder)
    other = DatasetWithoutColdItems(*parts, ColdItemsConfig(share=0.25, seed=2))
    keys = [each.keys for each in (Dataset(*parts), dataset, other)]
    assert len({each.sequences for each in keys}) == 3
    # A model of another draw may have seen what is cold here: it is never taken for one of this.
    assert len({each.configuration for each in keys}) == 3
    assert dataset.as_it_is_now().keys == dataset.keys
    assert dataset.keys.features == Dataset(*parts).keys.features
