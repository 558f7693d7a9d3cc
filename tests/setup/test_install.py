import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") exit 1 ;;
esac
"""


def test_an_environment_that_was_left_unfinished_is_not_finished_as_another_profile(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "setup", tmp_path / "setup")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python").write_text(PYTHON)  # makes environments, and installs nothing
    (tmp_path / "python").chmod(0o755)

    def install(profile: str) -> str:
        environment = os.environ | {"DMESR_PROFILE": profile, "PYTHON": str(tmp_path / "python")}
        command = ["sh", str(tmp_path / "setup" / "install.sh"), "environment"]
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert result.returncode != 0
        return result.stdout

    assert "making environment with" in install("cpu")
    assert "making environment" not in install("cpu")  # goes on with what is there
    assert "environment was made for another profile; making it anew" in install("gpu")
