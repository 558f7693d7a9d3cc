from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from flows.command_line import app
from tasks.settings import Setting, all_settings

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
PIPELINES = [path for path in CONFIGS if "ingest" in yaml.safe_load(path.read_text())]


@pytest.fixture(scope="module")
def settings() -> dict[str, Setting]:
    return {setting.key: setting for setting in all_settings()}


def test_each_setting_says_what_it_means(settings) -> None:
    assert [key for key, setting in settings.items() if not setting.meaning and ".kind (" not in key] == []


def test_type_default_and_place_of_a_setting(settings) -> None:
    assert settings["describe.model"].default is None and "required" in settings["describe.model"].text()
    assert (settings["evaluate.ks"].kind, settings["evaluate.ks"].default) == ("list of integer ≥ 1", "[5, 10, 20]")
    assert settings["describe.engine.in_flight (offline)"].kind == "integer ≥ 1 or null"
    assert "describe.engine.url (endpoint)" in settings and "describe.engine.url (offline)" not in settings
    assert settings["describe.cluster"].default == "null" and settings["describe.cluster.shard"].default == "2048"
    assert settings["train.train.batch_size"].default == "128"
    assert settings["train.variants[].model.backbone"].kind == '"sasrec" | "bert4rec" | "gru4rec"'
    assert settings["describe.engine.kind (endpoint)"].default is None  # it says which engine is meant
    assert "train.train.seed" not in settings and settings["train.seeds"].default == "[0, 1, 2]"
    assert settings["store.storage_options"].default == "{}"


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_what_the_configs_set_is_listed(path: Path, settings) -> None:
    known = {key.partition(" ")[0] for key in settings}
    assert {key for key in keys_of(yaml.safe_load(path.read_text())) if key not in known} == set()


def keys_of(value: object, key: str = "") -> set[str]:
    """The keys of all leaves; an object without keys is one."""
    if isinstance(value, dict) and value:
        return {found for name, part in value.items() for found in keys_of(part, f"{key}.{name}" if key else name)}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {found for part in value for found in keys_of(part, f"{key}[]")}
    return {key}


def test_the_command_lists_those_that_begin_so() -> None:
    said = CliRunner().invoke(app, ["settings", "maintain"]).stdout
    assert said.startswith("maintain.after_night: boolean, default true\n    maintain at the end of each night")
    assert "describe" not in said
    wrong = CliRunner().invoke(app, ["settings", "mantain"])
    assert wrong.exit_code == 2 and "no setting's key begins with mantain" in wrong.output
