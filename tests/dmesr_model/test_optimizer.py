"""The learning-rate schedule, by hand, and what is decayed."""

import pytest
import torch

from dmesr_model.model import DMESR, ModelConfig
from dmesr_model.optimizer import OptimizerConfig, build_optimizer, schedule_factor, seed_step, set_pace


def test_schedules_by_hand():
    constant, cosine = OptimizerConfig(warmup_steps=4), OptimizerConfig(warmup_steps=4, schedule="cosine")
    assert [schedule_factor(step, 14, constant) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1, 1]
    assert [schedule_factor(step, 14, cosine) for step in (0, 4, 9, 14)] == pytest.approx([0.25, 1, 0.5, 0])
    assert schedule_factor(0, 10, OptimizerConfig(warmup_steps=0)) == 1


def test_seed_step_and_process_each_decide_what_is_random():
    draws = []
    for seed, step, rank in ((1, 2, 0), (2, 2, 0), (1, 3, 0), (1, 2, 1), (1, 2, 0)):
        seed_step(seed, step, rank, torch.device("cpu"))
        draws.append(float(torch.rand(())))
    assert len(set(draws)) == 4 and draws[0] == draws[4]


def test_what_is_decayed_and_by_how_much():
    model = DMESR(ModelConfig(views=("text",), backbone="bert4rec", positions="from_end", width=8), 12, ["a"])
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.1, id_decay=3.0))
    names_of = {id(parameter): name for name, parameter in model.named_parameters()}
    names = {group["weight_decay"]: {names_of[id(one)] for one in group["params"]} for group in optimizer.param_groups}
    assert set().union(*names.values()) == set(names_of.values())
    assert {"mask_SD", "last_mask_SD", "backbone.positions.position_TD", "backbone.norm.bias"} <= names[0.0]
    assert names[3.0] == {"items.identity.table.weight"}
    assert names.keys() == {0.1, 0.0, 3.0}
    assert not any(name.endswith("outer.weight") for name in names[0.0])


def test_decay_of_ids_follows_the_share_of_items_that_a_step_encodes():
    model = DMESR(ModelConfig(views=("text",), width=8), 12, ["a"])
    config = OptimizerConfig(learning_rate=0.02, weight_decay=0.1, id_decay=3.0)
    optimizer = build_optimizer(model, config)
    set_pace(optimizer, config, rate_factor=0.5, item_share=0.25)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0, 0.75]
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}


def test_ids_beside_content_start_at_nothing_and_all_ids_decay():
    alone = DMESR(ModelConfig(views=(), use_segments=False), 12, ["a"])
    beside = DMESR(ModelConfig(views=("text",), use_segments=False), 12, ["a"])
    assert [bool(model.items.identity.table.weight.any()) for model in (alone, beside)] == [True, False]
    for model in (alone, beside):
        with torch.no_grad():
            model.items.identity.table.weight.fill_(1.0)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        build_optimizer(model, OptimizerConfig(learning_rate=0.01, id_decay=5.0)).step()
        torch.testing.assert_close(model.items.identity.table.weight, torch.full((2, 64), 0.95), check_device=False)
