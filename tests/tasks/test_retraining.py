from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.features import DatasetKeys
from tasks.retraining import RetrainConfig, RetrainOrder, in_use, new_events_share, reason_to_retrain, reason_to_stay
from tasks.trained_models import ModelRef

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
POLICY = RetrainConfig(new_events_share=0.05, max_age_days=7)


def keys(features: str = "f", sequences: str = "s", events: int = 1000) -> DatasetKeys:
    return DatasetKeys(features, sequences, "h", 10, 5, events, "settings", "encoder", ("image", "text"))


def trained(folder: Path, key: str, data: DatasetKeys, start: datetime = MONDAY, configuration: str = "c") -> ModelRef:
    model = ModelRef("dmesr", 0, key, folder / key, {"model": {}, "train": {}}, configuration)
    model.record_start(data, start)
    return model


def reason(folder: Path, now: DatasetKeys, days: float = 1.0, policy: RetrainConfig = POLICY) -> str | None:
    model = trained(folder, "m", keys())
    return reason_to_retrain(policy, model.training, now, MONDAY + timedelta(days=days))


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (1000, None),
        (1050, None),  # 50 / 1000 is 5 %, and not above
        (1051, "5.1% new events since its training, above 5.0%"),
        (2000, "100.0% new events since its training, above 5.0%"),
    ],
)
def test_new_events_above_the_share(tmp_path: Path, events: int, expected: str | None) -> None:
    assert reason(tmp_path, keys(sequences="t", events=events)) == expected


def test_age_bears_on_data_that_moved_alone(tmp_path: Path) -> None:
    moved = keys(features="g")
    assert reason(tmp_path, moved, days=7.0) is None
    assert reason(tmp_path, moved, days=7.5) == "7.5 days old, above 7, and the data moved since"
    assert reason(tmp_path, keys(), days=700.0) is None  # the very data that it was trained on
    assert reason(tmp_path, moved, 700.0, RetrainConfig(max_age_days=None)) is None


def test_whenever_anything_moved(tmp_path: Path) -> None:
    always = RetrainConfig(max_age_days=0)
    assert reason(tmp_path, keys(features="g"), 0.01, always) == "0.0 days old, above 0, and the data moved since"
    assert reason(tmp_path, keys(), 0.01, always) is None


def test_an_order_counts_whatever_the_data(tmp_path: Path) -> None:
    training = trained(tmp_path, "m", keys()).training
    assert reason_to_retrain(POLICY, training, keys(), MONDAY, ordered=True) == "ordered with --force"


def test_why_a_model_stays(tmp_path: Path) -> None:
    training = trained(tmp_path, "m", keys()).training
    later = MONDAY + timedelta(days=2)
    assert reason_to_stay(POLICY, training, keys(), later) == "trained on these very data"
    assert reason_to_stay(POLICY, training, keys(features="g", events=1020), later) == (
        "the catalog or the log moved, but 2.0% new events are not above 5.0%, and it is 2.0 of 7 days old"
    )
    assert new_events_share(training, keys(events=1020)) == pytest.approx(0.02)


def test_the_exact_model_is_in_use_before_a_newer_one(tmp_path: Path) -> None:
    old = trained(tmp_path, "old", keys(), MONDAY)
    new = trained(tmp_path, "new", keys("g", "t", 1100), MONDAY + timedelta(days=3))
    newest_first = [new, old]
    assert in_use(newest_first, "c", keys()) is old
    assert in_use(newest_first, "c", keys("g", "t", 1100)) is new
    assert in_use(newest_first, "c", keys("x", "y", 1200)) is new
    # A store made anew holds fewer events than the new one was trained on: that one knows what isn't there.
    assert in_use(newest_first, "c", keys("x", "y", 1050)) is old
    assert in_use(newest_first, "c", keys("x", "y", 900)) is None
    assert in_use(newest_first, "another", keys()) is None


def test_of_two_on_the_same_data_the_newer_is_in_use(tmp_path: Path) -> None:
    first = trained(tmp_path, "first", keys())
    forced = trained(tmp_path, "forced", keys(), MONDAY + timedelta(hours=1))
    assert in_use([forced, first], "c", keys()) is forced


def test_a_training_that_goes_on_keeps_its_start(tmp_path: Path) -> None:
    model = trained(tmp_path, "m", keys())
    model.record_start(keys("g"), MONDAY + timedelta(days=1))
    assert (model.training.start, model.training.features) == (MONDAY, "f")


def test_texts_of_another_encoder_or_without_a_view_cant_be_read(tmp_path: Path) -> None:
    training = trained(tmp_path, "m", keys()).training
    assert training.can_read(keys("g", "t"))
    assert not training.can_read(DatasetKeys("f", "s", "h", 1, 1, 1, "x", "another", ("image", "text")))
    fewer = DatasetKeys("f", "s", "h", 1, 1, 1, "x", "encoder", ("image",))
    assert not training.can_read(fewer)
    assert replace(training, settings={"model": {"views": ["image"]}}).can_read(fewer)
    of_ids_alone = replace(training, settings={"model": {"views": [], "use_segments": False}})
    assert of_ids_alone.can_read(DatasetKeys("f", "s", "h", 1, 1, 1, "x", "another", ()))


def test_an_order_that_waits_is_not_replaced(tmp_path: Path) -> None:
    models = [trained(tmp_path, name, keys()) for name in ("a", "b", "c")]
    order = RetrainOrder.of(tmp_path)
    assert order.keys() == frozenset()
    order.place(models[:2])
    order.place([models[1], models[2]])  # b still waits; c has taken a's place
    assert order.keys() == {"a", "b"}
    order.place([models[2]])
    assert order.keys() == {"c"}
