"""Whose setting a command is about: a gateway's, a board's or an agent's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import Connection, text

from worker.cli.console import argument, plain
from worker.cli.errors import WrongUseError
from worker.cli.lookup import Noun, find
from worker.records.agent_settings import Scope

Gateway = Annotated[
    str | None,
    typer.Option("--gateway", metavar="GATEWAY", help="All agents of a gateway.", show_default=False),
]
Board = Annotated[
    str | None, typer.Option("--board", metavar="BOARD", help="All agents of a board.", show_default=False)
]
Agent = Annotated[str | None, typer.Option("--agent", metavar="AGENT", help="One agent.", show_default=False)]


@dataclass(frozen=True)
class Target:
    """Whose setting it is: ``given`` is how the operator named it."""

    scope: Scope
    id: UUID
    given: str

    @property
    def named(self) -> str:
        """``board Launch``."""
        return f"{self.scope} {plain(self.given)}"

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"scope": self.scope, "target_id": self.id}


def find_target(
    connection: Connection, gateway: str | None, board: str | None, agent: str | None, *, gone: bool = False
) -> Target:
    """The one target that was named. ``gone``: the full id of one whose row is gone is enough."""
    given: Sequence[tuple[Scope, str | None]] = [("gateway", gateway), ("board", board), ("agent", agent)]
    named_ones = [(scope, name) for scope, name in given if name is not None]
    if len(named_ones) != 1:
        raise WrongUseError("Name one of --gateway, --board and --agent.")
    scope, name = named_ones[0]
    return Target(scope, find_id(connection, scope, name, gone=gone), name)


def find_id(connection: Connection, noun: Noun, name: str, *, gone: bool) -> UUID:
    """The id of what was named. ``gone``: the full id of one whose row is gone is enough. Raises
    WrongUseError."""
    try:
        return find(connection, noun, name)
    except WrongUseError:
        if not gone:
            raise
        try:
            return UUID(name)
        except ValueError:
            pass
        raise


def apply_command(connection: Connection, target: Target) -> str:
    """The command that writes the setting."""
    if target.scope == "agent":
        return f"provisioner update {argument(target.given)}"
    if target.scope == "gateway":
        return f"provisioner sync {argument(target.given)}"
    gateway = connection.execute(_GATEWAY_OF, {"board_id": target.id}).scalar_one_or_none() or "GATEWAY"
    return f"provisioner sync {argument(gateway)} --board {argument(target.given)}"


_GATEWAY_OF = text(
    "SELECT g.name FROM boards b JOIN gateways g ON g.id = b.gateway_id WHERE b.id = :board_id"
)
