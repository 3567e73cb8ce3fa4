"""Nothing but the roster writer changes a gateway's config (decisions.md D1)."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.product import modules

CONFIG_WRITES = {
    "config.patch",
    "config.apply",
    "config.set",
    "agents.create",
    "agents.update",
    "agents.delete",
}
WRITER = "worker/roster/writer.py"
DELETED_IDS = "worker/roster/deleted_ids.py"
"""A part of the roster writer, which runs under its lease."""


def product() -> dict[str, ast.Module]:
    """Every module that runs in a worker or a command; the simulator answers such calls, and sends none."""
    return modules(but="worker/lab/simulator/")


def methods(tree: ast.Module) -> Iterator[str | None]:
    """The method of each RPC, the first argument of call() and its like; None where it is not written out."""
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        if name in ("call", "_call", "query", "Call"):
            method: ast.expr | None = node.args[0]
            if isinstance(method, ast.Name):
                method = constants.get(method.id)
            yield str(method.value) if isinstance(method, ast.Constant) else None


def test_only_the_roster_writer_sends_what_writes_config() -> None:
    senders = {
        (name, method)
        for name, tree in product().items()
        for method in methods(tree)
        if method in CONFIG_WRITES
    }
    assert senders == {(WRITER, "config.patch"), (WRITER, "agents.delete"), (DELETED_IDS, "agents.create")}


def test_every_method_is_written_out_where_it_is_called() -> None:
    """A name put together at run time would escape the test above; those that pass one on are known."""
    assert {name for name, tree in product().items() if None in methods(tree)} == PASS_ON


PASS_ON = {
    "worker/gateway/client.py",
    "worker/agents/agent_context.py",
    "worker/gateway/agent_files.py",
}
