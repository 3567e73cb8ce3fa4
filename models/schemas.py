"""Bases of Mission Control's tables, which we map and never alter, and of our own (decisions.md D10)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import JSON, DateTime, MetaData, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

PROVISIONER_SCHEMA = "provisioner"

UuidKey = Annotated[UUID, mapped_column(Uuid, primary_key=True)]
Utc = Annotated[datetime, mapped_column(DateTime(timezone=False))]
"""Mission Control's timestamps: UTC, stored without a time zone."""
Moment = Annotated[datetime, mapped_column(DateTime(timezone=True))]
"""Our timestamps: timestamptz, always from Postgres's clock."""
PlainJson = Annotated[Any, mapped_column(JSON(none_as_null=True))]
BinaryJson = Annotated[Any, mapped_column(JSONB(none_as_null=True))]

_NAMES = {
    "pk": "%(table_name)s_pkey",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
}


class MissionControl(DeclarativeBase):
    """Base of Mission Control's tables. Only the columns in interfaces.md 6 are mapped; the tables may have
    more."""

    metadata = MetaData(naming_convention=_NAMES)
    type_annotation_map = {str: Text()}


class Provisioner(DeclarativeBase):
    """Base of our tables. They are in the schema ``provisioner``, and no foreign key points out of it."""

    metadata = MetaData(schema=PROVISIONER_SCHEMA, naming_convention=_NAMES)
    type_annotation_map = {str: Text()}


class MixedDatabaseError(Exception):
    """Some of Mission Control's tables exist and others do not."""
