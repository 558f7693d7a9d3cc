"""The pipeline's one config: read from YAML, overridden from the command line, checked before anything runs.

Each section's class lives with the stage that owns it; here they are put together and errors are said for people.
"""

import difflib
import json
import shlex
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator
from pydantic_core import ErrorDetails

from storage.tables import Store, StoreError, is_url
from tasks.describe import DescribeConfig
from tasks.embed import EmbedConfig
from tasks.evaluate import EvaluateConfig
from tasks.features import Dataset
from tasks.ingest.config import IngestConfig
from tasks.maintain import MaintainConfig
from tasks.promote import PromoteConfig
from tasks.recommend import RecommendConfig
from tasks.report import ReportConfig
from tasks.train import TrainStageConfig

_PATH_OR_NAME = frozenset({("describe", "model"), ("describe", "prompts"), ("embed", "model")})


class ConfigError(Exception):
    """A config that can't be used; the message names the file, the key, and what is allowed there."""


_ENGINE = ("describe", "engine")


class StoreConfig(BaseModel):
    """Where the tables are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(description="a folder, or a URL such as s3://bucket/prefix, that holds one Delta table a schema")
    storage_options: dict[str, str] = Field(
        {},
        description="options for the object store, such as AWS_ENDPOINT_URL; secrets belong in the environment",
    )

    @field_validator("url")
    @classmethod
    def _is_a_store(cls, url: str) -> str:
        try:
            Store(url)
        except StoreError as error:
            raise ValueError(str(error)) from error
        return url


class PipelineConfig(BaseModel):
    """Everything a run is decided by: where its stores are, and one section a stage; most need saying nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="names the pipeline in the UI and the report")
    store: StoreConfig
    work_folder: Path = Field(description="models, features, logs, locks and the report; a local folder")
    ingest: IngestConfig
    describe: DescribeConfig
    embed: EmbedConfig = EmbedConfig()
    train: TrainStageConfig = TrainStageConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()
    recommend: RecommendConfig = RecommendConfig()
    report: ReportConfig = ReportConfig()
    maintain: MaintainConfig = MaintainConfig()

    _origin: str = PrivateAttr(default="")

    @property
    def origin(self) -> str:
        """Return the command-line arguments that give this config again."""
        return self._origin

    def open_store(self) -> Store:
        return Store(self.store.url, self.store.storage_options)

    def open_dataset(self) -> Dataset:
        return Dataset(self.open_store(), self.describe, self.embed, self.train.filters, self.work_folder)


def load_config(path: Path, overrides: Sequence[str] = ()) -> PipelineConfig:
    """Return the config in the YAML file at `path`, with `overrides` such as `train.seeds=[0,1]` put over it.

    Relative paths in the file are relative to its folder, those in overrides to the current folder. Raises ConfigError.
    """
    values = _resolve(PipelineConfig, _read_yaml(path), path.parent.absolute())
    for override in overrides:
        values = _merged(values, _resolve(PipelineConfig, _parse_override(override), Path.cwd()))
    try:
        config = PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    config._origin = shlex.join(["--config", str(path), *(word for text in overrides for word in ("--set", text))])
    return config


