"""The lab may import the product; the product does not know it, and says so where it is not installed."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.product import ROOT, modules

LAB = "worker.lab"


def imported_by(module: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_product_imports_nothing_of_the_lab() -> None:
    product = modules(but="worker/lab/")
    assert len(product) > 100
    offenders = {
        path: name
        for path, module in product.items()
        for name in imported_by(module)
        if name == LAB or name.startswith(f"{LAB}.")
    }
    assert offenders == {}


WITHOUT_LAB = """
import sys
sys.modules["worker.lab"] = None
from worker.cli.app import main
main()
"""


def run_without_lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_LAB, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", ["demo", "serve"])
def test_a_command_of_the_lab_that_is_not_there_names_the_cure(command: str) -> None:
    told = run_without_lab(command)
    assert told.returncode == 2
    assert told.stdout == ""
    assert f"provisioner {command}" in told.stderr
    assert "pip install '.[lab]'" in " ".join(told.stderr.split())
    assert "Traceback" not in told.stderr


def test_the_commands_of_the_lab_are_listed_all_the_same() -> None:
    told = run_without_lab("--help")
    assert told.returncode == 0
    assert "demo" in told.stdout
    assert "serve" in told.stdout
