from tasks.evaluation.significance import Comparison
from tasks.serving import decisions, record_decision


def test_a_decision_is_stored_with_its_comparison(lively_shop, small_models) -> None:
    first, second = lively_shop.pretend_to_train(small_models)[:2]
    record_decision(lively_shop.store, first, None, "run 1", promoted=True, pinned=False, reason="the first")
    compared = Comparison(difference=0.02, low=-0.01, high=0.05, p_value=0.2)
    record_decision(
        lively_shop.store,
        second,
        first.key,
        "run 2",
        promoted=False,
        pinned=False,
        reason="no better",
        comparison=compared,
        level=0.05,
        users=24,
    )
    columns = ("model", "before", "promoted", "reason", "difference", "low", "high", "p_value", "level", "users")
    assert decisions(lively_shop.store).select(columns).rows() == [
        (first.key, None, True, "the first", *[None] * 6),
        (second.key, first.key, False, "no better", 0.02, -0.01, 0.05, 0.2, 0.05, 24),
    ]
