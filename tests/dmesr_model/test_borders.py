"""dmesr_model stands alone: arrays and files in, arrays and files out."""

import ast
from pathlib import Path

import pytest

import dmesr_model

FILES = sorted(Path(dmesr_model.__file__).parent.glob("*.py"))
FORBIDDEN = {"prefect", "storage", "tasks", "flows", "vllm", "vllm_cpu", "sample_shop", "pickle", "deltalake"}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_no_import_from_outside(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported & FORBIDDEN == set()
