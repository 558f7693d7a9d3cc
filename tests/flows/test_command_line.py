"""The command line as a user meets it: plans, looks, errors and failures, in processes of its own."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from rich.text import Text

from flows import command_line, serving_commands
from sample_shop import delivery

CATALOG = '{"item_id": "a", "title": "Mug", "description": "Red."}\n{"item_id": "b", "title": "Lamp"}\nnot json\n'
EVENTS = "user_id,item_id,timestamp\nu,a,1\nu,b,2\nu,a,3\n"


@pytest.fixture
def shop(day0, tmp_path: Path):
    """Two items, three events, and the small shop's config."""
    day0_folder = tmp_path / "deliveries" / "day0"
    day0_folder.mkdir(parents=True)
    (day0_folder / "catalog.jsonl").write_text(CATALOG)
    (day0_folder / "interactions.csv").write_text(EVENTS)
    shop = type(day0)(tmp_path)
    shop.config_file.write_text(day0.config_file.read_text())
    return shop


def said(result) -> str:
    """Return the output, having checked that it holds no traceback."""
    assert "Traceback" not in result.stdout
    return result.stdout


def test_plan_says_a_line_a_stage_and_starts_nothing(shop) -> None:
    result = shop.dmesr("plan", "--set", "ingest.max_reject_share=0.5")
    assert result.returncode == 0, result.stdout
    assert [line.split(":")[0] for line in said(result).splitlines()[:9]] == [
        "ingest",
        "describe",
        "embed",
        "train",
        "evaluate",
        "promote",
        "recommend",
        "report",
        "maintain",
    ]
    assert "ingest: 6 rows: 6 new" in result.stdout  # 2 items, a line that is refused, 3 events
    assert "Prefect" not in result.stdout and not (shop.folder / "prefect").exists()


def test_a_stage_then_looking_at_what_it_left(shop, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):  # of no use for the run's own server
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ran = shop.dmesr("ingest", "--set", "ingest.max_reject_share=0.5")
    assert ran.returncode == 0, ran.stdout
    assert "'ingest' - Finished in state Completed()" in ran.stdout
    status = said(shop.dmesr("status"))
    assert ["interactions", "3"] in [line.split()[:2] for line in status.splitlines()]
    assert "completed" in status
    shown = said(shop.dmesr("show", "a"))
    assert "title: Mug" in shown and "text (not asked yet)" in shown
    unknown = shop.dmesr("show", "z")
    assert unknown.returncode == 1 and "error: no item z" in said(unknown)


def test_prompts_are_shown_with_their_digests(shop) -> None:
    output = said(shop.dmesr("prompts"))
    assert "caption: view image, digest " in output and "summary: view text, digest " in output
    assert "0 stored answers: 0 ok, 0 unusable, 0 failed" in output


def test_a_failure_says_stage_reason_and_the_command_that_goes_on(shop) -> None:
    (shop.folder / "deliveries" / "day0" / "catalog.jsonl").unlink()
    result = shop.dmesr("run")
    assert result.returncode == 1
    assert "stage ingest failed: " in said(result) and "catalog" in result.stdout
    assert f"go on with: dmesr run --config {shop.config_file} --from ingest" in result.stdout


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda text: text + "trian: {}\n", "trian: no such key. Did you mean train?"),
        (lambda text: text.replace("work_folder: work", "work_folder: [1]"), "work_folder: "),
        (lambda text: "", "holds no keys"),
    ],
    ids=["unknown key", "wrong type", "empty"],
)
def test_a_config_that_is_wrong(shop, spoil: Callable[[str], str], expected: str) -> None:
    shop.config_file.write_text(spoil(shop.config_file.read_text()))
    result = shop.dmesr("run")
    assert result.returncode == 1
    assert expected in said(result) and str(shop.config_file) in result.stdout


def test_a_terminal_that_lacks_a_character_shows_another(shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    catalog = shop.folder / "deliveries" / "day0" / "catalog.jsonl"
    catalog.write_text(CATALOG.replace("Mug", "Mug 杯"), encoding="utf-8")
    assert shop.dmesr("ingest", "--set", "ingest.max_reject_share=0.5").returncode == 0
    assert "Mug ?" in said(shop.dmesr("show", "a"))


def test_no_help_text_is_taken_for_markup() -> None:
    commands = [typer.main.get_command(command_line.app)]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for text in (command.help, *(getattr(parameter, "help", None) for parameter in command.params)):
            assert Text.from_markup(text or "").plain == (text or "").replace("\\[", "["), command.name


def test_paths_that_cant_be_written_are_told_in_a_line(
    shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(serving_commands, "plan_and_run_stage", lambda *_: pytest.fail("checked before the work"))
    words = ["dmesr", "recommend", "--config", str(shop.config_file), "--out"]
    for path, code, expected in (
        (tmp_path / "file" / "lists.jsonl", 1, f"error: {tmp_path / 'file'}: File exists. Mend that path"),
        (tmp_path, 2, "can't be written; name a file"),
    ):
        monkeypatch.setattr(sys, "argv", [*words, str(path)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        assert ended.value.code == code
        assert expected in " ".join(capsys.readouterr().err.replace("│", "").split())


def test_a_sample_shop_that_was_drawn_halfway_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Path] = []

    def draw(out: Path) -> None:
        (out / "day0").mkdir(parents=True)
        drawn.append(out)
        if len(drawn) == 1:
            raise KeyboardInterrupt
        (out / "day0" / "catalog.jsonl").touch()

    monkeypatch.setattr(delivery, "write_deliveries", draw)
    with pytest.raises(KeyboardInterrupt):
        command_line._deliver_sample_shop(tmp_path / "deliveries")
    for _ in range(2):
        command_line._deliver_sample_shop(tmp_path / "deliveries")
    assert (tmp_path / "deliveries" / "day0" / "catalog.jsonl").exists() and len(drawn) == 2


def test_a_delivery_for_a_run_without_ingest_is_refused(shop) -> None:
    for chosen in ("--only", "--from"):
        result = shop.dmesr("run", "--data", str(shop.folder), chosen, "embed")
        assert result.returncode == 2
        assert "--data is read by stage ingest" in said(result)


def test_options_before_a_subcommand_that_has_its_own_are_refused(shop) -> None:
    result = shop.dmesr("prompts", "--set", "describe.workers=1", "diff", "caption")
    assert result.returncode == 2
    assert "after diff" in said(result)


def test_only_and_from_exclude_each_other(shop) -> None:
    result = shop.dmesr("run", "--only", "embed", "--from", "train")
    assert result.returncode == 2
    assert "not both" in said(result)
