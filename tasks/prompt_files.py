"""Prompt files: what one view asks the model, read from YAML, checked, and named by a digest.

A prompt is data under review: its templates are Jinja2 in a sandbox that can change nothing, and a name that the
template doesn't know is an error when the file is read, not when the millionth item is rendered.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storage.digests import digest_of
from tasks.stage import StageError

PROMPT_FOLDER = Path(__file__).parent / "prompts"
ITEM_FIELDS = ("title", "description", "attributes")

View = Literal["image", "text", "joint"]
_LITERALS = ("const", "enum", "default", "examples")  # of a JSON schema: values, no schemas
PICTURE_VIEWS: tuple[View, ...] = ("image", "joint")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sampling(_Settings):
    """How the model chooses its words."""

    temperature: float = Field(0.0, ge=0, description="0 takes the likeliest token: the same item, the same answer")
    top_p: float = Field(1.0, gt=0, le=1, description="share of probability mass sampled from; 1 is all")
    max_tokens: int = Field(64, ge=1, description="longest answer, in tokens; a longer one is cut off and not used")
    seed: int | None = Field(None, description="for temperatures above 0")
    repetition_penalty: float = Field(1.0, gt=0, description="above 1 discourages tokens already used")


class Limits(_Settings):
    """How much of an item's text the prompt may take, in the model's own tokens."""

    title_tokens: int = Field(48, ge=1, description="longest title")
    description_tokens: int = Field(256, ge=1, description="longest description")
    attribute_tokens: int = Field(32, ge=1, description="longest value of one attribute")


class AnswerRules(_Settings):
    """What an answer must be to be used."""

    min_chars: int = Field(1, ge=0, description="a shorter answer is too_short")
    max_chars: int = Field(2000, ge=1, description="a longer answer is too_long")
    json_schema: dict[str, object] | None = Field(
        None, description="if given, the engine is held to this JSON schema and the answer must fit it"
    )


class Prompt(_Settings):
    """One view's question, as its file says it."""

    name: str = Field(min_length=1, pattern=r"^[a-z0-9_-]+$", description="what people call it; decides no key")
    view: View = Field(description="what the model is given: the picture, the item's own text, or both")
    system: str | None = Field(None, description="system turn, Jinja2")
    user: str = Field(min_length=1, description="user turn, Jinja2; the picture, if any, follows it")
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    answer: AnswerRules = AnswerRules()

    @property
    def digest(self) -> str:
        """Return the digest of all that decides an answer; name and file are not part of it.

        Settings left at their defaults are left out, so that a setting added later makes no old answer stale.
        """
        return digest_of(self.model_dump(mode="json", exclude={"name", "view"}, exclude_defaults=True))

    @property
    def item_fields(self) -> tuple[str, ...]:
        """Return which of `ITEM_FIELDS` the templates mention, in that order."""
        names = _undeclared(self.user) | _undeclared(self.system or "")
        return tuple(field for field in ITEM_FIELDS if field in names)

    @property
    def needs_picture(self) -> bool:
        return self.view in PICTURE_VIEWS


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """Return the sandbox in which prompts render: item text can't be changed, unknown names are errors."""
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)


@cache
def compiled(template: str) -> Template:
    return environment().from_string(template)


def load_prompt(name_or_path: str | Path) -> Prompt:
    """Return the prompt of a YAML file, or of that name in the project's own folder.

    Raises StageError naming the file, the field and what to do.
    """
    path = prompt_path(name_or_path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        prompt = Prompt.model_validate(values)
    except FileNotFoundError as error:
        known = ", ".join(sorted(file.stem for file in PROMPT_FOLDER.glob("*.yaml")))
        raise StageError(f"no prompt {name_or_path!s}: give the path of a YAML file, or one of {known}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StageError(f"prompt file {path} can't be read: {error}") from error
    except ValidationError as error:
        raise StageError(f"prompt file {path}: {_in_words(error)}") from error
    _check_templates(prompt, path)
    _check_schema(prompt, path)
    return prompt


def load_prompts(names_or_paths: tuple[str, ...]) -> tuple[Prompt, ...]:
    """Return several prompts, each of another view. Raises StageError where two share one."""
    prompts = tuple(load_prompt(name) for name in names_or_paths)
    by_view: dict[str, str] = {}
    for prompt in prompts:
        if prompt.view in by_view:
            raise StageError(
                f"prompts {by_view[prompt.view]} and {prompt.name} both make view {prompt.view}: "
                "name one prompt a view in describe.prompts"
            )
        by_view[prompt.view] = prompt.name
    return prompts


def prompt_path(name_or_path: str | Path) -> Path:
    """Return where a prompt stands: a path if it looks like one (a folder or .yaml in it), else the project's own."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return Path(text)
    return PROMPT_FOLDER / f"{text}.yaml"


def _check_templates(prompt: Prompt, path: Path) -> None:
    for field, template in (("system", prompt.system), ("user", prompt.user)):
        try:
            unknown = _undeclared(template or "") - set(ITEM_FIELDS)
        except TemplateSyntaxError as error:
            raise StageError(f"prompt file {path}, field {field}, line {error.lineno}: {error.message}") from error
        if unknown:
            raise StageError(
                f"prompt file {path}, field {field}: unknown {', '.join(sorted(unknown))}; "
                f"a template may use {', '.join(ITEM_FIELDS)}"
            )
    if prompt.view == "text" and not prompt.item_fields:
        raise StageError(f"prompt file {path}: view text, but the templates use none of {', '.join(ITEM_FIELDS)}")
    _try_out(prompt, path)


def _check_schema(prompt: Prompt, path: Path) -> None:
    schema = prompt.answer.json_schema
    if schema is None:
        return
    import jsonschema
    from referencing import Registry, Resource
    from referencing.exceptions import CannotDetermineSpecification, Unresolvable
    from referencing.jsonschema import DRAFT202012

    try:
        jsonschema.validators.validator_for(schema).check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        resolver = Registry().with_resource(resource.id() or "", resource).resolver(resource.id() or "")
        for reference in _references(schema):
            resolver.lookup(reference)
    except (jsonschema.SchemaError, Unresolvable, CannotDetermineSpecification) as error:
        said = getattr(error, "message", str(error))
        raise StageError(f"prompt file {path}, field answer.json_schema: {said}; write it as JSON Schema") from error


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference
        schema = [part for name, part in schema.items() if name not in _LITERALS]
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _try_out(prompt: Prompt, path: Path) -> None:
    try:
        for template in (prompt.system, prompt.user):
            compiled(template or "").render(title="", description="", attributes={})
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise StageError(f"prompt file {path} fails on an item without text: {error}") from error


@cache
def _undeclared(template: str) -> frozenset[str]:
    return frozenset(meta.find_undeclared_variables(environment().parse(template)))


def _in_words(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
