"""Runs: resumed after a kill, finished, refused; and data with hardly anything in it."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dmesr_model.checkpoint import RunState
from dmesr_model.encoding import encode_items, encode_sequences
from dmesr_model.features import ItemFeatures
from dmesr_model.losses import gbce_beta
from dmesr_model.metrics import ndcg_at_k
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.objective import LossConfig
from dmesr_model.optimizer import OptimizerConfig
from dmesr_model.ranking import rank_targets
from dmesr_model.sequences import Sequences, leave_one_out
from dmesr_model.trainer import TrainConfig, Trainer, fit

SMALL = ModelConfig(width=16, adapter_width=16, layers=1, max_length=12)


def start_job(folder, output, epochs):
    """The trainer in a process of its own, writing a checkpoint after each step."""
    job = {
        "features": str(folder / "features"),
        "sequences": str(folder / "sequences"),
        "output": str(output),
        "model": SMALL.model_dump(mode="json"),
        "train": {"max_epochs": epochs, "patience": epochs, "batch_size": 8, "checkpoint_seconds": 0},
    }
    path = folder / f"{output.name}.json"
    path.write_text(json.dumps(job))
    return subprocess.Popen(
        [sys.executable, "-m", "dmesr_model.train", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )


def wait_for_step(output, process):
    """Until a checkpoint from the middle of an epoch stands on disk."""
    while process.poll() is None:
        for path in (output / "checkpoints").glob("step-*/state.json"):
            with suppress(FileNotFoundError):  # the job drops old checkpoints meanwhile
                state = json.loads(path.read_text())
                if state["epoch"] >= 2 and state["step_in_epoch"] >= 3:
                    return
        time.sleep(0.005)
    raise AssertionError("the job ended before it could be killed")


def without_times(output):
    lines = [json.loads(line) for line in (output / "progress.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def test_a_killed_run_ends_like_an_undisturbed_one(toy_features, toy_sequences, tmp_path):
    toy_features().save(tmp_path / "features")
    toy_sequences(users=80).save(tmp_path / "sequences")
    killed = start_job(tmp_path, tmp_path / "killed", epochs=8)
    undisturbed = start_job(tmp_path, tmp_path / "undisturbed", epochs=8)
    wait_for_step(tmp_path / "killed", killed)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / "summary.json").exists()
    assert start_job(tmp_path, tmp_path / "killed", epochs=8).wait(timeout=120) == 0
    assert undisturbed.wait(timeout=120) == 0

    weights = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("killed", "undisturbed")]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    killed_end, end = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("killed", "undisturbed"))
    assert {**killed_end, "seconds": None} == {**end, "seconds": None}
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("lost_epoch", "lost_step", "average_share"), [(2, 0, 0.1), (2, 1, 0.1), (2, 1, 0.0), (1, 4, 0.1)]
)
def test_each_epoch_is_told_once_wherever_a_run_dies(
    lost_epoch, lost_step, average_share, toy_features, toy_sequences, tmp_path, monkeypatch
):
    """Four steps an epoch. (2, 0): epoch 1 was told, but not yet in a checkpoint, so that it ends a second time."""
    save = Trainer._save

    def die(trainer, state):
        if (state.epoch, state.step_in_epoch) == (lost_epoch, lost_step):
            raise KeyboardInterrupt
        save(trainer, state)

    config = TrainConfig(
        max_epochs=4, batch_size=16, checkpoint_seconds=0, log_every_steps=1, average_share=average_share
    )
    assert fit(toy_features(), toy_sequences(), SMALL, config, tmp_path / "undisturbed").steps == 16
    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(Trainer, "_save", die)
        fit(toy_features(), toy_sequences(), SMALL, config, tmp_path / "killed")
    time.sleep(1.1)  # TensorBoard orders its files by the second
    fit(toy_features(), toy_sequences(), SMALL, config, tmp_path / "killed")
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "undisturbed")
    curves = EventAccumulator(str(tmp_path / "killed" / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("loss/next_item")] == [4, 8, 12, 16]


def test_a_finished_run_returns_at_once(toy_features, toy_sequences, tmp_path):
    config = TrainConfig(max_epochs=2, checkpoint_seconds=0, batch_size=16, checkpoints_kept=2)
    first = fit(toy_features(), toy_sequences(), SMALL, config, tmp_path)
    written = (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns
    assert fit(toy_features(), toy_sequences(), SMALL, config, tmp_path) == first
    assert (tmp_path / "model" / "model.safetensors").stat().st_mtime_ns == written
    assert len(list((tmp_path / "checkpoints").glob("step-*"))) == 2
    assert not list(tmp_path.rglob("*partial*"))
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".pkl", ".bin")]


def test_another_run_does_not_take_the_folder(toy_features, toy_sequences, tmp_path):
    config = TrainConfig(max_epochs=1)
    fit(toy_features(), toy_sequences(), SMALL, config, tmp_path)
    with pytest.raises(ValueError, match="another output folder"):
        fit(toy_features(), toy_sequences(), SMALL, TrainConfig(max_epochs=2), tmp_path)
    with pytest.raises(ValueError, match="another output folder"):
        fit(toy_features(), toy_sequences(users=9), SMALL, config, tmp_path)


def test_a_folder_where_nothing_was_trained_is_free(toy_features, toy_sequences, tmp_path):
    mistyped = SMALL.model_copy(update={"views": ("picture",)})
    with pytest.raises(ValueError, match="picture"):
        fit(toy_features(), toy_sequences(), mistyped, TrainConfig(max_epochs=1), tmp_path)
    assert fit(toy_features(), toy_sequences(), SMALL, TrainConfig(max_epochs=1), tmp_path).epochs == 1


def test_what_a_kill_left_of_checkpoints_is_none_and_goes(toy_features, toy_sequences, tmp_path):
    config = TrainConfig(max_epochs=2, checkpoint_seconds=0, batch_size=16)
    checkpoints = tmp_path / "checkpoints"
    for left in ("step-00000099", "step-00000003", "partial-00000007"):
        (checkpoints / left).mkdir(parents=True)
        (checkpoints / left / "optimizer.safetensors").write_bytes(b"half")
    assert fit(toy_features(), toy_sequences(), SMALL, config, tmp_path).steps == 8
    assert sorted(path.name for path in checkpoints.glob("*-0000000*")) == ["step-00000007", "step-00000008"]
    assert not (checkpoints / "step-00000099").exists()


@pytest.mark.parametrize("torn", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(torn, toy_features, toy_sequences, tmp_path):
    config = TrainConfig(max_epochs=2, checkpoint_seconds=0, batch_size=16)
    undisturbed, damaged = tmp_path / "undisturbed", tmp_path / "damaged"
    fit(toy_features(), toy_sequences(), SMALL, config, undisturbed)
    fit(toy_features(), toy_sequences(), SMALL, config, damaged)
    (damaged / "summary.json").unlink()
    (damaged / "checkpoints" / "step-00000008" / torn).write_bytes(b"")
    fit(toy_features(), toy_sequences(), SMALL, config, damaged)
    for file in ("model/model.safetensors", "checkpoints/step-00000008/weights.safetensors"):
        again, once = load_file(damaged / file), load_file(undisturbed / file)
        assert all(torch.equal(again[name], once[name]) for name in once)


def test_sequences_of_another_catalog_are_refused(toy_features, toy_sequences, tmp_path):
    with pytest.raises(ValueError, match="name item_index 30, but the features hold 24 items"):
        fit(toy_features(), toy_sequences(items=30), SMALL, TrainConfig(max_epochs=1), tmp_path)


def test_a_model_of_nothing_is_refused(toy_features, toy_sequences, tmp_path):
    bare = replace(toy_features(), views=(), coarse_index_NV=np.zeros((24, 0), np.int32))
    nothing = ModelConfig(use_segments=False, id_mode="none")
    with pytest.raises(ValueError, match="id_mode"):
        fit(bare, toy_sequences(), nothing, TrainConfig(max_epochs=1), tmp_path)


def test_no_step_leaves_the_temperature_below_its_bound(toy_features, toy_sequences, tmp_path):
    recipe = TrainConfig(max_epochs=1, average_share=0)
    trainer = Trainer(Accelerator(), toy_features(), toy_sequences(), SMALL, recipe, tmp_path)
    torch.nn.init.constant_(trainer.model.log_temperature, -9)
    trainer.run()
    assert float(trainer.model.log_temperature.detach().exp()) == pytest.approx(0.01, rel=0.01)


def train_an_epoch(features, sequences, folder, batch_size, **optimizer):
    """The optimizer after one epoch, the only one: four steps of 16 of the 50 users, or one of them all."""
    recipe = TrainConfig(max_epochs=1, batch_size=batch_size, optimizer=OptimizerConfig(**optimizer))
    trainer = Trainer(Accelerator(), features, sequences, SMALL, recipe, folder)
    assert trainer.train_epoch(RunState(), progress=None).step == trainer.total_steps
    return trainer.optimizer


def test_gradients_are_clipped(toy_features, toy_sequences, tmp_path):
    """After one step AdamW's first moment is a tenth of the gradient."""
    optimizer = train_an_epoch(toy_features(), toy_sequences(), tmp_path, batch_size=64, clip_norm=0.01)
    moments = [moment["exp_avg"].flatten() for moment in optimizer.state_dict()["state"].values()]
    assert float(torch.cat(moments).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_the_rate_of_a_step_follows_the_schedule(toy_features, toy_sequences, tmp_path):
    """The first of four steps rises; the last is 2/3 down the cosine: (1 + cos 120°) / 2 = 1/4."""
    pace = {"learning_rate": 0.004, "warmup_steps": 1, "schedule": "cosine"}
    optimizer = train_an_epoch(toy_features(), toy_sequences(), tmp_path, batch_size=16, **pace)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001] * 3)


