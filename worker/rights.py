"""The minimum rights that a database role needs: one list for the worker's start, doctor and the docs.

The rights that every job needs are checked before anything is touched: when a worker starts, and before it
resumes after the database said "not now". Rights that one kind of job alone needs are checked by that kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from worker.database_errors import DatabaseNotNow, Meaning
from worker.errors import PermanentError
from worker.jobs.kinds import KINDS

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")
WORKER: Mapping[str, Sequence[str]] = {
    "provisioner.alembic_version": ("SELECT",),
    "provisioner.jobs": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.job_agents": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.roster_intents": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.gateway_states": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.agent_drift": _ALL,
    "provisioner.agent_files": _ALL,
    "provisioner.agent_settings": ("SELECT", "INSERT", "DELETE"),
    "provisioner.entry_changes": ("SELECT", "INSERT"),
    "provisioner.agent_bundles": ("SELECT", "INSERT", "DELETE"),
    "provisioner.file_changes": ("SELECT", "INSERT"),
    "provisioner.file_owners": ("SELECT",),
    "provisioner.file_texts": ("SELECT", "INSERT"),
    "provisioner.held_fields": _ALL,
    "provisioner.held_files": _ALL,
    "provisioner.roll_outs": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.roll_out_agents": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.roster_fields": _ALL,
    "provisioner.agent_credentials": _ALL,
    "provisioner.agent_places": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.sync_schedules": ("SELECT", "UPDATE"),
    "provisioner.sync_windows": ("SELECT",),
    "provisioner.upkeep": ("SELECT", "INSERT", "UPDATE"),
    "provisioner.workers": _ALL,
    **dict.fromkeys(
        (
            "provisioner.template_versions",
            "provisioner.template_promotions",
            "provisioner.template_pins",
            "provisioner.override_forms",
        ),
        ("SELECT",),
    ),
    "provisioner.webhooks": ("SELECT", "UPDATE"),
    "provisioner.webhook_deliveries": ("SELECT", "INSERT", "UPDATE"),
    "users": ("SELECT",),
    "organization_members": ("SELECT",),
    "gateways": ("SELECT",),
    "boards": ("SELECT",),
    "board_memory": ("SELECT",),
    "agents": ("SELECT", "UPDATE"),
}
"""Rights that a worker needs for every job; without them it waits."""
KIND_RIGHTS: Mapping[str, tuple[str, str]] = {
    kind.name: kind.right for kind in KINDS.values() if kind.right is not None
}
"""Rights that one kind of job needs in addition; without them that kind is refused, and others are served."""
PRUNING: Mapping[str, Sequence[str]] = {
    **dict.fromkeys(
        (
            "provisioner.jobs",
            "provisioner.job_agents",
            "provisioner.roster_intents",
            "provisioner.file_texts",
            "provisioner.file_changes",
            "provisioner.entry_changes",
            "provisioner.template_versions",
            "provisioner.template_promotions",
            "provisioner.template_pins",
            "provisioner.override_forms",
        ),
        ("DELETE",),
    ),
    "organizations": ("SELECT",),
}
"""Rights that deleting what is old needs in addition; a worker without them deletes nothing, and serves
jobs."""
SENDER: Mapping[str, Sequence[str]] = {"provisioner.jobs": ("SELECT", "INSERT")}
"""Rights of a service that requests jobs by inserting rows."""
READER: Mapping[str, Sequence[str]] = {
    **{table: ("SELECT",) for table in WORKER if table.startswith("provisioner.")},
    **dict.fromkeys(("gateways", "boards", "agents"), ("SELECT",)),
}
"""Rights for `provisioner jobs`, `job` and `metrics`."""


class MissingRight(NamedTuple):
    """A missing right; if ``right`` is None, the table itself is missing."""

    table: str
    right: str | None


def missing_rights(connection: Connection, wanted: Mapping[str, Sequence[str]]) -> list[MissingRight]:
    """The rights of ``wanted`` that the connection's role lacks.

    A right on some of a table's columns is enough, except for DELETE: which columns are needed may change
    with Mission Control's version. Raises database errors.
    """
    pairs = [(table, right) for table, rights in wanted.items() for right in rights]
    parameters = {"tables": [table for table, _ in pairs], "rights": [right for _, right in pairs]}
    rows = connection.execute(_LOOK, parameters)
    return list(dict.fromkeys(MissingRight(row.name, row.wanted if row.there else None) for row in rows))


def sentence(connection: Connection, lacks: Sequence[MissingRight]) -> str:
    """A sentence that names what is missing, and the statements that grant it."""
    gone = [lack.table for lack in lacks if lack.right is None]
    denied = [lack for lack in lacks if lack.right is not None]
    parts = []
    if gone:
        parts.append(
            f"there is no table {', '.join(gone)}: run `provisioner migrate`, and check DATABASE_URL"
        )
    if denied:
        role = connection.execute(text("SELECT current_user")).scalar_one()
        rights: dict[str, list[str]] = {}
        for lack in denied:
            rights.setdefault(lack.table, []).append(str(lack.right))
        wants = "; ".join(f"GRANT {', '.join(names)} ON {table} TO {role}" for table, names in rights.items())
        named = ", ".join(f"{right} on {table}" for table, names in rights.items() for right in names)
        parts.append(f"the role {role} lacks {named}: {wants}")
    return "; ".join(parts)


def require_all(connection: Connection) -> None:
    """Raise DatabaseNotNow if the role lacks a right that every worker needs."""
    _refuse(connection, missing_rights(connection, WORKER))


def require_for(connection: Connection, kind: str) -> None:
    """Raise DatabaseNotNow if the role lacks a right that every worker needs, and PermanentError if it lacks
    the one that this kind of job needs in addition."""
    table, right = KIND_RIGHTS[kind]
    lacks = missing_rights(connection, {**WORKER, table: (*WORKER[table], right)})
    _refuse(connection, [lack for lack in lacks if lack != MissingRight(table, right)])
    if lacks:
        lacking = sentence(connection, lacks)
        raise PermanentError(f"{kind} cannot be served here, and nothing was touched: {lacking}.")


def may_hide_rows(connection: Connection, *tables: str) -> bool:
    """Whether row-level security may hide rows of one of the tables from the role, so that what is not found
    may be there."""
    active = text(
        "SELECT bool_or(row_security_active(to_regclass(name))) FROM unnest(CAST(:tables AS text[])) AS name"
    )
    return bool(connection.execute(active, {"tables": list(tables)}).scalar_one())


def require_all_rows(connection: Connection, table: str) -> None:
    """Raise PermanentError if row-level security may hide rows of ``table`` from the role, because a row that
    was not found may then exist."""
    if may_hide_rows(connection, table):
        role = connection.execute(text("SELECT current_user")).scalar_one()
        raise PermanentError(
            f"No such row of {table} is visible to the role {role}, but row-level security may hide it, so"
            f" nothing was touched: ALTER ROLE {role} BYPASSRLS."
        )


def _refuse(connection: Connection, lacks: Sequence[MissingRight]) -> None:
    if lacks:
        raise DatabaseNotNow(_INCOMPLETE, PermissionError(sentence(connection, lacks)))


_INCOMPLETE = Meaning("rights or tables are missing", "docs/operations.md lists what a worker needs")
_LOOK = text("""
    SELECT name, wanted, there FROM (
        SELECT name, wanted, to_regclass(name) IS NOT NULL AS there, CASE
            WHEN to_regclass(name) IS NULL THEN false
            WHEN wanted = 'DELETE' THEN has_table_privilege(to_regclass(name), wanted)
            ELSE has_table_privilege(to_regclass(name), wanted)
                OR has_any_column_privilege(to_regclass(name), wanted) END AS granted
        FROM unnest(CAST(:tables AS text[]), CAST(:rights AS text[])) AS asked (name, wanted)
    ) looked
    WHERE NOT granted
""")
