import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dmesr_model.model import DMESR
from tasks.stage import Progress, StageError, run_stage
from tasks.train import TrainStage, TrainStageConfig, Variant

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
    settings = config(train={"max_epochs": 40, "patience": 40, "batch_size": 8, "checkpoint_seconds": 0})
    run = "run_stage(stage, lambda progress: None)"
    victim = subprocess.Popen(program(lively_shop, settings, run), cwd=REPOSITORY)
    models = lively_shop.work_folder / "models"
    while not list(models.glob("*/checkpoints/step-*/state.json")):
        assert victim.poll() is None
        time.sleep(0.02)
    victim.kill()
    victim.wait()
    _wait_until(lambda: not trainers(lively_shop.work_folder))  # the training ends with its parent
    (model,) = models.iterdir()
    assert not (model / "summary.json").exists()

    resumed = stage(lively_shop, settings)
    assert resumed.plan().notes == ("1 of them started before and resumed",)
    told: list[Progress] = []
    summary = run_stage(resumed, told.append)
    assert summary.counts == {"up_to_date": 0, "done": 1}
    assert set(summary.details) == {"id_only/0"}
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


def test_unknown_setting_is_refused_before_training(lively_shop) -> None:
    wrong = config(variants=(Variant(name="dmesr", model={"widht": 8}),))
    with pytest.raises(StageError, match=r"variant dmesr, model: widht: Extra inputs.*Allowed: backbone"):
        stage(lively_shop, wrong).plan()


def test_nothing_to_train_on_is_said(hand_made_shop) -> None:
    with pytest.raises(StageError, match="no user has enough events"):
        run_stage(stage(hand_made_shop, config()), lambda progress: None)


def test_crashed_training_is_an_error_of_the_stage(lively_shop) -> None:
    settings = config(variants=(Variant(name="dmesr", model={**SMALL, "views": ["sound"]}),))
    with pytest.raises(StageError, match=r"(?s)training of dmesr, seed 0, ended with exit status 1.*sound"):
        run_stage(stage(lively_shop, settings), lambda progress: None)


def test_names_and_seeds_must_differ() -> None:
    with pytest.raises(ValueError, match="name of its own"):
        TrainStageConfig(variants=(Variant(name="a"), Variant(name="a")))
    with pytest.raises(ValueError, match=r"give seeds in train\.seeds"):
        TrainStageConfig(train={"seed": 3})


def test_old_models_and_their_data_are_dropped(lively_shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.train.train_in_child", lambda model, threads, report: _finish(model.folder))
    run_stage(stage(lively_shop, config(keep_models=1)), lambda progress: None)
    lively_shop.put_item("new", "vase")
    run_stage(stage(lively_shop, config(keep_models=1)), lambda progress: None)
    assert _kept(lively_shop.work_folder) == {"models": 2, "features": 2}
    run_stage(stage(lively_shop, config(keep_models=0, seeds=(1,))), lambda progress: None)
    assert _kept(lively_shop.work_folder) == {"models": 1, "features": 1}


def _finish(folder: Path) -> None:
    summary = {"validation_ndcg_at_10": 0.5, "best_epoch": 1, "epochs": 2, "seconds": 1.0}
    (folder / "summary.json").write_text(json.dumps(summary))


def _kept(work_folder: Path) -> dict[str, int]:
    return {kind: len(list((work_folder / kind).iterdir())) for kind in ("models", "features")}
