import numpy as np
import pytest

from tasks.evaluate import EvaluateConfig, EvaluateStage
from tasks.evaluation.results import Results
from tasks.evaluation.tables import metrics_markdown, metrics_text
from tasks.stage import run_stage

CONFIG = EvaluateConfig(ks=(5, 10), negatives=3, baselines=("popularity",))


def results_of(shop, train) -> Results:
    stage = EvaluateStage(CONFIG, train, shop.describe, shop.embed, shop.store, shop.work_folder)
    return Results.present(shop.store, CONFIG, train, stage.dataset.keys, shop.work_folder)


def test_seeds_are_averaged_and_variants_are_compared(lively_shop, small_models) -> None:
    before = results_of(lively_shop, small_models)
    assert metrics_text(before) == "no metrics yet: run evaluate"
    lively_shop.pretend_to_train(small_models)
    places = (small_models, lively_shop.describe, lively_shop.embed, lively_shop.store, lively_shop.work_folder)
    run_stage(EvaluateStage(CONFIG, *places), lambda progress: None)
    results = results_of(lively_shop, small_models)
    assert results.variants == ["dmesr", "id_only", "popularity"]
    assert (results.seeds("dmesr"), results.seeds("popularity")) == (2, 1)

    values = results.rows.filter(contender="dmesr", protocol="full", slice="all", metric="ndcg@10")["value"].to_list()
    cell = results.cell("dmesr", "full", "ndcg@10")
    assert cell.mean == pytest.approx(sum(values) / 2)
    assert cell.deviation == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    gains = results.user_gains("dmesr")
    assert gains is not None
    assert gains.mean() == pytest.approx(cell.mean)
    assert set(results.verdicts) == {"id_only", "popularity"}
    reference = results.verdicts["popularity"].comparison
    popularity = results.user_gains("popularity")
    assert popularity is not None
    assert reference.difference == pytest.approx(np.mean(popularity - gains))

    text = metrics_text(results)
    assert "24 test users, all items ranked" in text
    assert "dmesr (2 seeds)" in text
    assert "| popularity | 0." in metrics_markdown(results)
