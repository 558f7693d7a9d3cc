import json

import numpy as np
import polars as pl
import pytest

from storage.schemas import METRICS
from tasks.evaluate import EvaluateConfig, EvaluateStage, candidates, ranks_folder
from tasks.evaluation.selection import Evaluations
from tasks.evaluation.tables import metric_tables, slice_table
from tasks.stage import StageError, run_stage

CONFIG = EvaluateConfig(ks=(5, 10), negatives=3, baselines=("popularity",))


@pytest.fixture
def evaluated(lively_shop, small_models):
    """The shop, and a function that opens its evaluations; every present model is evaluated."""
    lively_shop.pretend_to_train(small_models)
    shop = lively_shop
    stage = EvaluateStage(CONFIG, small_models, shop.describe, shop.embed, shop.store, shop.work_folder)
    run_stage(stage, lambda progress: None)
    present = list(candidates(CONFIG, small_models, stage.dataset.keys, shop.work_folder))
    return shop, present


def test_names_of_variants_models_and_keys(evaluated) -> None:
    shop, present = evaluated
    evaluations = Evaluations(shop.store, shop.work_folder, present)
    assert evaluations.results_of([]).variants == ["dmesr", "id_only", "popularity"]
    assert evaluations.results_of(["popularity", "dmesr"]).seeds("dmesr") == 2
    one_seed = evaluations.results_of(["dmesr/1", "dmesr/0"])
    assert (one_seed.variants, one_seed.seeds("dmesr/1")) == (["dmesr/1", "dmesr/0"], 1)
    model = next(candidate.model.key for candidate in present if candidate.model is not None)
    by_key = evaluations.results_of([model[:8], present[-1].key])
    assert by_key.variants == [f"dmesr/0 {model[:8]}", f"popularity/0 {present[-1].key[:12]}"]
    assert by_key.cell(by_key.variants[0], "full", "ndcg@10") == one_seed.cell("dmesr/0", "full", "ndcg@10")
    assert [row[-1] for row in evaluations.listing().rows] == ["present"] * 5
    with pytest.raises(StageError, match="the config's variants and baselines are dmesr, id_only, popularity"):
        evaluations.results_of(["dmes"])


def test_the_first_is_the_reference_and_the_difference_has_the_right_sign(evaluated) -> None:
    shop, present = evaluated
    results = Evaluations(shop.store, shop.work_folder, present).results_of(["popularity", "dmesr/0"])
    gains = {name: results.user_gains(name) for name in results.variants}
    table = metric_tables(results)[-1]
    assert table.header == ["model", "ndcg@10", "interval", "minus popularity", "interval", "p"]
    assert table.rows[0][3:] == ["", "", ""]
    assert float(table.rows[1][3]) == pytest.approx((gains["dmesr/0"] - gains["popularity"]).mean(), abs=5e-5)
    assert "| dmesr/0 |" in table.markdown()


def test_slices_have_intervals_and_small_ones_no_test(evaluated) -> None:
    shop, present = evaluated
    results = Evaluations(shop.store, shop.work_folder, present).results_of([])
    rows = {row[0]: row for row in slice_table(results).rows}
    assert rows["history_over_50"][1:] == ["0", "–", "–", "–"]  # empty: no value, no interval, no test
    part = results.user_gains("dmesr", part="items_no_picture")
    assert part is not None and 0 < len(part) < 24
    assert results.interval("dmesr", part="items_no_picture") is not None
    assert results.slice_verdicts == {}  # 24 test users: no slice has 30
    judged = results.judge(["items_no_picture", "history_over_50"], fewest=2)
    assert set(judged) == {("items_no_picture", "id_only"), ("items_no_picture", "popularity")}
    alone = results.differences(["items_no_picture"])
    likelier, other = sorted(alone, key=lambda place: alone[place].p_value)
    # Holm over the two: the smaller p-value counts twice, and the other is no smaller than that.
    assert judged[likelier].p_value == pytest.approx(2 * alone[likelier].p_value)
    assert judged[other].p_value == pytest.approx(max(judged[likelier].p_value, alone[other].p_value))


def test_evaluations_of_other_test_users_are_refused(evaluated) -> None:
    shop, present = evaluated
    about = ranks_folder(shop.work_folder, present[0]) / "about.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"test_set": "of another night"}))
    evaluations = Evaluations(shop.store, shop.work_folder, present)
    with pytest.raises(StageError, match="id_only/0 and dmesr/0 were not tested on the same users"):
        evaluations.results_of(["dmesr/0", "id_only/0"])
    assert evaluations.results_of(["dmesr/1", "id_only/0"]).variants == ["dmesr/1", "id_only/0"]


def test_slices_that_hold_other_users_are_refused(evaluated, small_models) -> None:
    shop, present = evaluated
    other = CONFIG.model_copy(update={"history_edges": (3, 10), "baselines": ()})
    stage = EvaluateStage(other, small_models, shop.describe, shop.embed, shop.store, shop.work_folder)
    run_stage(stage, lambda progress: None)
    key = next(candidates(other, small_models, stage.dataset.keys, shop.work_folder)).key
    evaluations = Evaluations(shop.store, shop.work_folder, present)
    assert len(evaluations.results_of([key, "id_only"]).verdicts) == 1  # over all users they can be compared
    said = rf"id_only and dmesr/0 {key[:12]} don't have the same test users in the slices history_1_3, history_4_10, "
    with pytest.raises(StageError, match=said + r".*head_share.*without --slices"):
        evaluations.results_of([key, "id_only"], by_slice=True)
    assert evaluations.results_of(["dmesr", "id_only"], by_slice=True).slices


def test_an_earlier_model_of_the_same_name_stays_out_of_the_present_results(evaluated) -> None:
    shop, present = evaluated
    rows = shop.store.table(METRICS).read()
    before = Evaluations(shop.store, shop.work_folder, present).results_of(["dmesr"]).cell("dmesr", "full", "ndcg@10")
    key = "e" + rows["evaluation_key"][0]
    earlier = rows.filter(variant="dmesr").with_columns(evaluation_key=pl.lit(key), value=pl.lit(1.0))
    shop.store.table(METRICS).append(earlier)
    evaluations = Evaluations(shop.store, shop.work_folder, present)
    assert evaluations.results_of(["dmesr"]).cell("dmesr", "full", "ndcg@10") == before
    assert {row[-1] for row in evaluations.listing().rows} == {"present", "ranks gone"}
    with pytest.raises(StageError, match="are gone from the work folder"):
        evaluations.results_of([key[:10]])


def test_ranks_are_those_of_the_evaluation(evaluated) -> None:
    shop, present = evaluated
    ranks = np.load(ranks_folder(shop.work_folder, present[0]) / "full.npy")
    wanted = np.where(ranks <= 5, 1 / np.log2(1.0 + ranks), 0)
    results = Evaluations(shop.store, shop.work_folder, present).results_of(["dmesr/0"])
    assert results.user_gains("dmesr/0", "ndcg@5") == pytest.approx(wanted)


def test_an_experiments_evaluations_can_be_named_too(evaluated) -> None:
    shop, present = evaluated
    moved = shop.work_folder / "experiments" / "evaluations" / present[0].key
    moved.parent.mkdir(parents=True)
    ranks_folder(shop.work_folder, present[0]).rename(moved)
    evaluations = Evaluations(shop.store, shop.work_folder, present[1:])
    states = {row[2]: row[-1] for row in evaluations.listing().rows}
    assert states[present[0].key[:12]] == "experiment"
    results = evaluations.results_of([present[0].key[:12], "id_only"])
    assert len(results.verdicts) == 1
