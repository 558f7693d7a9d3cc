"""The config: paths, overrides, and errors that name file, key and what is allowed."""

from pathlib import Path

import pytest

from tasks.config import ConfigError, PipelineConfig, load_config, with_data

MINIMAL = """
name: trial
store: {url: store}
work_folder: work
ingest: {folder: delivery}
describe: {model: some/hub-id}
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "configs" / "trial.yaml"
    path.parent.mkdir()
    path.write_text(MINIMAL)
    return path


def test_paths_in_the_file_are_relative_to_its_folder(config_file: Path) -> None:
    config = load_config(config_file)
    assert config.store.url == str(config_file.parent / "store")
    assert config.work_folder == config_file.parent / "work"
    assert config.ingest.folder == config_file.parent / "delivery"


def test_paths_in_overrides_are_relative_to_the_current_folder(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(config_file, ["work_folder=elsewhere", "store.url=s3://bucket/shop"])
    assert config.work_folder == tmp_path / "elsewhere"
    assert config.store.url == "s3://bucket/shop"


def test_a_model_is_a_folder_where_there_is_one_and_else_a_hub_id(config_file: Path) -> None:
    assert load_config(config_file).describe.model == "some/hub-id"
    folder = config_file.parent / "some" / "hub-id"
    folder.mkdir(parents=True)
    assert load_config(config_file).describe.model == str(folder)


def test_overrides_are_yaml_values(config_file: Path) -> None:
    config = load_config(config_file, ["train.seeds=[0, 1]", "describe.workers=5", "embed.normalize=false"])
    assert (config.train.seeds, config.describe.workers, config.embed.normalize) == ((0, 1), 5, False)


def test_an_engine_of_another_kind_takes_over_no_setting_of_the_one_before(config_file: Path) -> None:
    config_file.write_text(MINIMAL.replace("{model: some/hub-id}", "{model: m, engine: {kind: offline, in_flight: 3}}"))
    endpoint = load_config(config_file, ["describe.engine={kind: endpoint, url: 'http://x:1/v1'}"]).describe.engine
    assert (endpoint.kind, endpoint.url) == ("endpoint", "http://x:1/v1")
    assert load_config(config_file, ["describe.engine.kind=offline"]).describe.engine.in_flight == 3


def test_a_loss_of_another_kind_keeps_what_the_kinds_share(config_file: Path) -> None:
    settings = ["train.train.loss={kind: sampled_softmax, negatives: 512}", "train.train.loss.kind=gbce"]
    assert load_config(config_file, settings).train.train["loss"] == {"kind": "gbce", "negatives": 512}


def test_the_arguments_that_give_a_config_again(config_file: Path) -> None:
    config = load_config(config_file, ["train.seeds=[0, 1]"])
    assert config.origin == f"--config {config_file} --set 'train.seeds=[0, 1]'"


def test_a_config_survives_the_way_to_another_process(config_file: Path) -> None:
    config = load_config(config_file)
    sent = PipelineConfig.model_validate(config.model_dump(mode="json", exclude_unset=True))
    assert sent.model_dump() == config.model_dump()
    assert sent.ingest.model_fields_set == config.ingest.model_fields_set


def test_a_delivery_takes_the_place_of_the_files_named(config_file: Path, tmp_path: Path) -> None:
    settings = with_data(["ingest.catalog=[x.csv]"], tmp_path / "to night")
    assert load_config(config_file, settings).ingest.folder == tmp_path / "to night"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.sedes=[0]", "train.sedes: no such key. Did you mean seeds? Allowed here: filters, "),
        ("trian.seeds=[0]", "trian: no such key. Did you mean train? "),
        ("describe.workers=none", "describe.workers: Input should be a valid integer"),
        ("describe.workers=0", "it is 0. It means: threads that decode"),
        ("ingest.event_columns.timestamp=3", "it is 3. It means: when; its unit is timestamp_unit"),
        ("describe.engine={kind: offline, in_flght: 3}", "in_flght: no such key. Did you mean in_flight?"),
        (
            "describe.engine={kind: endpoint, url: 'http://x', dtype: half}",
            "describe.engine.dtype: no such key. Allowed here: api_key_variable, concurrency, first_wait_seconds, kind",
        ),
        ("describe.engine.in_flight=3", "describe.engine.kind: missing; it says which settings these are: offline, "),
        (
            "describe={engine: {kind: endpoint, url: 'http://x/v1'}, processor: {min_pixels: 3}}",
            "processor is for a model that runs here",
        ),
        ("store.url=file:///srv/store", "give a folder, or a URL that begins with one of s3://, s3a://"),
        ("store.url=az://shop/store", "give a folder, or a URL that begins with one of s3://, s3a://"),
        ("store.url=s3:/bucket/store", "store.url s3:/bucket/store"),
        ("describe.workers", "--set describe.workers: write section.key=value"),
        ("train.seeds=[0", "--set train.seeds=[0: the value is not valid YAML"),
    ],
)
def test_errors_name_the_key_and_what_is_allowed(config_file: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(config_file, [override])
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no keys; it needs name, store"),
        ("name: [", "not valid YAML"),
        ("name: trial", "store: missing"),
        (MINIMAL + "typo: 1", "typo: no such key"),
    ],
)
def test_errors_name_the_file(config_file: Path, text: str, said: str) -> None:
    config_file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(config_file)
    assert str(error.value).startswith(str(config_file))
    assert said in str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["sample_shop", "movielens", "amazon_gpu"])
def test_the_ready_configs_are_valid(name: str) -> None:
    config = load_config(Path(__file__).parents[2] / "configs" / f"{name}.yaml")
    assert config.work_folder.is_absolute()
