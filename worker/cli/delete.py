"""``provisioner delete``."""

from __future__ import annotations

import sys
from typing import Annotated
from uuid import UUID

import typer
from sqlalchemy import Connection, text

from worker.cli.ask import REQUESTED_BY, NoWait, RequestId, ask
from worker.cli.console import Json, note, plain
from worker.cli.environment import engine
from worker.cli.errors import FAILED, WrongUseError
from worker.cli.lookup import find
from worker.jobs.requests import DeleteAgent


def delete(
    agent: Annotated[str, typer.Argument(help="Name or id of an agent; the whole id if its row is gone.")],
    gateway: Annotated[
        str | None, typer.Option(help="Where it is, for an agent whose row is gone already.")
    ] = None,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave its workspace on disk.")] = False,
    keep_session: Annotated[bool, typer.Option("--keep-session", help="Leave its session.")] = False,
    keep_row: Annotated[bool, typer.Option("--keep-row", help="Leave its row in the database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    request: RequestId = None,
    no_wait: NoWait = False,
    as_json: Json = False,
) -> None:
    """Take an agent off its gateway and out of the database. What is gone already is no failure."""
    with engine().connect() as connection:
        agent_id = _agent(connection, agent)
        gateway_id = find(connection, "gateway", gateway) if gateway else None
        question = _question(connection, agent_id, files=not keep_files, row=not keep_row)
    if not yes and sys.stdin.isatty() and not typer.confirm(question, err=True):
        note("Nothing was done.")
        raise typer.Exit(FAILED)

    def make(_: Connection) -> DeleteAgent:
        return DeleteAgent(
            agent_id=agent_id,
            gateway_id=gateway_id,
            request_id=request,
            requested_by=REQUESTED_BY,
            delete_files=not keep_files,
            delete_session=not keep_session,
            delete_row=not keep_row,
        )

    ask(make, request=request, no_wait=no_wait, as_json=as_json)


def _agent(connection: Connection, given: str) -> UUID:
    """The agent meant; a whole UUID is taken as it is, for the agent may be left on a gateway alone."""
    try:
        return find(connection, "agent", given)
    except WrongUseError:
        try:
            return UUID(given)
        except ValueError:
            pass
        raise


_WHO = text("""
    SELECT a.name, g.name AS gateway FROM agents a LEFT JOIN gateways g ON g.id = a.gateway_id
    WHERE a.id = :agent_id
""")


def _question(connection: Connection, agent_id: UUID, *, files: bool, row: bool) -> str:
    """What is about to go, by name."""
    found = connection.execute(_WHO, {"agent_id": agent_id}).one_or_none()
    who = f"agent {found.name!r} from gateway {found.gateway!r}" if found else f"agent {agent_id}"
    goes = [name for name, wanted in (("its workspace", files), ("its row", row)) if wanted]
    with_it = f", with {' and '.join(goes)}" if goes else ""
    return plain(f"Delete {who}{with_it}?")
