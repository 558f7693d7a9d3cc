import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import dmesr_model
from dmesr_model.model import DMESR
from dmesr_model.sequences import Sequences
from tasks.retraining import RetrainConfig
from tasks.serving import record_decision
from tasks.stage import Progress, StageCrash, StageError, run_stage
from tasks.train import TrainStage, TrainStageConfig, Variant, _trainer_digest, check_histories, model_refs
from tasks.trained_models import finished_models

SMALL = {"width": 8, "adapter_width": 8, "layers": 1, "heads": 1, "max_length": 8}
ID_ONLY = Variant(name="id_only", model={**SMALL, "views": [], "use_segments": False})
REPOSITORY = Path(__file__).parents[2]


def config(**more: object) -> TrainStageConfig:
    quick = {"max_epochs": 2, "batch_size": 8, "checkpoint_seconds": 0}
    return TrainStageConfig(**{"variants": (ID_ONLY,), "seeds": (0,), "train": quick, "threads": 1, **more})


def stage(shop, settings: TrainStageConfig) -> TrainStage:
    return TrainStage(settings, shop.describe, shop.embed, shop.store, shop.work_folder)


def program(shop, settings: TrainStageConfig, then: str) -> list[str]:
    """A Python program that makes the stage in a process of its own, and does `then` with it."""
    source = f"""
import sys
from pathlib import Path
from storage.tables import Store
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.stage import run_stage
from tasks.train import TrainStage, TrainStageConfig
stage = TrainStage(
    TrainStageConfig.model_validate_json({settings.model_dump_json()!r}),
    DescribeConfig.model_validate_json({shop.describe.model_dump_json()!r}),
    EmbedConfig.model_validate_json({shop.embed.model_dump_json()!r}),
    Store({shop.store.url!r}),
    Path({str(shop.work_folder)!r}),
)
{then}
"""
    return [sys.executable, "-c", source]


def trainers(folder: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if _is_trainer(process, folder)]


def _is_trainer(process: psutil.Process, folder: Path) -> bool:
    words = process.info["cmdline"] or []
    return "dmesr_model.train" in words and any(str(folder) in word for word in words)


