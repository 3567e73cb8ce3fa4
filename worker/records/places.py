"""Decides and records where an agent lives, should live, and has lived; no other module does.

A place is a row of ``agent_places``: a gateway, the agent's OpenClaw id there, and its folder. It is written
before the agent's roster entry and files, so that even after a crash every agent on a gateway has a place. It
is live until the agent was seen to be gone from it, and then closed. An OpenClaw id is derived from UUIDs
unless the agent has a live place with an id that was not, or one that was adopted (rules.md 48).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from worker.gateway.agent_ids import IMPLICIT_AGENT
from worker.workspace.display_text import one_line
from worker.workspace.identity import derived_id, derived_workspace_path, openclaw_id, session_key_of


@dataclass(frozen=True)
class Belonging:
    """The columns of ``agents`` that say where an agent belongs."""

    id: UUID | str
    board_id: UUID | str | None
    is_board_lead: bool
    gateway_id: UUID


@dataclass(frozen=True)
class Place:
    """Where an agent lives: a gateway, and the agent's id, session key and folder on it.

    ``workspace``: the folder as we configured it, None if the gateway has no workspace_root;
    ``resolved_workspace``: that folder as the gateway reports it; ``adopted``: the agent was found there, so
    nothing of it is derived (rules.md 48); ``recorded``: these values come from a row of ``agent_places``.
    """

    gateway_id: UUID
    openclaw_id: str
    session_key: str
    workspace: str | None
    resolved_workspace: str | None = None
    adopted: bool = False
    recorded: bool = True

    @property
    def may_be_removed(self) -> bool:
        """Whether the agent may be removed from there. The gateway's own agent, ``main``, never is."""
        return self.openclaw_id != IMPLICIT_AGENT

    def is_at(self, gateway_id: UUID, openclaw_id: str) -> bool:
        """Whether this place is on that gateway under that id."""
        return (self.gateway_id, self.openclaw_id) == (gateway_id, openclaw_id)


LIVE_PLACES = """(
    SELECT jsonb_agg(jsonb_build_array(p.gateway_id, p.openclaw_id, p.session_key, p.workspace,
                                       p.resolved_workspace, p.adopted) ORDER BY p.id)
    FROM provisioner.agent_places p JOIN gateways pg ON pg.id = p.gateway_id
    WHERE p.agent_id = a.id AND p.until IS NULL
)"""
"""SQL: the live places of the row ``a`` of ``agents`` on gateways that still exist; read by `places_of`."""


def places_of(selected: Any) -> tuple[Place, ...]:
    """The places in a value that ``LIVE_PLACES`` has selected."""
    return tuple(Place(UUID(gateway_id), *rest) for gateway_id, *rest in selected or ())


def home_of(agent: Belonging | Row[Any], workspace_root: str, places: Sequence[Place]) -> Place:
    """Decide from the agent's row and its live places where the agent should live.

    An OpenClaw id that was adopted, or not derived from UUIDs, is kept as long as the agent stays on the
    gateway. A derived one follows the agent's role and gateway: a member that becomes its board's lead gets
    another id, and so another home.
    """
    key = session_key_of(agent.id, agent.board_id, agent.is_board_lead, agent.gateway_id)
    made = openclaw_id(key)
    here = [place for place in places if place.gateway_id == agent.gateway_id]
    adopted = next((place for place in here if place.adopted), None)
    if adopted is not None:
        return adopted
    known = next((place for place in here if place.openclaw_id == made), None)
    chosen = next((place for place in here if derived_id(place.openclaw_id) is None), None)
    if known is None and chosen is not None:
        return chosen
    workspace = derived_workspace_path(workspace_root, made)
    if known is not None and (known.session_key, known.workspace) == (key, workspace):
        return known
    return Place(agent.gateway_id, made, key, workspace, recorded=False)


def owns_entry(agent: Belonging | Row[Any], home: Place) -> bool:
    """Whether the roster entry of an agent is ours to write: one that was adopted is its owner's, apart from
    fields that settings name, unless its id is derived from the agent's own row (rules.md 48)."""
    key = session_key_of(agent.id, agent.board_id, agent.is_board_lead, agent.gateway_id)
    return not home.adopted or home.openclaw_id == openclaw_id(key)


