"""The Python program of docs/python.md runs as it stands there."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_program_of_the_page_trains_serves_and_explains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    assert (tmp_path / "my_run" / "model" / "model.safetensors").exists()
    assert list((tmp_path / "my_run" / "tensorboard").iterdir())
    assert names["found"].shape == (1, 5)
    assert names["weights_NVL"][0, 0].sum() == pytest.approx(1, abs=1e-5)
