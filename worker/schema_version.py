"""The revision of our tables: the one that this version needs, and the one that a database stands at.

Alembic knows both as well; importing it, and all tables with it, is a fifth of a worker's start.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

NEEDED_REVISION = "0013"
"""The newest in models/migrations; a test holds it against them. Numbered with zeros in front, so that the
later one is the greater text."""

_TABLE = "provisioner.alembic_version"


def revision_of(connection: Connection) -> str | None:
    """The revision that the database stands at, or None before the first migration."""
    if connection.execute(text("SELECT to_regclass(:table)"), {"table": _TABLE}).scalar_one() is None:
        return None
    revision: str | None = connection.execute(text(f"SELECT version_num FROM {_TABLE}")).scalar_one_or_none()
    return revision
