"""Finds the row that an operator means by a name, an id, or the beginning of an id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from models import Agent, AgentBundle, Board, Gateway, Job, Organization, SyncSchedule, SyncWindow, Webhook
from worker.cli.errors import WrongUseError
from worker.records.bundles import agents_of_bundles

Noun = Literal["gateway", "board", "agent"]

_MODELS: dict[Noun, type[Gateway] | type[Board] | type[Agent]] = {
    "gateway": Gateway,
    "board": Board,
    "agent": Agent,
}
_PREFIX = re.compile(r"[0-9a-f]{4,}[0-9a-f-]*", re.IGNORECASE)
_SHOWN = 5


@dataclass(frozen=True)
class FoundWebhook:
    """The webhook that an operator means."""

    id: UUID
    name: str
    url: str


def find(connection: Connection, noun: Noun, given: str) -> UUID:
    """The id of the one gateway, board or agent that ``given`` names.

    Names are compared exactly, then ignoring case. Raises WrongUseError if none or several match.
    """
    model = _MODELS[noun]
    ways: list[ColumnElement[bool]] = [model.name == given, func.lower(model.name) == given.lower()]
    by_id = _id_between(model.id, given)
    if by_id is not None:
        ways.insert(0, by_id)
    for way in ways:
        ids = connection.execute(select(model.id).where(way).limit(_SHOWN + 1)).scalars().all()
        if len(ids) == 1:
            return ids[0]
        if ids:
            raise WrongUseError(_several(f"{noun}s are meant by {given!r}", ids))
    raise WrongUseError(f"There is no {noun} {given!r}: `provisioner {noun} list` shows those there are.")


def find_bundled_agent(connection: Connection, given: str, *, deleted: bool = False) -> UUID | None:
    """The id of the one agent with a bundle that is meant; None if there is none.

    One that has no row is meant first; with ``deleted`` no other. Raises WrongUseError.
    """
    found = agents_of_bundles(connection, given)
    gone = [row for row in found if not row.has_row]
    ids = list(dict.fromkeys(row.agent_id for row in (gone if gone or deleted else found)))
    if len(ids) > 1:
        raise WrongUseError(_several(f"agents with a bundle are meant by {given!r}", ids))
    return ids[0] if ids else None


def find_bundle_id(connection: Connection, given: str) -> UUID:
    """The id of the one bundle whose id begins with ``given``. Raises WrongUseError."""
    listing = "`provisioner bundles` lists those that are kept"
    return _one_id(connection, AgentBundle.id, "bundle", given, listing)


def _one_id(
    connection: Connection, column: InstrumentedAttribute[UUID], noun: str, given: str, listing: str
) -> UUID:
    """The one id that begins with ``given``. ``listing``: where to look them up, to complete a sentence."""
    by_id = _id_between(column, given)
    ids = [] if by_id is None else connection.execute(select(column).where(by_id)).scalars().all()
    if len(ids) != 1:
        problem = f"There is no {noun}" if not ids else f"Several {noun}s begin with"
        raise WrongUseError(f"{problem} {given!r}: {listing}.")
    return ids[0]


def find_job(connection: Connection, given: str) -> UUID:
    """The id of the one job whose id begins with ``given``. Raises WrongUseError."""
    by_id = _id_between(Job.id, given)
    if by_id is None:
        raise WrongUseError(f"{given!r} is not a job's id: `provisioner jobs` lists them.")
    return _one_job(connection, by_id, f"{given!r}")


def find_schedule(connection: Connection, given: str) -> UUID:
    """The id of the one schedule whose id begins with ``given``. Raises WrongUseError."""
    listing = "`provisioner schedule list` shows those there are"
    return _one_id(connection, SyncSchedule.id, "schedule", given, listing)


def find_window(connection: Connection, given: str) -> UUID:
    """The id of the one sync window whose id begins with ``given``. Raises WrongUseError."""
    listing = "`provisioner window list` shows those there are"
    return _one_id(connection, SyncWindow.id, "window", given, listing)


def find_organization(connection: Connection, given: str | None) -> UUID:
    """The id of the organization of that name or id; without one, of the only one there is. Raises
    WrongUseError."""
    rows = connection.execute(select(Organization.id, Organization.name).order_by(Organization.name)).all()
    found: list[UUID] = [row.id for row in rows if given in (None, row.name, str(row.id))]
    names = ", ".join(f"{row.name} ({row.id})" for row in rows[:_SHOWN]) or "none"
    if not found:
        raise WrongUseError(f"There is no organization {given or ''!r}: there are {names}.")
    if len(found) > 1:
        raise WrongUseError(f"Name an organization, with --organization NAME or ID: there are {names}.")
    return found[0]


def find_webhook(connection: Connection, given: str, organization: str | None) -> FoundWebhook:
    """The one webhook of that name, or whose id begins so; of an organization if one is given. Raises
    WrongUseError."""
    way = Webhook.name == given
    if (by_id := _id_between(Webhook.id, given)) is not None:
        way = or_(way, by_id)
    if organization is not None:
        way = and_(way, Webhook.organization_id == find_organization(connection, organization))
    rows = connection.execute(
        select(Webhook.id, Webhook.name, Webhook.url).where(way).limit(_SHOWN + 1)
    ).all()
    if not rows:
        raise WrongUseError(
            f"There is no webhook {given!r}: `provisioner webhook list` shows those there are."
        )
    if len(rows) > 1:
        raise WrongUseError(_several(f"webhooks are meant by {given!r}", [row.id for row in rows]))
    return FoundWebhook(*rows[0])


def find_job_of_request(connection: Connection, request_id: str) -> UUID:
    """The id of the one job with that request_id. Raises WrongUseError if there are none or several."""
    return _one_job(connection, Job.request_id == request_id, f"request {request_id!r}")


def _one_job(connection: Connection, way: ColumnElement[bool], what: str) -> UUID:
    rows = connection.execute(select(Job.id).where(way).limit(_SHOWN + 1)).scalars().all()
    if not rows:
        raise WrongUseError(f"There is no job for {what}: `provisioner jobs` lists those there are.")
    if len(rows) > 1:
        raise WrongUseError(_several(f"jobs are meant by {what}", rows))
    return rows[0]


def _id_between(column: InstrumentedAttribute[UUID], given: str) -> ColumnElement[bool] | None:
    """A condition for ids that begin with ``given``: a range, so that the primary key's index serves it."""
    if not _PREFIX.fullmatch(given):
        return None
    digits = given.replace("-", "")
    if len(digits) > 32:
        return None
    return column.between(UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))


def _several(what: str, ids: Sequence[UUID]) -> str:
    listed = "\n".join(f"  {key}" for key in ids[:_SHOWN])
    more = "\n  and more" if len(ids) > _SHOWN else ""
    return f"Several {what}; name one by its id:\n{listed}{more}"