def made_place(gateway_id: UUID, openclaw_id: str, workspace_root: str) -> Place:
    """The place of an agent with this OpenClaw id, derived from a UUID; it need not be on record."""
    workspace = derived_workspace_path(workspace_root, openclaw_id)
    return Place(gateway_id, openclaw_id, f"agent:{openclaw_id}:main", workspace, recorded=False)


@dataclass(frozen=True)
class History:
    """All places of an agent on record, oldest first: ``live`` ones, and ``closed`` ones, from which it was
    seen to be gone. ``gateways``: those gateways of the places that still have a row."""

    live: tuple[Place, ...]
    closed: tuple[Place, ...]
    gateways: frozenset[UUID]


_HISTORY = text("""
    SELECT p.gateway_id, p.openclaw_id, p.session_key, p.workspace, p.resolved_workspace, p.adopted,
        p.until IS NULL AS live, g.id IS NOT NULL AS has_gateway
    FROM provisioner.agent_places p LEFT JOIN gateways g ON g.id = p.gateway_id
    WHERE p.agent_id = :agent_id ORDER BY p.id
""")


def history_of(connection: Connection, agent_id: UUID) -> History:
    """Read all places where an agent lives or has lived, even if it no longer has a row."""
    rows = connection.execute(_HISTORY, {"agent_id": agent_id}).all()
    places = [Place(*row[:6]) for row in rows]
    return History(
        tuple(place for place, row in zip(places, rows, strict=True) if row.live),
        tuple(place for place, row in zip(places, rows, strict=True) if not row.live),
        frozenset(row.gateway_id for row in rows if row.has_gateway),
    )


def former_places_of(home: Place, places: Sequence[Place]) -> tuple[Place, ...]:
    """Those of the agent's ``places`` that are not its ``home``; it has to be removed from them."""
    return tuple(
        place
        for place in places
        if place.may_be_removed and not place.is_at(home.gateway_id, home.openclaw_id)
    )


_CLAIM = text("""
    INSERT INTO provisioner.agent_places AS p (agent_id, gateway_id, openclaw_id, session_key, workspace)
    SELECT w.agent_id, :gateway_id, w.openclaw_id, w.session_key, w.workspace
    FROM unnest(CAST(:agents AS uuid[]), CAST(:ids AS text[]), CAST(:keys AS text[]),
                CAST(:workspaces AS text[])) AS w (agent_id, openclaw_id, session_key, workspace)
    ON CONFLICT (gateway_id, openclaw_id) WHERE until IS NULL DO UPDATE
    SET session_key = excluded.session_key, workspace = excluded.workspace,
        resolved_workspace = CASE WHEN p.workspace = excluded.workspace THEN p.resolved_workspace END
    WHERE p.agent_id = excluded.agent_id
    RETURNING p.agent_id
""")
_HOLDER = text("""
    SELECT h.id AS place_id, h.agent_id, h.adopted, a.id, a.name, a.status, a.board_id, a.is_board_lead,
        a.gateway_id
    FROM provisioner.agent_places h LEFT JOIN agents a ON a.id = h.agent_id
    WHERE h.gateway_id = :gateway_id AND h.openclaw_id = :openclaw_id AND h.until IS NULL
    FOR UPDATE OF h
""")
_CLOSE_ROW = text("UPDATE provisioner.agent_places SET until = now() WHERE id = :place_id")


def claim_places(connection: Connection, gateway_id: UUID, homes: Mapping[UUID, Place]) -> dict[UUID, str]:
    """Record that the agents live in their homes on one gateway, before they are written there.

    Returns a sentence for each agent whose OpenClaw id belongs to another agent. If several agents need one
    id, the agent whose place it already is gets it, else the first. An id passes to another agent if its
    holder was deleted, is being deleted, or now needs another id.
    """
    first: dict[str, UUID] = {}
    refused: dict[UUID, str] = {}
    for agent_id, home in sorted(homes.items(), key=lambda item: not item[1].recorded):
        if first.setdefault(home.openclaw_id, agent_id) != agent_id:
            refused[agent_id] = taken(home.openclaw_id, f"agent {first[home.openclaw_id]}")
    wanted = {agent: home for agent, home in homes.items() if agent not in refused and not home.recorded}
    if not wanted:
        return refused
    for agent_id in wanted.keys() - _claim(connection, gateway_id, wanted):
        home = wanted[agent_id]
        holder = connection.execute(
            _HOLDER, {"gateway_id": gateway_id, "openclaw_id": home.openclaw_id}
        ).one_or_none()
        if holder is not None and holder.agent_id != agent_id:
            if keeps(holder, gateway_id, home.openclaw_id, adopted=holder.adopted):
                refused[agent_id] = taken(home.openclaw_id, f"agent {one_line(holder.name)!r} ({holder.id})")
                continue
            connection.execute(_CLOSE_ROW, {"place_id": holder.place_id})
        _claim(connection, gateway_id, {agent_id: home})
    return refused


