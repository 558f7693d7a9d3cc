"""A 50-user toy set is learned by heart by each backbone, in seconds."""

import numpy as np
import pytest

from dmesr_model.metrics import hit_rate_at_k
from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.optimizer import OptimizerConfig
from dmesr_model.ranking import rank_targets
from dmesr_model.sequences import leave_one_out
from dmesr_model.trainer import TrainConfig, fit


@pytest.mark.parametrize("backbone", ["sasrec", "bert4rec", "gru4rec"])
def test_toy_set_is_learned(backbone, toy_features, toy_sequences, tmp_path):
    features, sequences = toy_features(), toy_sequences()
    no_dropout = {"dropout": 0.0, "id_dropout": 0.0, "input_dropout": 0.0}
    model_config = ModelConfig(backbone=backbone, width=64, adapter_width=32, layers=1, max_length=16, **no_dropout)
    train_config = TrainConfig(
        split="none",
        batch_size=16,
        max_epochs=120,
        mask_last_share=0.5,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=5, schedule="cosine"),
    )
    fit(features, sequences, model_config, train_config, tmp_path)
    model = DMESR.from_pretrained(tmp_path / "model")
    ranks = rank_targets(model, features, leave_one_out(sequences).test)
    assert np.mean(hit_rate_at_k(ranks, 1)) > 0.95
