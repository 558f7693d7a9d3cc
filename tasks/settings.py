"""Every setting of a pipeline's config, with type, default and meaning, as its classes have them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tasks.config import PipelineConfig

Schema = Mapping[str, Any]
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True)
class Setting:
    """One key of the config.

    Args:
        key: with dots, as `--set` takes it; `[]` stands for an entry of a list, and the key of an engine's setting is
            followed by the kind of engine that has it.
        kind: what a value may be.
        default: as YAML; None where a value is required.
        meaning: the field's own description.
    """

    key: str
    kind: str
    default: str | None
    meaning: str

    def text(self) -> str:
        value = "required" if self.default is None else f"default {self.default}"
        return f"{self.key}: {self.kind}, {value}" + (f"\n    {self.meaning}" if self.meaning else "")


def all_settings() -> Iterator[Setting]:
    """Those of every section, and of the model and its training, which variants take as they are."""
    from dmesr_model.model_config import ModelConfig
    from dmesr_model.trainer import TrainConfig

    inside: dict[str, type[BaseModel]] = {"train.train": TrainConfig, "train.variants[].model": ModelConfig}
    for setting in _settings_of(PipelineConfig, ""):
        yield setting
        if setting.key in inside:
            within = _settings_of(inside[setting.key], f"{setting.key}.")
            yield from (found for found in within if found.key != "train.train.seed")  # given by train.seeds


def _settings_of(config: type[BaseModel], prefix: str) -> Iterator[Setting]:
    schema = config.model_json_schema()
    yield from _walk(schema, schema.get("$defs", {}), prefix, "")


def _walk(schema: Schema, classes: Mapping[str, Schema], prefix: str, note: str) -> Iterator[Setting]:
    for name, field in schema["properties"].items():
        inner = list(_classes_within(field, classes))
        holds_fields = bool(inner) and "items" not in field and not _accepts_null(field)
        if not holds_fields:
            required = name in schema.get("required", ()) or (name == "kind" and note != "")
            default = None if required else json.dumps(field.get("default"), ensure_ascii=False)
            yield Setting(f"{prefix}{name}{note}", _kind(field, classes), default, field.get("description", ""))
        for found in inner:
            of_kind = found["properties"].get("kind", {}).get("const") if len(inner) > 1 else None
            entry = "[]" if "items" in field else ""
            yield from _walk(found, classes, f"{prefix}{name}{entry}.", f" ({of_kind})" if of_kind else note)


def _classes_within(field: Schema, classes: Mapping[str, Schema]) -> Iterator[Schema]:
    """The config classes that a field, or an entry of its list, may be."""
    for choice in [field, *field.get("anyOf", ()), *field.get("oneOf", ()), field.get("items", {})]:
        found = classes.get(choice.get("$ref", "").rpartition("/")[2], {})
        if "properties" in found:
            yield found


def _accepts_null(field: Schema) -> bool:
    return any(choice.get("type") == "null" for choice in field.get("anyOf", ()))


def _kind(field: Schema, classes: Mapping[str, Schema]) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(choice, classes) for choice in field["anyOf"])
    if "$ref" in field:
        return _kind(classes[field["$ref"].rpartition("/")[2]], classes)
    if "enum" in field or "const" in field:
        return " | ".join(json.dumps(value) for value in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'], classes)}" if "items" in field else "list"
    bounds = [f"{sign} {field[name]:,}" for name, sign in _BOUNDS.items() if name in field]
    return " ".join([field.get("type", "any"), *bounds])
