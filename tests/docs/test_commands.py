"""Every command of the documentation: looking ones run for real, all are parsed by the real command lines.

A command stands in a fenced `sh` block. `<!-- not run: why -->` before a block marks what no test could run; such
commands are parsed all the same. The walk-through is run whole with `make test-operations`.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from flows.command_line import app
from tasks.config import load_config
from tasks.pipeline import stage_named
from tasks.stage import run_stage

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")])
BLOCK = re.compile(r"(<!-- not run: (?P<why>[^>]+) -->\n)?^```sh\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LOOKING = {"plan", "status", "rejects", "show", "prompts", "models"}
SHELL = {"export", "cp", "cd"}
ONLY_MARKED = {"docker", "vllm"}
"""Programs that the environment of the tests lacks, or that need a GPU."""


@dataclass(frozen=True)
class Command:
    page: str
    words: tuple[str, ...]
    marked: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def commands() -> Iterator[Command]:
    for page in PAGES:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            for line in block["body"].splitlines():
                if words := shlex.split(line, comments=True):
                    yield Command(page.relative_to(ROOT).as_posix(), tuple(words), bool(block["why"]))


COMMANDS = list(dict.fromkeys(commands()))


def of(program: str) -> list[Command]:
    return [command for command in COMMANDS if command.words[0] == program]


def test_the_pages_have_commands_of_known_programs_only() -> None:
    known = {"dmesr", "prefect", "make", "python", "pip"} | SHELL
    for command in COMMANDS:
        assert command.words[0] in known | (ONLY_MARKED if command.marked else set()), str(command)
    assert {page for page in (command.page for command in COMMANDS)} >= {"README.md", "docs/operating.md"}


@pytest.mark.parametrize("command", of("dmesr"), ids=str)
def test_dmesr_takes_the_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMESR_CONFIG", "configs/sample_shop.yaml")  # as the README sets it
    parse(typer.main.get_command(app), list(command.words[1:]), None)


def parse(command: click.Command, words: list[str], parent: click.Context | None) -> None:
    """Raises click.UsageError where the command line would."""
    context = command.make_context(command.name, words, parent=parent)
    rest = [*context._protected_args, *context.args]
    if hasattr(command, "resolve_command") and rest:
        name, chosen, left = command.resolve_command(context, rest)
        assert chosen, name
        parse(chosen, left, context)


@pytest.mark.parametrize("command", of("prefect"), ids=str)
def test_prefect_takes_the_command(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    from prefect.cli._app import _app

    _app.parse_args(list(command.words[1:]), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_make_has_the_target(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(command.words[1:]) <= set(targets)


@pytest.mark.parametrize("command", of("python"), ids=str)
def test_python_finds_the_program(command: Command) -> None:
    if command.words[1] == "-m":
        assert importlib.util.find_spec(command.words[2])
    else:
        assert (ROOT / command.words[1]).exists()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walk-through's shop after its ingest; returns its config."""
    folder = tmp_path_factory.mktemp("shop")
    make = [sys.executable, "examples/own_shop/make_shop.py", str(folder / "export")]
    subprocess.run(make, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    values = yaml.safe_load((ROOT / "examples" / "own_shop" / "shop.yaml").read_text())
    values["store"]["url"], values["work_folder"] = "store", "work"
    values["ingest"] |= {"catalog": "export/products.csv", "interactions": "export/orders.csv"}
    values["describe"]["model"] = str(ROOT / "sample_shop" / "tiny_vlm" / "checkpoint")
    (folder / "shop.yaml").write_text(yaml.safe_dump(values))
    run_stage(stage_named(load_config(folder / "shop.yaml"), "ingest"), lambda _: None)
    return folder / "shop.yaml"


def is_looking(command: Command) -> bool:
    """Whether the small shop can answer it; tests/flows/night/test_night.py runs another layout (`--data`)."""
    return command.words[1] in LOOKING and not {"diff", "--data"} & set(command.words)


def on_the_shop(words: tuple[str, ...], shop: Path) -> list[str]:
    """The command with the walk-through's config, its delivery, and a prompt that exists."""
    words = tuple(word.replace("my_caption.yaml", "examples/own_shop/prompts/caption.yaml") for word in words[1:])
    pairs = zip(("", *words), words, strict=False)
    given = {"--config": str(shop), "--data": str(shop.parent / "day")}
    return [given.get(before, word) for before, word in pairs]


@pytest.mark.parametrize("command", [command for command in of("dmesr") if is_looking(command)], ids=str)
def test_looking_commands_run_on_a_small_shop(command: Command, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DMESR_CONFIG", str(shop))
    words = on_the_shop(command.words, shop)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"


def test_the_shop_of_the_walk_through_has_ten_items(shop: Path) -> None:
    result = CliRunner().invoke(app, ["show", "item-00003", "--config", str(shop)])
    assert "item item-00003" in result.output and "brand" not in result.output
    assert '"maker"' in result.output


@pytest.mark.operations
def test_the_walk_through_from_its_page(tmp_path: Path) -> None:
    """Every block but the servers, in their order, in a copy of the project."""
    page = "examples/own_shop/README.md"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "project")], check=True)
    folder = tmp_path / "project"
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = ""
    for command in (command for command in commands() if command.page == page and not command.marked):
        if command.words[0] == "export":
            continue
        done = subprocess.run(command.words, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        said += done.stdout + done.stderr
    assert "describe: 20 answers: 20 new" in said  # ten captions, ten summaries
    assert "describe: 24 answers: 4 new, 1 changed" in said  # two items' captions and summaries; another description
    assert "describe: 24 answers: 0 new, 12 changed" in said  # the other prompt: every caption