def with_data(settings: Sequence[str], data: Path | None) -> list[str]:
    """Return `settings` with the folder of a delivery put in the place of the files that the config names."""
    if data is None:
        return list(settings)
    folder = json.dumps(str(data.absolute()))  # a JSON text is a YAML text
    return [*settings, f"ingest.folder={folder}", "ingest.catalog=[]", "ingest.interactions=[]"]


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: can't be read: {error.strerror}; give a config file, such as one in configs/"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no keys; it needs {', '.join(PipelineConfig.model_fields)}")
    return values


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise ConfigError(f"--set {text}: write section.key=value, such as train.seeds=[0,1]")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value is not valid YAML: {error}") from error
    for name in reversed(names):
        nested = {name: nested}
    return nested


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], place: tuple[str, ...] = ()) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old, here = result.get(key), (*place, key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _is_other_engine(here, old, value):
            value = _merged(old, value, here)
        result[key] = value
    return result


def _is_other_engine(place: tuple[str, ...], below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    """An engine of another kind has other settings: none is taken over from the one before."""
    return place == _ENGINE and "kind" in above and above["kind"] != below.get("kind")


# Paths


def _resolve(
    model: type[BaseModel], values: dict[str, Any], folder: Path, place: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return `values` with every path of `model` absolute: fields typed Path, a local store's URL, a model's folder."""
    return {
        key: _resolve_field(model.model_fields[key].annotation, value, folder, (*place, key))
        if key in model.model_fields
        else value
        for key, value in values.items()
    }


def _resolve_field(annotation: Any, value: Any, folder: Path, place: tuple[str, ...]) -> Any:
    parts = list(_types_in(annotation))
    if isinstance(value, dict):
        for model in (part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)):
            value = _resolve(model, value, folder, place)
        return value
    if isinstance(value, list):
        return [_resolve_field(annotation, element, folder, place) for element in value]
    if not isinstance(value, str):
        return value
    if place in _PATH_OR_NAME:
        return str((folder / value).resolve()) if (folder / value).exists() else value
    local = place == ("store", "url") and not is_url(value)
    return str((folder / value).resolve()) if local or Path in parts else value


def _types_in(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict, typing.Annotated):
        for part in get_args(annotation):
            yield from _types_in(part)
    else:
        yield annotation


# Errors


def _explain(error: ValidationError, path: Path) -> str:
    lines = [_explain_one(detail) for detail in error.errors()]
    return "\n".join([f"{path}: {len(lines)} thing{'s' if len(lines) > 1 else ''} to put right", *lines])


def _explain_one(detail: ErrorDetails) -> str:
    names = [str(part) for part in detail["loc"]]
    key = _written(names)
    if detail["type"] == "extra_forbidden":
        return f"  {key}: no such key. {_allowed(names)}"
    if detail["type"] == "missing":
        return f"  {key}: missing. {_meaning(names)}".rstrip()
    if detail["type"] == "union_tag_not_found":
        kinds = ", ".join(str(_tag_of(model)) for model in _models_at(names))
        return f"  {key}.kind: missing; it says which settings these are: {kinds}"
    return f"  {key}: {detail['msg']}; it is {detail['input']!r}. {_meaning(names)}".rstrip()


def _allowed(names: list[str]) -> str:
    allowed = sorted(_fields_at(names[:-1]))
    close = difflib.get_close_matches(names[-1], allowed, n=1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"{hint}Allowed here: {', '.join(allowed)}"


def _meaning(names: list[str]) -> str:
    for model in _models_at(names[:-1]):
        if (field := model.model_fields.get(names[-1])) and field.description:
            return f"It means: {field.description}"
    return ""


def _models_at(names: list[str]) -> list[type[BaseModel]]:
    """Return the config classes that the keys `names` lead to (several where a field takes one of several).

    A name that is no field is a place in a list or the tag of a union, which says which of its classes is meant.
    """
    models: list[type[BaseModel]] = [PipelineConfig]
    for name in names:
        fields = [model.model_fields[name].annotation for model in models if name in model.model_fields]
        below = [part for annotation in fields for part in _types_in(annotation)]
        if fields:
            models = [part for part in below if isinstance(part, type) and issubclass(part, BaseModel)]
        else:
            models = [model for model in models if _tag_of(model) == name] or models
    return models


def _written(names: list[str]) -> str:
    """The key as a configuration writes it: without the tags of unions, which pydantic puts among the names."""
    return ".".join(name for at, name in enumerate(names) if not _is_tag(name, names[:at]))


def _is_tag(name: str, above: list[str]) -> bool:
    return name not in _fields_at(above) and any(_tag_of(model) == name for model in _models_at(above))


def _fields_at(names: list[str]) -> set[str]:
    return {name for model in _models_at(names) for name in model.model_fields}


def _tag_of(model: type[BaseModel]) -> Any:
    return model.model_fields["kind"].default if "kind" in model.model_fields else None
