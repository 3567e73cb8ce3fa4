"""No program decides by a sentence: each is written with a code for that (decisions.md D5)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.product import modules
from tests.unit.jobs.test_one_owner import UNKNOWN, texts

MAY = {
    "worker/jobs/store/codes.py": "rows of workers before v0.3.0, until the next release",
    "worker/broker.py": "reasons of Python's ssl module",
    "worker/gateway/handshake.py": "the same",
}
SENTENCES = {"reason", "error", "wait_reason"}
"""Columns, and the attributes named after them, that hold sentences."""

_COLUMN = rf"(?:\w+\.)?(?:{'|'.join(sorted(SENTENCES))}|{UNKNOWN})"
_SQL = re.compile(
    rf"{_COLUMN}\s+(?:NOT\s+)?(?:I?LIKE|SIMILAR\s+TO)\b|{_COLUMN}\s*!?~"
    rf"|(?:\b(?:WHERE|AND|OR|WHEN|NOT|ON)|\()\s*{_COLUMN}\s*(?:=|<>|!=|IN\b)"
)
_METHODS = {
    "startswith",
    "endswith",
    "find",
    "index",
    "count",
    "removeprefix",
    "match",
    "search",
    "fullmatch",
}


def decisions(tree: ast.Module) -> Iterator[str]:
    """Each place in the module where a sentence is searched or compared."""
    yield from (found[0] for text in texts(tree) for found in _SQL.finditer(text))
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef | ast.Module):
            names = {
                target.id
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign) and _holds_sentence(node.value, set())
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            yield from (ast.unparse(node) for node in ast.walk(scope) if _decides(node, names))


def _decides(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        looks = any(isinstance(op, ast.In | ast.NotIn | ast.Eq | ast.NotEq) for op in node.ops)
        return looks and any(_holds_sentence(side, names) for side in sides)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
        return any(_holds_sentence(part, names) for part in (node.func.value, *node.args))
    return False


def _holds_sentence(node: ast.expr, names: set[str]) -> bool:
    """Whether the expression is a sentence, whatever its case or its default."""
    match node:
        case ast.Attribute(_, attribute):
            return attribute in SENTENCES
        case ast.Name(name):
            return name in names
        case ast.BoolOp(_, values):
            return any(_holds_sentence(value, names) for value in values)
        case ast.Call(ast.Name("str" | "plain"), [value]):
            return _holds_sentence(value, names)
        case ast.Call(ast.Attribute(value, "lower" | "upper" | "strip" | "casefold"), _):
            return _holds_sentence(value, names)
    return False


_STATEMENT = re.compile(
    r"\b(?:UPDATE|INSERT\s+INTO)\s+provisioner\.(?:jobs|job_agents|roster_intents)\b(.*?)"
    r"(?=\b(?:UPDATE|INSERT\s+INTO)\s+provisioner\.|\Z)",
    re.DOTALL,
)
_ASSIGNS = re.compile(r"(?<![\w.])(?:reason|error)\s*=(?!\s*NULL\b)")
_INSERTS = re.compile(r"^\s*(?:AS\s+\w+\s*)?\([^)]*\b(?:reason|error)\b[^)]*\)")


def uncoded(tree: ast.Module) -> Iterator[str]:
    """Each place in the module where a sentence is written without its code."""
    for text in texts(tree):
        for found in _STATEMENT.finditer(text):
            if (_ASSIGNS.search(found[1]) or _INSERTS.search(found[1])) and "reason_code" not in found[1]:
                yield found[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _passes_sentence(node) and not _passes(node, "code", "reason_code"):
            yield ast.unparse(node)


def _passes_sentence(call: ast.Call) -> bool:
    """Whether the call hands the store a sentence; where a code is required besides, mypy says so."""
    match getattr(call.func, "attr", None) or getattr(call.func, "id", None):
        case "park":
            return True
        case "park_job" | "finish":
            return _passes(call, "reason")
        case "Snooze":  # of a row that is not parked yet
            return len(call.args) > 1 or _passes(call, "wait_s")
    return False


def _passes(call: ast.Call, *names: str) -> bool:
    return bool({keyword.arg for keyword in call.keywords} & {*names, None})


def test_no_sentence_is_written_without_its_code() -> None:
    product = modules(but="models/migrations/")
    statements = [text for tree in product.values() for text in texts(tree) if _STATEMENT.search(text)]
    assert len(statements) > 40
    found = {name: sorted(set(uncoded(tree))) for name, tree in product.items()}
    assert {name: places for name, places in found.items() if places} == {}


@pytest.mark.parametrize(
    "planted",
    [
        'SQL = "UPDATE provisioner.roster_intents SET error = :reason WHERE job_id = :id"',
        "SQL = \"UPDATE provisioner.job_agents r SET status = 'failed', reason = i.error FROM x i\"",
        'SQL = "INSERT INTO provisioner.job_agents (job_id, status, reason) SELECT 1, 2, 3"',
        'SQL = "UPDATE provisioner.jobs SET reason_code = 1; UPDATE provisioner.jobs SET error = :error"',
        'park(connection, held, 5.0, "later", "roster")',
        'park_job(connection, held, 5.0, reason="later")',
        'finish(connection, held, "failed", reason=str(error), warnings=[])',
        'Snooze("later", 5.0)',
    ],
)
def test_a_planted_sentence_without_a_code_is_found(planted: str) -> None:
    assert list(uncoded(ast.parse(planted)))


@pytest.mark.parametrize(
    "planted",
    [
        'SQL = "UPDATE provisioner.job_agents SET reason = NULL, wake = NULL"',
        'SQL = "UPDATE provisioner.jobs SET error = :error, reason_code = :code"',
        'SQL = "UPDATE provisioner.roster_intents SET applied_at = now() WHERE r.error = 1"',
        "park(connection, held, 5.0, wait, code=code)",
        'park_job(connection, held, 5.0, "agents")',
        'finish(connection, held, "succeeded", warnings=[])',
        "Snooze(waiting)",
    ],
)
def test_what_writes_no_sentence_needs_no_code(planted: str) -> None:
    assert list(uncoded(ast.parse(planted))) == []


def test_no_program_decides_by_a_sentence() -> None:
    product = modules(but="models/migrations/")
    found = {name: sorted(set(decisions(tree))) for name, tree in product.items()}
    assert {name for name in MAY if not found[name]} == set()
    assert {name: places for name, places in found.items() if places and name not in MAY} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "text(\"SELECT 1 FROM provisioner.job_agents r WHERE r.reason LIKE 'waiting%'\")",
        "SQL = \"SELECT CASE WHEN error ILIKE '%gateway%' THEN 1 END\"",
        "SQL = \"SELECT 1 FROM jobs WHERE j.error = 'Cancelled on request.'\"",
        'SQL = "SELECT 1 FROM jobs WHERE (wait_reason ~ :pattern)"',
        'found = "rotate_tokens" in (job.error or "")',
        'found = "rotate_tokens" not in agent.reason',
        'def f(job):\n    error = job.error or ""\n    return error.startswith("The SOUL.md override")',
        "def f(row):\n    return row.reason == CANCELLED",
        'def f(row):\n    return "gateway" in row.reason.lower()',
        'def f(row):\n    return re.match("Given up", row.error)',
    ],
)
def test_a_planted_decision_is_found(planted: str) -> None:
    assert list(decisions(ast.parse(planted)))


@pytest.mark.parametrize(
    "planted",
    [
        "def f(wish):\n    return wish.error is not None",
        'def f(job):\n    return (job.error or "").split("\\n")[0]',
        "def f(job):\n    return job.reason_code == ReasonCode.CANCELLED",
        "SQL = \"UPDATE provisioner.job_agents SET published_at = NULL, reason = 'waiting'\"",
        'SQL = "SELECT 1 FROM roster_intents WHERE applied_at IS NULL AND error IS NULL"',
    ],
)
def test_what_only_shows_a_sentence_is_no_decision(planted: str) -> None:
    assert list(decisions(ast.parse(planted))) == []
