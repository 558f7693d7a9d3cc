"""What a model is, for keys."""

from pathlib import Path

import pytest

from tasks import model_identity
from tasks.model_identity import model_digest, unpinned
from tasks.stage import StageError


def folder_with(folder: Path, weights: bytes, **files: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    for name, text in files.items():
        (folder / name).with_suffix(".json").write_text(text)
    return str(folder)


def test_the_same_content_elsewhere_is_the_same_model(tmp_path: Path) -> None:
    one = model_digest(folder_with(tmp_path / "one", b"w", config="{}"))
    two = folder_with(tmp_path / "two", b"w", config="{}")
    (tmp_path / "two" / "README.md").write_text("says nothing of the answers")
    assert model_digest(two) == one
    assert model_digest(folder_with(tmp_path / "three", b"w", config='{"a": 1}')) != one
    assert model_digest(folder_with(tmp_path / "four", b"x", config="{}")) != one


@pytest.mark.parametrize(
    "name",
    [
        *("pytorch_model.bin", "model.pt", "weights.pth"),
        *("chat_template.jinja", "merges.txt", "tokenizer.model", "qwen.tiktoken"),
    ],
)
def test_weights_of_every_form_and_what_makes_tokens_of_a_prompt_count(name: str, tmp_path: Path) -> None:
    model = folder_with(tmp_path / "model", b"w")
    digests = [model_digest(model)]
    for content in (b"one", b"other"):
        (tmp_path / "model" / name).write_bytes(content)
        digests.append(model_digest(model))
    assert len(set(digests)) == 3


def test_a_file_written_again_is_read_again(tmp_path: Path) -> None:
    model = folder_with(tmp_path / "model", b"w")
    before = model_digest(model)
    folder_with(tmp_path / "model", b"v")
    assert model_digest(model) != before


def test_large_weights_are_judged_by_pieces_the_last_among_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(model_identity, "_WHOLE_BYTES", 100)
    monkeypatch.setattr(model_identity, "_SAMPLE_BYTES", 2)
    weights = bytes(range(256)) * 4
    one = model_digest(folder_with(tmp_path / "one", weights))
    assert model_digest(folder_with(tmp_path / "two", weights)) == one
    assert model_digest(folder_with(tmp_path / "three", weights[:-1] + b"\0")) != one
    assert model_digest(folder_with(tmp_path / "four", weights + b"\0")) != one


def test_a_hub_id_counts_with_its_revision() -> None:
    assert model_digest("owner/name") == model_digest("owner/name", "main")
    assert model_digest("owner/name") != model_digest("owner/name", "abc")


@pytest.mark.parametrize("model", ["./gone", "/gone", "../a/gone", "a/b/gone"])
def test_a_path_that_is_no_folder_is_an_error(model: str) -> None:
    with pytest.raises(StageError, match="no such folder"):
        model_digest(model)


def test_a_hub_model_without_a_commit_is_said(tmp_path: Path) -> None:
    (note,) = unpinned("describe", "owner/name", None)
    assert "describe.revision is not set" in note and "owner/name" in note
    assert unpinned("describe", "owner/name", "a1b2c3") == unpinned("describe", str(tmp_path), None) == ()