def test_steps_are_seeded_by_the_run_and_ids_decay_by_the_share_encoded(
    toy_features, toy_sequences, tmp_path, monkeypatch
):
    seeded, shares = [], []
    monkeypatch.setattr("dmesr_model.trainer.seed_step", lambda *given: seeded.append(given[:3]))
    monkeypatch.setattr("dmesr_model.trainer.set_pace", lambda *given: shares.append(given[3]))
    loss = LossConfig(kind="sampled_softmax", negatives=2)
    fit(toy_features(), toy_sequences(), SMALL, TrainConfig(max_epochs=1, batch_size=16, seed=7, loss=loss), tmp_path)
    assert seeded == [(7, step, 0) for step in range(4)]  # 50 users
    assert len(shares) == 4 and 0 < min(shares) <= (2 * 9 + 2) / 24  # one step has two users, of 9 events at the most


def test_one_process_trains_with_one_precision_after_another(toy_features, toy_sequences, tmp_path):
    AcceleratorState._reset_state()  # of other tests
    for number, precision in enumerate(["no", "bf16", "no"]):
        config = TrainConfig(max_epochs=1, mixed_precision=precision)
        fit(toy_features(), toy_sequences(), SMALL, config, tmp_path / str(number))
    first, half, again = (load_file(tmp_path / run / "model" / "model.safetensors") for run in "012")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], half[name]) for name in first)
    Accelerator(mixed_precision="no")  # one that the caller made stays as it is
    with pytest.raises(ValueError, match="mixed_precision"):
        fit(toy_features(), toy_sequences(), SMALL, TrainConfig(mixed_precision="bf16"), tmp_path / "3")


