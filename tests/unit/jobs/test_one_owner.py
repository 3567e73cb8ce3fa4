"""Jobs have one owner: only worker/jobs/store writes ``jobs`` and ``job_agents`` (decisions.md D5)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

import pytest

from tests.product import ROOT, modules

STORE = "worker/jobs/store/"
MIGRATIONS = "models/migrations/"
TABLES = {"Job": "jobs", "JobAgent": "job_agents"}
WRITERS = {"insert", "update", "delete", "merge", "bulk_insert_mappings", "bulk_update_mappings", "add"}
"""The functions and methods of SQLAlchemy that write a table, or a row of a model."""

UNKNOWN = "<unknown>"
_VERBS = r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE(?:\s+TABLE)?|COPY)\s+(?:ONLY\s+)?"
_SCHEMA = r'(?:"?provisioner"?\s*\.\s*)?'
_WRITE = re.compile(rf'{_VERBS}{_SCHEMA}"?(job_agents|jobs)\b', re.IGNORECASE)
_WRITE_OF_UNKNOWN = re.compile(rf"{_VERBS}{_SCHEMA}(?:{UNKNOWN}|[{{%])")
"""In capitals, as all our SQL is: a sentence may say that something is to update."""

SCHEDULING = re.compile(r"\b(?:lease_until|published_at|next_attempt_at)\b")
MAY_NAME_SCHEDULING = (STORE, "models/", "worker/cli/job_summary.py", "worker/cli/metric_queries.py")
"""Beside the store: models declare the columns, and the CLI shows and counts what they say of a row. They
only name them; what a worker does because of them is the store's business."""


def texts(tree: ast.Module) -> Iterator[str]:
    """Every string that the module makes, put together as far as it is written out; docstrings aside."""
    constants = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and id(node) not in prose:
            text = written(node, constants)
            if text is not None:
                yield text


def written(node: ast.expr, constants: Mapping[str, ast.expr]) -> str | None:
    """The text of an expression, None where it is none; UNKNOWN stands for what is put in at run time."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(written(part, constants) or UNKNOWN for part in parts)
        case ast.FormattedValue(value):
            return written(value, constants)
        case ast.Name(name) if name in constants:
            others = {key: value for key, value in constants.items() if key != name}
            return written(constants[name], others)
        case ast.BinOp(left, ast.Add(), right):
            both = [written(part, constants) for part in (left, right)]
            return None if both == [None, None] else "".join(part or UNKNOWN for part in both)
    return None


def written_tables(tree: ast.Module) -> set[str]:
    """The tables of jobs that the module writes, by SQL or by a construct of SQLAlchemy; UNKNOWN for a
    statement whose table is put in at run time."""
    found = {match[1].lower() for text in texts(tree) for match in _WRITE.finditer(text)}
    found |= {UNKNOWN for text in texts(tree) if _WRITE_OF_UNKNOWN.search(text)}
    aliases = {
        alias.asname or alias.name: TABLES[alias.name]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in TABLES
    }

    def table_of(node: ast.AST) -> str | None:
        """The table that an expression names: a model, its ``__table__``, a row of it."""
        for part in ast.walk(node):
            name = part.attr if isinstance(part, ast.Attribute) else getattr(part, "id", None)
            if name in aliases or name in TABLES:
                return aliases.get(str(name)) or TABLES[str(name)]
        return None

    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        if called in WRITERS or (called or "").endswith(("_insert", "_update", "_delete")):
            table = next(filter(None, map(table_of, (node.func, *node.args))), None)
            found |= {table} if table else set()
    return found


def test_only_the_store_writes_jobs_and_their_rows() -> None:
    product = modules(but=MIGRATIONS)
    assert len(product) > 150
    written_by = {name: written_tables(tree) for name, tree in product.items()}
    assert {table for name, tables in written_by.items() if name.startswith(STORE) for table in tables} == {
        "jobs",
        "job_agents",
    }
    offenders = {n: tables for n, tables in written_by.items() if tables and not n.startswith(STORE)}
    assert offenders == {}


def test_only_the_store_gives_meaning_to_leases_and_due_times() -> None:
    named = {
        name
        for name in modules(but=MIGRATIONS)
        if SCHEDULING.search((ROOT / name).read_text(encoding="utf-8"))
    }
    assert any(name.startswith(STORE) for name in named)
    assert {name for name in named if not name.startswith(MAY_NAME_SCHEDULING)} == set()


def test_jobs_import_nothing_of_those_who_use_them() -> None:
    rooms = (
        "sync",
        "agents",
        "roster",
        "records",
        "runtime",
        "gateway",
        "workspace",
        "webhooks",
        "cli",
        "app",
    )
    above = (*(f"worker.{room}" for room in rooms), "tasks")
    imported = {
        (name, node.module)
        for name, tree in modules(but=MIGRATIONS).items()
        if name.startswith("worker/jobs/")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert ("worker/jobs/intake.py", "worker.jobs.kinds") in imported
    assert {pair for pair in imported if pair[1].startswith(above)} == set()


@pytest.mark.parametrize(
    ("planted", "table"),
    [
        ("text(\"UPDATE provisioner.jobs SET status = 'failed'\")", "jobs"),
        ('SQL = "delete  from\\n provisioner.job_agents where job_id = :id"', "job_agents"),
        ('SQL = "INSERT INTO job_agents (job_id) VALUES (:id)"', "job_agents"),
        (
            'SQL = "WITH a AS (UPDATE provisioner.job_agents r SET x = 1 RETURNING 1) SELECT * FROM a"',
            "job_agents",
        ),
        ('SQL = \'UPDATE ONLY "provisioner"."jobs" j SET x = 1\'', "jobs"),
        ('SQL = "TRUNCATE TABLE provisioner.jobs"', "jobs"),
        ('SQL = f"UPDATE provisioner.{name} SET x = 1"', UNKNOWN),
        ('SQL = "UPDATE provisioner.%s SET x = 1" % name', UNKNOWN),
        ('SQL = "DELETE FROM {table}".format(table=name)', UNKNOWN),
        ('TABLE = "provisioner.jobs"\nSQL = f"UPDATE {TABLE} SET x = 1"', "jobs"),
        ('TABLE = "provisioner.jobs"\nSQL = "UPDATE " + TABLE + " SET x = 1"', "jobs"),
        ("from models import Job\nupdate(Job).where(Job.id == 1)", "jobs"),
        ("import models\ninsert(models.JobAgent).values(x=1)", "job_agents"),
        ("from models.jobs import Job as Row\npg_insert(Row)", "jobs"),
        ("from models import JobAgent\nJobAgent.__table__.delete()", "job_agents"),
        ("from models import Job\nsession.add(Job(id=1))", "jobs"),
    ],
)
def test_a_planted_stray_is_found(planted: str, table: str) -> None:
    assert table in written_tables(ast.parse(planted))


@pytest.mark.parametrize(
    "planted",
    [
        'SQL = "SELECT id FROM provisioner.jobs WHERE id = :id FOR UPDATE"',
        'SQL = "GRANT SELECT, INSERT, UPDATE ON provisioner.jobs TO worker"',
        'SQL = "UPDATE provisioner.roster_intents SET error = :reason"',
        'SQL = "INSERT INTO jobs_archive SELECT * FROM provisioner.jobs"',
        "from models import Job\nselect(Job).where(Job.id == 1)",
        'def f():\n    """UPDATE provisioner.jobs is what the store does."""',
    ],
)
def test_what_only_reads_is_no_stray(planted: str) -> None:
    assert written_tables(ast.parse(planted)) == set()
