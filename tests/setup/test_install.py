import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip") exit ${PIP_STATUS:-0} ;;
esac
"""  # makes environments, and installs nothing
LDD = """#!/bin/sh
printf '\t%s => %s\n' libc.so.6 '/lib/libc.so.6 (0x00)' libtorch_cpu.so 'not found' libnuma.so.1 "$LIBNUMA"
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The set-up in a folder of its own, with an interpreter and an ldd that do nothing."""
    shutil.copytree(ROOT / "setup", tmp_path / "setup")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    for name, text in (("python", PYTHON), ("ldd", LDD)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def install(copy: Path, **settings: str) -> tuple[int, str]:
    path = f"{copy / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHON": str(copy / "bin" / "python"), **settings}
    command = ["sh", str(copy / "setup" / "install.sh"), "environment"]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return result.returncode, result.stdout


def test_an_environment_that_was_left_unfinished_is_not_finished_as_another_profile(copy: Path) -> None:
    def fail(profile: str) -> str:
        code, printed = install(copy, DMESR_PROFILE=profile, PIP_STATUS="1")
        assert code != 0
        return printed

    assert "making environment with" in fail("cpu")
    assert "making environment" not in fail("cpu")  # goes on with what is there
    assert "environment was made for another profile; making it anew" in fail("gpu")


def test_a_library_that_the_system_lacks_is_named_until_it_is_there(copy: Path) -> None:
    for _ in range(2):
        code, printed = install(copy, DMESR_PROFILE="cpu", LIBNUMA="not found")
        assert code != 0
        assert "vLLM needs libnuma.so.1 of the system" in printed  # torch's own libraries are no library of the system
    code, printed = install(copy, DMESR_PROFILE="cpu", LIBNUMA="/lib/libnuma.so.1 (0x00)")
    assert code == 0
    assert "done: environment" in printed
