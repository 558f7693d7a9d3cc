"""Prompt files: read, checked, and named by what they say."""

from pathlib import Path

import pytest

from tasks.prompt_files import load_prompt, load_prompts
from tasks.stage import StageError

READ = "name: read\nview: text\nuser: 'About {{ title }}'\n"


def write(folder: Path, text: str, name: str = "prompt.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "view", "fields"),
    [
        ("caption", "image", ()),
        ("summary", "text", ("title", "description")),
        ("joint", "joint", ("title", "description")),
    ],
)
def test_the_projects_own_prompts_load_by_name(name: str, view: str, fields: tuple[str, ...]) -> None:
    prompt = load_prompt(name)
    assert (prompt.name, prompt.view, prompt.item_fields) == (name, view, fields)


def test_the_digest_knows_what_is_asked_and_not_how_the_file_is_called_or_commented(tmp_path: Path) -> None:
    first = load_prompt(write(tmp_path, READ)).digest
    assert load_prompt(write(tmp_path, "# Why\n" + READ.replace("name: read", "name: other"), "b.yaml")).digest == first
    assert load_prompt(write(tmp_path, READ.replace("About", "Of"))).digest != first
    assert load_prompt(write(tmp_path, READ + "sampling: {max_tokens: 7}\n")).digest != first
    assert load_prompt(write(tmp_path, READ + "limits: {title_tokens: 7}\n")).digest != first
    assert load_prompt(write(tmp_path, READ + "answer: {max_chars: 7}\n")).digest != first
    assert load_prompt(write(tmp_path, READ + "sampling: {temperature: 0.0}\n")).digest == first  # the default, said


def test_a_prompt_reads_what_either_turn_mentions(tmp_path: Path) -> None:
    both = load_prompt(write(tmp_path, READ + "system: 'Sold as {{ attributes }}: {{ description }}'\n"))
    assert both.item_fields == ("title", "description", "attributes")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nview: text\n", "user: Field required"),
        (READ + "temprature: 1\n", "temprature: Extra inputs"),
        (READ.replace("title", "titel"), "unknown titel; a template may use title, description, attributes"),
        (READ.replace("{{ title }}", "{{ title"), "field user, line 1"),
        (READ.replace("{{ title }}", "it"), "view text, but the templates use none"),
        (READ.replace("title", "attributes.Colour"), "fails on an item without text"),
        (READ.replace("title", "title.__class__.mro()"), "fails on an item without text"),
        ("view: [", "can't be read"),
        (READ + "answer: {json_schema: {type: objct}}\n", "field answer.json_schema: 'objct' is not valid"),
        (READ + "answer: {json_schema: {pattern: '^\\p{L}+$'}}\n", "field answer.json_schema: "),
        (READ + "answer: {json_schema: {properties: {a: {$ref: '#/none'}}}}\n", "json_schema: '/none' does not exist"),
        ("", "prompt file"),
    ],
)
def test_a_wrong_file_gets_an_error_that_names_it_and_the_field(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(StageError) as found:
        load_prompt(path)
    assert message in str(found.value)
    assert str(path) in str(found.value)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(StageError, match="one of caption, joint, summary"):
        load_prompt("nonesuch")


def test_two_prompts_for_one_view_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="both make view text"):
        load_prompts(("summary", str(write(tmp_path, READ))))
