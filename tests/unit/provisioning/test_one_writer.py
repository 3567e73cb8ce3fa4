"""Nothing but the roster writer writes a gateway's config (design D1), and arrows run one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import worker

ROOT = Path(worker.__file__).parents[1]
WRITES = {"config.patch", "config.apply", "config.set", "agents.create", "agents.update", "agents.delete"}
WRITER = Path("worker/provisioning/roster_writer.py")
NOT_OURS = ("worker/simulator/",)
"""The simulator answers these calls, and sends none."""


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for folder in ("worker", "tasks", "models"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT)
            if not str(place).startswith(NOT_OURS):
                yield place, ast.parse(path.read_text())


def calls_with(tree: ast.AST, words: set[str]) -> Iterator[str]:
    """Which of the words stand as an argument of some call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            yield from (a.value for a in given if isinstance(a, ast.Constant) and a.value in words)


def test_nothing_else_writes_config() -> None:
    found = {(place, word) for place, tree in modules() for word in calls_with(tree, WRITES)}
    assert found == {(WRITER, "config.patch"), (WRITER, "agents.delete")}


def test_no_name_of_a_call_is_put_together_so_none_escapes_the_search() -> None:
    for place, tree in modules():
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert not words & {"config.", ".patch", ".create", ".update", ".delete"}, place


def imports(tree: ast.Module) -> set[str]:
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("worker/gateway", ("models", "sqlalchemy", "jinja2", "worker.jobs", "worker.provisioning", "tasks")),
        ("worker/workspace", ("models", "sqlalchemy", "websockets", "worker.jobs", "worker.provisioning")),
        ("worker/jobs", ("worker.provisioning", "worker.gateway", "worker.workspace", "tasks", "celery")),
        ("worker/provisioning", ("tasks", "worker.app", "worker.cli", "celery")),
        ("models", ("worker", "tasks")),
        ("tasks", ("worker.gateway.client", "worker.gateway.connection", "websockets")),
    ],
)
def test_arrows_run_one_way(package: str, forbidden: tuple[str, ...]) -> None:
    for place, tree in modules():
        if str(place).startswith(f"{package}/"):
            crossed = {
                name for name in imports(tree) for f in forbidden if name == f or name.startswith(f + ".")
            }
            assert crossed == set(), place


def test_nothing_of_the_program_imports_the_simulator() -> None:
    allowed = {"worker/cli/demo.py", "worker/cli/demo_stack.py", "worker/cli/serve.py"}
    for place, tree in modules():
        if str(place) not in allowed:
            assert not any(name.startswith("worker.simulator") for name in imports(tree)), place
