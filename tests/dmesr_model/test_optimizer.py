"""The learning-rate schedule, by hand, and what is decayed."""

import pytest

from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.optimizer import OptimizerConfig, build_optimizer, schedule_factor


def test_schedules_by_hand():
    constant, cosine = OptimizerConfig(warmup_steps=4), OptimizerConfig(warmup_steps=4, schedule="cosine")
    assert [schedule_factor(step, 14, constant) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    assert [schedule_factor(step, 14, cosine) for step in (0, 4, 9, 14)] == pytest.approx([0.25, 1, 0.5, 0])
    assert schedule_factor(0, 10, OptimizerConfig(warmup_steps=0)) == 1


def test_decay_spares_tables_norms_and_biases():
    model = DMESR(ModelConfig(views=("text",), backbone="bert4rec", width=8), 12, ["a"])
    decayed, plain = build_optimizer(model, OptimizerConfig(weight_decay=0.1)).param_groups
    spared = {id(parameter) for parameter in plain["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in spared}
    assert {"mask_SD", "items.identity.table.weight", "backbone.positions.position_TD", "backbone.norm.bias"} <= names
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert not any(name.endswith("outer.weight") for name in names)
