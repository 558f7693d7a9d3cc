"""Prompts: the model is trained on the very wording that the pipeline's prompt files have."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from sample_shop.tiny_vlm.answers import View
from sample_shop.tiny_vlm.prompts import default_prompt, draw_fields, draw_prompt

PROMPT_FILES: dict[View, str] = {"image": "caption.yaml", "text": "summary.yaml", "joint": "joint.yaml"}
FOLDER = Path(__file__).parents[3] / "tasks" / "prompts"


@pytest.mark.parametrize("view", PROMPT_FILES)
def test_default_prompt_is_the_prompt_file(view: View) -> None:
    template = yaml.safe_load((FOLDER / PROMPT_FILES[view]).read_text())["user"]
    filled = template.replace("{{ title }}", "Norvel mug").replace("{{ description }}", "It is a mug.")
    assert default_prompt(view).render("Norvel mug", "It is a mug.") == filled


def test_drawn_fields_are_distinct_and_vary_in_order() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_fields("joint", rng) for _ in range(200)]
    assert all(len(set(fields)) == len(fields) for fields in drawn)
    assert len(set(drawn)) > 150


def test_drawn_prompts_hold_the_defaults_edits_and_calls_for_brevity() -> None:
    rng = np.random.default_rng(1)
    prompts = [draw_prompt("text", rng) for _ in range(400)]
    assert 50 < sum(prompt == default_prompt("text") for prompt in prompts) < 120  # 20 % of 400 is 80
    assert 60 < sum(prompt.brief for prompt in prompts) < 140  # 30 % of the other 320 is 96
    assert all("<title>a</title>\n<description>b</description>" in prompt.render("a", "b") for prompt in prompts)
