"""Alembic's entry: runs the migrations over the connection that models.migrate hands in."""

from __future__ import annotations

from typing import Any

from alembic import context

from models import Provisioner
from models.schemas import PROVISIONER_SCHEMA


def _ours_only(name: str | None, kind: str, parents: Any) -> bool:
    return name == PROVISIONER_SCHEMA if kind == "schema" else True


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Provisioner.metadata,
    version_table_schema=PROVISIONER_SCHEMA,
    include_schemas=True,
    include_name=_ours_only,
)
with context.begin_transaction():
    context.run_migrations()