def test_killed_training_goes_on_and_is_then_up_to_date(lively_shop) -> None:
    """Two processes are killed with their stage; one goes on."""
    settings = config(train={"max_epochs": 40, "patience": 40, "batch_size": 8, "checkpoint_seconds": 0})
    run = "run_stage(stage, lambda progress: None)"
    together = settings.model_copy(update={"processes": 2})
    victim = subprocess.Popen(program(lively_shop, together, run), cwd=REPOSITORY)
    models = lively_shop.work_folder / "models"
    while not list(models.glob("*/checkpoints/step-*/state.json")):
        assert victim.poll() is None
        time.sleep(0.02)
    policy = os.environ.get("OMP_WAIT_POLICY", "passive")
    assert {process.environ()["OMP_WAIT_POLICY"] for process in trainers(lively_shop.work_folder)} == {policy}
    victim.kill()
    victim.wait()
    _wait_until(lambda: not trainers(lively_shop.work_folder))  # the training ends with its parent
    (model,) = models.iterdir()
    assert not (model / "summary.json").exists()
    assert "training on cpu, processes: 2" in (model / "log.txt").read_text()

    resumed = stage(lively_shop, settings)
    assert resumed.plan().notes == ("1 of them started before and resumed",)
    told: list[Progress] = []
    summary = run_stage(resumed, told.append)
    assert summary.counts == {"up_to_date": 0, "done": 1}
    assert set(summary.details) == {"id_only/0"}
    assert "of 40, ended by max_epochs" in summary.details["id_only/0"]
    assert {progress.unit for progress in told} == {"epochs of id_only, seed 0", "models"}
    assert json.loads((model / "summary.json").read_text())["epochs"] == 40
    records = [json.loads(line) for line in (model / "progress.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records if record["epoch_ended"]] == list(range(40))
    assert DMESR.from_pretrained(model / "model").config.width == 8

    heavy = "{'torch', 'faiss', 'vllm', 'sentence_transformers', 'matplotlib', 'prefect'} & set(sys.modules)"
    check = f"assert stage.plan().up_to_date == 1\nassert not {heavy}, {heavy}"
    subprocess.run(program(lively_shop, settings, check), check=True, cwd=REPOSITORY)
    # A further seed is one more model; the other stays.
    plan = stage(lively_shop, settings.model_copy(update={"seeds": (0, 1)})).plan()
    assert (plan.new, plan.up_to_date) == (1, 1)


def _wait_until(holds) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_training_that_is_killed_is_a_crash_which_is_tried_again(lively_shop) -> None:
    settings = config(train={"max_epochs": 400, "patience": 400, "batch_size": 8})

    def kill() -> None:
        _wait_until(lambda: trainers(lively_shop.work_folder))
        trainers(lively_shop.work_folder)[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(StageCrash, match=r"seed 0, was ended by SIGKILL \(out of memory\?"):
        run_stage(stage(lively_shop, settings), lambda progress: None)
    killer.join()


def test_unknown_setting_is_refused_before_training(lively_shop) -> None:
    wrong = config(variants=(Variant(name="dmesr", model={"widht": 8}),))
    with pytest.raises(
        StageError, match=r"variant dmesr, model: widht: Extra inputs.*Did you mean width\? Allowed: backbone"
    ):
        stage(lively_shop, wrong).plan()


def test_nothing_to_train_on_is_said(hand_made_shop) -> None:
    with pytest.raises(StageError, match="no user has enough events"):
        run_stage(stage(hand_made_shop, config()), lambda progress: None)


def test_histories_of_which_a_split_leaves_one_event_are_said_before_training(hand_made_shop) -> None:
    for item in "abc":
        hand_made_shop.put_item(item, item)
    hand_made_shop.put_events(*((user, item, time) for user in "uv" for time, item in enumerate("abc")))
    said = (
        r"variant id_only: no user has two training events: of the 2 histories that pass train\.filters the longest "
        r"has 3 events, of which split leave_one_out leaves fewer than two\. .*min_sequence_length.*last_event"
    )
    with pytest.raises(StageError, match=said):
        run_stage(stage(hand_made_shop, config()), lambda progress: None)
    assert not (hand_made_shop.work_folder / "models").exists()
    check_histories("id_only", Sequences.from_histories([[1, 2, 3]], "u"), "last_event")
    check_histories("id_only", Sequences.from_histories([[1, 2]], "u"), "leave_one_out")  # too short to be split
    check_histories("id_only", Sequences.from_histories([[1, 2, 3], [1, 2, 3, 4]], "uv"), "leave_one_out")


def test_crashed_training_is_an_error_of_the_stage(lively_shop) -> None:
    settings = config(variants=(Variant(name="dmesr", model={**SMALL, "views": ["sound"]}),))
    with pytest.raises(StageError, match=r"(?s)training of dmesr, seed 0, ended with exit status 1.*sound"):
        run_stage(stage(lively_shop, settings), lambda progress: None)


def test_names_and_seeds_must_differ() -> None:
    with pytest.raises(ValueError, match="name of its own"):
        TrainStageConfig(variants=(Variant(name="a"), Variant(name="a")))
    with pytest.raises(ValueError, match="content: name of a baseline"):
        TrainStageConfig(variants=(Variant(name="a"), Variant(name="content")))
    with pytest.raises(ValueError, match=r"give seeds in train\.seeds"):
        TrainStageConfig(train={"seed": 3})
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=rf"seeds\.0\n.*than.*input_value={seed}"):
            TrainStageConfig(seeds=(seed,))


def test_old_models_and_their_data_are_dropped(lively_shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.train_in_child", lambda model, threads, report: _finish(model.folder))
    strict = RetrainConfig(max_age_days=0)  # trains whenever anything moved
    run_stage(stage(lively_shop, config(keep_models=1, retrain=strict)), lambda progress: None)
    lively_shop.put_item("new", "vase")
    run_stage(stage(lively_shop, config(keep_models=1, retrain=strict)), lambda progress: None)
    # The older model stays; its features don't: it would encode the present ones.
    assert _kept(lively_shop.work_folder) == {"models": 2, "features": 1}
    run_stage(stage(lively_shop, config(keep_models=0, seeds=(1,))), lambda progress: None)
    assert _kept(lively_shop.work_folder) == {"models": 1, "features": 1}


def test_the_model_that_serves_is_never_dropped(lively_shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.train_in_child", lambda model, threads, report: _finish(model.folder))
    run_stage(stage(lively_shop, config(keep_models=0)), lambda progress: None)
    (first,) = finished_models(lively_shop.work_folder)
    record_decision(lively_shop.store, first, None, "run", promoted=True, pinned=False, reason="made")
    run_stage(stage(lively_shop, config(keep_models=0, seeds=(1,))), lambda progress: None)
    run_stage(stage(lively_shop, config(keep_models=0, seeds=(2,))), lambda progress: None)
    assert {model.seed for model in finished_models(lively_shop.work_folder)} == {0, 2}


def test_a_catalog_that_moved_trains_nothing_and_says_why(lively_shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.train_in_child", lambda model, threads, report: _finish(model.folder))
    run_stage(stage(lively_shop, config()), lambda progress: None)
    lively_shop.put_item("new", "vase")
    plan = stage(lively_shop, config()).plan()
    assert (plan.to_do, plan.up_to_date) == (0, 1)
    assert plan.notes == (
        "1 not trained anew: the catalog or the log moved, but 0.0% new events are not above 5.0%, "
        "and it is 0.0 of 7 days old",
    )
    # 24 users of 6 events: 144. 7 more are 4.9 %, 8 more are 5.6 %.
    lively_shop.put_events(*((f"u{user:02d}", "i28", 99) for user in range(7)))
    assert stage(lively_shop, config()).plan().to_do == 0
    lively_shop.put_events(("u07", "i28", 99))
    plan = stage(lively_shop, config()).plan()
    assert (plan.new, plan.changed) == (0, 1)
    assert plan.notes == ("1 to train anew: 5.6% new events since its training, above 5.0%",)


def test_a_model_too_old_is_trained_anew_if_anything_moved(lively_shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.train_in_child", lambda model, threads, report: _finish(model.folder))
    run_stage(stage(lively_shop, config()), lambda progress: None)
    (model,) = finished_models(lively_shop.work_folder)
    about = json.loads((model.folder / "about.json").read_text())
    about["started_at"] = (datetime.now(UTC) - timedelta(days=7, hours=12)).isoformat()
    (model.folder / "about.json").write_text(json.dumps(about))
    assert stage(lively_shop, config()).plan().to_do == 0
    lively_shop.put_item("new", "vase")
    plan = stage(lively_shop, config()).plan()
    assert plan.notes == ("1 to train anew: 7.5 days old, above 7, and the data moved since",)
    # The other stages know no time: until the new one is finished, the old one is in use.
    keys = stage(lively_shop, config()).dataset.keys
    assert [used.key for used in model_refs(config(), keys, lively_shop.work_folder)] == [model.key]
    run_stage(stage(lively_shop, config()), lambda progress: None)
    assert [used.key for used in model_refs(config(), keys, lively_shop.work_folder)] != [model.key]


def test_another_setting_is_another_model(lively_shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.train_in_child", lambda model, threads, report: _finish(model.folder))
    run_stage(stage(lively_shop, config()), lambda progress: None)
    wider = Variant(name="id_only", model={**ID_ONLY.model, "width": 16})
    longer = {**config().train, "max_epochs": 3}
    for other in (config(variants=(wider,)), config(train=longer)):
        plan = stage(lively_shop, other).plan()
        assert (plan.new, plan.notes) == (1, ())
    # The old one is there again with the old setting.
    assert stage(lively_shop, config()).plan().up_to_date == 1


def test_every_source_of_the_trainer_is_a_part_of_what_a_model_is(tmp_path: Path, monkeypatch) -> None:
    copy = Path(shutil.copytree(dmesr_model.__path__[0], tmp_path / "dmesr_model"))
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path / name)])
    )
    digests = {_trainer_digest.__wrapped__()}
    sources = list(copy.glob("*.py"))
    for source in sources:
        source.write_text(source.read_text() + "# edited\n")
        digests.add(_trainer_digest.__wrapped__())
    assert len(digests) == 1 + len(sources) > 10


def test_a_forced_training_replaces_each_model_once_also_after_a_kill(
    lively_shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(model, threads, report) -> None:
        trained.append(model.key)
        if len(trained) == 4:
            raise KeyboardInterrupt
        _finish(model.folder)

    monkeypatch.setattr("tasks.train.train_in_child", train)
    both = config(seeds=(0, 1))
    run_stage(stage(lively_shop, both), lambda progress: None)
    stage(lively_shop, both).order_retraining()
    plan = stage(lively_shop, both).plan()
    assert (plan.changed, plan.notes) == (2, ("2 to train anew: ordered with --force",))
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage(lively_shop, both), lambda progress: None)
    # Forced again, the order that is half carried out goes on: the second model alone, as the same one.
    stage(lively_shop, both).order_retraining()
    run_stage(stage(lively_shop, both), lambda progress: None)
    assert len(trained) == 5 and trained[4] == trained[3]
    assert len(set(trained)) == 4
    assert stage(lively_shop, both).plan().to_do == 0
    used = model_refs(both, stage(lively_shop, both).dataset.keys, lively_shop.work_folder)
    assert {model.key for model in used} == {trained[2], trained[3]}


def _finish(folder: Path) -> None:
    summary = {"validation_ndcg_at_10": 0.5, "best_epoch": 1, "epochs": 2, "stopped_early": False, "seconds": 1.0}
    (folder / "summary.json").write_text(json.dumps(summary))


def _kept(work_folder: Path) -> dict[str, int]:
    return {kind: len(list((work_folder / kind).iterdir())) for kind in ("models", "features")}
