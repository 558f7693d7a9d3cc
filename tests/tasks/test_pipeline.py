from pathlib import Path

from tasks.config import load_config
from tasks.pipeline import STAGE_NAMES, build_stages, stage_named

CONFIG = load_config(Path(__file__).parents[2] / "configs" / "sample_shop.yaml")


def test_the_names_are_those_of_the_stages_in_their_order() -> None:
    assert tuple(stage.name for stage in build_stages(CONFIG)) == STAGE_NAMES


def test_a_stage_is_found_under_its_name() -> None:
    assert [stage_named(CONFIG, name).name for name in STAGE_NAMES] == list(STAGE_NAMES)
