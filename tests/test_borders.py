"""Which package may import which: the layers of the house."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("flows", "tasks", "dmesr_model", "storage", "sample_shop")

FORBIDDEN = {
    "dmesr_model": {"prefect", "vllm", "storage", "tasks", "flows", "sample_shop", "deltalake"},
    "storage": {"prefect", "vllm", "dmesr_model", "tasks", "flows", "sample_shop", "torch"},
    "sample_shop": {"prefect", "flows"},
    "tasks": {"prefect", "flows", "sample_shop"},
    "flows": {"vllm", "torch", "faiss", "transformers", "sentence_transformers"},
}


def imported_packages(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", OURS)
def test_package_keeps_to_its_side_of_the_border(package: str) -> None:
    crossings = {
        str(path.relative_to(ROOT)): crossed
        for path in (ROOT / package).rglob("*.py")
        if (crossed := imported_packages(path) & FORBIDDEN[package])
    }
    assert crossings == {}


def test_the_check_sees_a_crossing(tmp_path: Path) -> None:
    source = tmp_path / "crossing.py"
    source.write_text("def f():\n    from prefect.artifacts import x\n    import vllm.entrypoints as y\n")
    assert imported_packages(source) == {"prefect", "vllm"}


def test_planning_imports_no_engine_and_no_orchestrator() -> None:
    heavy = ("torch", "vllm", "faiss", "transformers", "sentence_transformers", "prefect", "matplotlib")
    script = f"import sys, flows.command_line; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_package_hides_the_real_ones() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