def _claim(connection: Connection, gateway_id: UUID, homes: Mapping[UUID, Place]) -> set[UUID]:
    parameters = {
        "gateway_id": gateway_id,
        "agents": list(homes),
        "ids": [home.openclaw_id for home in homes.values()],
        "keys": [home.session_key for home in homes.values()],
        "workspaces": [home.workspace for home in homes.values()],
    }
    return {row.agent_id for row in connection.execute(_CLAIM, parameters)}


def keeps(row: Any, gateway_id: UUID, openclaw_id: str, *, adopted: bool = False) -> bool:
    """Whether the agent of ``row`` keeps an OpenClaw id on a gateway. It does not if it is being deleted, or
    if its row is gone, so that all columns of ``row`` are null. ``adopted``: it was found under that id."""
    if row.id is None or row.status == "deleting" or row.gateway_id != gateway_id:
        return False
    return adopted or derived_id(openclaw_id) is None or home_of(row, "", ()).openclaw_id == openclaw_id


_EARLIER = text(r"""
    INSERT INTO provisioner.agent_places (agent_id, gateway_id, openclaw_id, session_key)
    SELECT id, :gateway_id, 'mc-' || id, 'agent:mc-' || id || '\:main'
    FROM unnest(CAST(:agents AS uuid[])) AS lead (id)
    ON CONFLICT DO NOTHING
""")


def note_earlier_homes(
    connection: Connection, gateway_id: UUID, homes: Mapping[UUID, Place], present: frozenset[str]
) -> None:
    """Record places for board leads that are still on the gateway under the id that they had as members.

    Another program may have put them there without a record. ``present``: the ids in the roster.
    """
    agents = [
        agent
        for agent, home in homes.items()
        if f"mc-{agent}" in present and home.openclaw_id != f"mc-{agent}" and not home.adopted
    ]
    if agents:
        connection.execute(_EARLIER, {"gateway_id": gateway_id, "agents": agents})


_RESOLVED = text("""
    UPDATE provisioner.agent_places SET resolved_workspace = :resolved
    WHERE agent_id = :agent_id AND gateway_id = :gateway_id AND openclaw_id = :openclaw_id AND until IS NULL
""")


def note_resolved(connection: Connection, agent_id: UUID, home: Place, resolved: str) -> None:
    """Record the agent's folder as the gateway shows it."""
    values = {"agent_id": agent_id, "gateway_id": home.gateway_id, "openclaw_id": home.openclaw_id}
    connection.execute(_RESOLVED, {**values, "resolved": resolved})


def taken(openclaw_id: str, owner: str) -> str:
    """The sentence that says why an agent cannot have an id, and how to cure it."""
    made = derived_id(openclaw_id)
    cure = {
        "lead": "a board has one lead, so clear is_board_lead of one of them, or delete it",
        "mc-gateway": "a gateway has one main agent, so delete one of them",
    }.get(made.role if made else "", "delete one of them")
    return f"Its OpenClaw id {openclaw_id} belongs to {owner} on this gateway: {cure}."


_CLOSE = text("""
    UPDATE provisioner.agent_places p SET until = now()
    FROM unnest(CAST(:agents AS uuid[]), CAST(:ids AS text[])) AS gone (agent_id, openclaw_id)
    WHERE p.gateway_id = :gateway_id AND p.until IS NULL
      AND p.agent_id = gone.agent_id AND p.openclaw_id = gone.openclaw_id
""")


def close_places(connection: Connection, gateway_id: UUID, gone: Sequence[tuple[UUID, str]]) -> None:
    """Record that agents are gone from a gateway, each given with the OpenClaw id that it had there."""
    if gone:
        agents, ids = zip(*gone, strict=True)
        connection.execute(_CLOSE, {"gateway_id": gateway_id, "agents": list(agents), "ids": list(ids)})