def test_same_seed_same_weights_and_losses_however_often_they_are_told(toy_features, toy_sequences, tmp_path):
    for run, every in (("one", 1), ("two", 50)):
        config = TrainConfig(max_epochs=2, batch_size=16, seed=5, log_every_steps=every)
        fit(toy_features(), toy_sequences(), SMALL, config, tmp_path / run)
    one, two = (load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two"))
    assert all((one[name] == two[name]).all() for name in one)
    told = without_times(tmp_path / "one")
    assert len(told) == 2 * (4 + 1)
    assert [line for line in told if line["epoch_ended"]] == without_times(tmp_path / "two")


def test_what_is_kept_and_told_is_the_best_epoch(toy_features, toy_sequences, tmp_path):
    config = TrainConfig(
        max_epochs=60, patience=3, patience_steps=0, batch_size=16, optimizer=OptimizerConfig(learning_rate=0.02)
    )
    summary = fit(toy_features(), toy_sequences(), SMALL, config, tmp_path)
    assert summary.stopped_early and summary.epochs == summary.best_epoch + 1 + 3
    lines = [line for line in without_times(tmp_path) if line["epoch_ended"]]
    assert max(line["validation_ndcg_at_10"] for line in lines) == summary.validation_ndcg_at_10
    model, held_out = DMESR.from_pretrained(tmp_path / "model"), leave_one_out(toy_sequences()).validation
    ranks = rank_targets(model, toy_features(), held_out)
    assert summary.validation_ndcg_at_10 == pytest.approx(ndcg_at_k(ranks, 10).mean(), rel=1e-6)


def test_gbce_knows_how_many_items_its_negatives_are_drawn_from(toy_features, toy_sequences, tmp_path):
    recipe = TrainConfig(loss=LossConfig(kind="gbce", negatives=4))
    trainer = Trainer(Accelerator(), toy_features(items=30), toy_sequences(), SMALL, recipe, tmp_path)
    assert trainer.objective.beta == gbce_beta(4, 24, calibration=0.75)


def test_the_mean_of_the_weights_is_kept(toy_features, toy_sequences, tmp_path):
    """A step an epoch. The second step weighs 1 / (1 + share), the third 1 / (1 + 2 · share)."""

    def trained(epochs, share):
        config = TrainConfig(split="none", max_epochs=epochs, batch_size=64, average_share=share)
        fit(toy_features(), toy_sequences(), SMALL, config, tmp_path / f"{epochs}-{share}")
        return load_file(tmp_path / f"{epochs}-{share}" / "model" / "model.safetensors")

    first, second, third = (trained(epochs, 0.0) for epochs in (1, 2, 3))
    two, three, even = trained(2, 0.25), trained(3, 0.25), trained(3, 1.0)
    for name in first:
        np.testing.assert_allclose(two[name], first[name] * 0.2 + second[name] * 0.8, atol=1e-7)
        np.testing.assert_allclose(three[name], two[name] / 3 + third[name] * (2 / 3), atol=1e-7)
        np.testing.assert_allclose(even[name], (first[name] + second[name] + third[name]) / 3, atol=1e-7)


def test_nan_is_refused_by_name(toy_features, toy_sequences, tmp_path):
    features = toy_features()
    features.vectors_UE[21, 0] = np.nan  # 5 rows an item: the text view of item 4 would be row 21, item 4 has no texts
    features.vectors_UE[16, 0] = np.inf
    with pytest.raises(ValueError, match=r"item-3.*'text'"):
        fit(features, toy_sequences(), SMALL, TrainConfig(max_epochs=1), tmp_path)


@pytest.mark.parametrize(
    ("patience", "patience_steps", "epochs"),
    [(1, 0, 3), (3, 0, 5), (1, 20, 6), (1, 21, 7), (5, 20, 7), (50, 0, 9), (1, 500, 9)],
)
def test_training_stops_when_epochs_and_steps_without_gain_are_spent(patience, patience_steps, epochs):
    """Validation is best in the second epoch; an epoch has five steps, and there are nine at the most."""
    state = RunState()
    while not state.finished:
        for _ in range(5):
            state = state.after_step(samples=1)
        ndcg_at_10 = [0.1, 0.3, 0.3, *[0.2] * 6][state.epoch]
        state = state.after_epoch(ndcg_at_10, patience, patience_steps, max_epochs=9)
    assert (state.epoch, state.best_epoch, state.best_ndcg_at_10) == (epochs, 1, 0.3)


def test_no_validation_users_train_to_the_last_epoch(toy_features, tmp_path):
    sequences = Sequences.from_histories([[1, 2], [2, 3], [9]], ["a", "b", "c"])
    summary = fit(toy_features(), sequences, SMALL, TrainConfig(max_epochs=3), tmp_path)
    assert (summary.epochs, summary.best_epoch, summary.validation_ndcg_at_10) == (3, 2, None)
    assert not summary.stopped_early
    assert summary.trained_items == 3  # of a and b; from c nothing is predicted


def test_only_single_events_cannot_be_trained_on(toy_features, tmp_path):
    sequences = Sequences.from_histories([[1], [2]], ["a", "b"])
    with pytest.raises(ValueError, match="two training events"):
        fit(toy_features(), sequences, SMALL, TrainConfig(max_epochs=1), tmp_path)


@pytest.mark.parametrize("loss", ["softmax", "sampled_softmax", "bce", "gbce"])
def test_one_item_catalog(loss, tmp_path):
    features = ItemFeatures(("only",), ("image",), np.ones((2, 4), np.float32), np.array([[0]]), np.array([[1]]))
    sequences = Sequences.from_histories([[1, 1, 1, 1], [1, 1, 1]], ["a", "b"])
    summary = fit(features, sequences, SMALL, TrainConfig(max_epochs=1, loss={"kind": loss}), tmp_path)
    assert summary.validation_ndcg_at_10 == 1
    vectors = encode_items(DMESR.from_pretrained(tmp_path / "model"), features)
    assert np.isfinite(vectors).all()


def test_items_without_any_feature_are_trained_by_their_id(toy_features, toy_sequences, tmp_path):
    bare = replace(
        toy_features(),
        coarse_index_NV=np.full((24, 2), -1, np.int32),
        segment_index_NL=np.zeros((24, 0), np.int32),
    )
    fit(bare, toy_sequences(), SMALL, TrainConfig(max_epochs=2), tmp_path)
    assert np.isfinite(encode_items(DMESR.from_pretrained(tmp_path / "model"), bare)).all()


@pytest.mark.parametrize("split", ["leave_one_out", "last_event", "none"])
def test_held_out_events_are_not_trained_on(split, toy_features, tmp_path):
    sequences = Sequences.from_histories([[1, 2, 3, 4]] * 5, "abcde")
    summary = fit(toy_features(), sequences, SMALL, TrainConfig(max_epochs=1, split=split), tmp_path)
    assert summary.trained_items == {"leave_one_out": 2, "last_event": 3, "none": 4}[split]


def test_a_model_serves_new_items_and_new_users(toy_features, toy_sequences, tmp_path):
    fit(toy_features(), toy_sequences(), SMALL, TrainConfig(max_epochs=1), tmp_path)
    model = DMESR.from_pretrained(tmp_path / "model")
    grown = toy_features(items=30)  # item-24 ... item-29 are new; random vectors differ, ids do not
    items = encode_items(model, grown)
    users = encode_sequences(model, items, Sequences.from_histories([[25, 30], [3]], ["new", "newer"]))
    assert (items @ users.T).shape == (30, 2)
    assert np.isfinite(items @ users.T).all()
    assert leave_one_out(toy_sequences()).test.histories.user_count == 50


def test_a_loss_of_nan_ends_the_run_and_is_not_kept(toy_features, toy_sequences, tmp_path):
    config = TrainConfig.model_validate(
        {"max_epochs": 3, "batch_size": 8, "checkpoint_seconds": 0, "optimizer": {"learning_rate": 1e38}}
    )
    with pytest.raises(FloatingPointError, match="the loss is NaN or infinite in epoch 0"):
        fit(toy_features(), toy_sequences(users=40), SMALL, config, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    for path in (tmp_path / "checkpoints").glob("step-*/state.json"):
        assert np.isfinite(json.loads(path.read_text())["loss_sum"])
