"""Decides from our rows whether an agent on a gateway may be adopted, and as which agent (rules.md 48)."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count
from uuid import UUID, uuid5

from sqlalchemy import Connection, Row, text

from worker.errors import PermanentError
from worker.escaped import escaped
from worker.gateway.address import GatewayAddress
from worker.gateway.agent_ids import IMPLICIT_AGENT, canonical_id
from worker.gateway.errors import BadAddress
from worker.jobs.requests import AdoptAgent, BadRequestError
from worker.records.agent_repository import AgentRecord
from worker.records.gateway_repository import GatewayRecord
from worker.records.places import LIVE_PLACES, Place, home_of, keeps, places_of
from worker.workspace.display_text import one_line


def agent_to_become(connection: Connection, request: AdoptAgent) -> UUID:
    """The agent that the request makes of what is on the gateway. The id of a new one follows from the
    gateway and the OpenClaw id, so that two requests for the same one wait for each other and make one agent.
    It is not that of an agent that was deleted, whose layers of templates and open jobs would be its own.

    Raises BadRequestError for a gateway, board or agent that cannot be meant.
    """
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    if canonical_id(request.openclaw_id) == IMPLICIT_AGENT != request.openclaw_id.strip().lower():
        raise BadRequestError(f"openclaw_id: {escaped(request.openclaw_id, 60)} is no id of an agent.")
    if request.agent_id is not None:
        _require_agent(connection, request, gateway.name)
        return request.agent_id
    if request.board_id is None:
        raise BadRequestError("tasks.adopt_agent: say agent_id, or board_id for a new agent.")
    require_board(connection, request.board_id, request.gateway_id, gateway.name)
    return _id_of_new(connection, request)


def _id_of_new(connection: Connection, request: AdoptAgent) -> UUID:
    openclaw_id = canonical_id(request.openclaw_id)
    place = {"gateway_id": request.gateway_id, "openclaw_id": openclaw_id}
    left = set(connection.execute(_LEFT, place).scalars())
    for number in count():
        new = uuid5(request.gateway_id, f"{openclaw_id} {number}" if number else openclaw_id)
        row = connection.execute(_AGENT, {"id": new}).one_or_none()
        if row is None and new not in left:
            break
        # The agent that was made of it before may have moved.
        if row is not None and (row.gateway_id, row.board_id) == (request.gateway_id, request.board_id):
            break
    return new


def require_board(connection: Connection, board_id: UUID | None, gateway_id: UUID, gateway_name: str) -> None:
    """Raise BadRequestError unless the board is on the gateway."""
    board = connection.execute(_BOARD, {"id": board_id}).one_or_none()
    if board is None:
        raise BadRequestError(f"There is no board with board_id {board_id}.")
    if board.gateway_id != gateway_id:
        raise BadRequestError(
            f"board_id: board {board.name!r} ({board_id}) is not on gateway {gateway_name!r} ({gateway_id})."
        )


def _require_agent(connection: Connection, request: AdoptAgent, gateway_name: str) -> None:
    agent = connection.execute(_AGENT, {"id": request.agent_id}).one_or_none()
    if agent is None:
        raise BadRequestError(f"There is no agent with agent_id {request.agent_id}.")
    who = f"agent_id: agent {one_line(agent.name)!r} ({request.agent_id})"
    if agent.gateway_id != request.gateway_id:
        raise BadRequestError(f"{who} is not on gateway {gateway_name!r} ({request.gateway_id}).")
    if request.board_id not in (None, agent.board_id):
        raise BadRequestError(f"{who} is not of board {request.board_id}: leave board_id out.")


def refuse_if_held(
    connection: Connection, gateway: GatewayRecord, openclaw_id: str, agent_id: UUID, present: Collection[str]
) -> None:
    """Raise PermanentError if the OpenClaw id belongs to another agent, on this row of ``gateways`` or on
    another one for the same server, or if the agent lives under another id. ``present``: the ids there."""
    for row in _agents_of(connection, gateway, openclaw_id, agent_id):
        home = home_of(row, "", places_of(row.places))
        who = f"agent {one_line(row.name)!r} ({row.id})"
        if row.id != agent_id and row.status != "deleting" and home.openclaw_id == openclaw_id:
            raise _held(gateway, openclaw_id, who)
        if row.id == agent_id and (elsewhere := _elsewhere(row, home, gateway, openclaw_id, present)):
            raise PermanentError(
                f"{who[0].upper()}{who[1:]} lives as {elsewhere} already, so it cannot be {openclaw_id} too:"
                " adopt that as another agent, or delete this one first."
            )


def refuse_if_of_another_board(
    gateway: GatewayRecord, openclaw_id: str, record: AgentRecord, board_id: UUID
) -> None:
    """Raise PermanentError if a request that named another board has made the agent's row meanwhile."""
    if record.board is None or str(record.board.id) != str(board_id):
        raise _held(gateway, openclaw_id, f"agent {one_line(record.agent.name)!r} ({record.agent.id})")


def _held(gateway: GatewayRecord, openclaw_id: str, who: str) -> PermanentError:
    return PermanentError(
        f"Gateway {gateway.gateway.name!r} has {openclaw_id} as {who} already: adopt it as that agent, or"
        " delete that one first."
    )


def _elsewhere(
    row: Row[tuple[object, ...]],
    home: Place,
    gateway: GatewayRecord,
    openclaw_id: str,
    present: Collection[str],
) -> str | None:
    """The other id under which the agent lives; None if there is none."""
    live = [
        place.openclaw_id
        for place in places_of(row.places)
        if not place.is_at(gateway.gateway_id, openclaw_id)
    ]
    if live:
        return live[-1]
    return home.openclaw_id if home.openclaw_id != openclaw_id and home.openclaw_id in present else None


def _agents_of(
    connection: Connection, gateway: GatewayRecord, openclaw_id: str, agent_id: UUID
) -> list[Row[tuple[object, ...]]]:
    """The agent itself, and those that may hold the id on this server."""
    found = []
    for row in connection.execute(_CANDIDATES, {"openclaw_id": openclaw_id, "agent_id": agent_id}):
        if row.gateway_id == gateway.gateway_id or (row.id != agent_id and _same_server(row, gateway)):
            found.append(row)
    return found


def _same_server(row: Row[tuple[object, ...]], gateway: GatewayRecord) -> bool:
    try:
        address = GatewayAddress(row.url, row.token, row.allow_insecure_tls)
    except BadAddress:
        return False
    return address.server == gateway.address.server


def ids_in_care(connection: Connection, gateway: GatewayRecord) -> frozenset[str]:
    """The OpenClaw ids on the gateway that agents hold or call for, also by other rows for its server."""
    rows = connection.execute(_ALL).all()
    return frozenset(
        home_of(row, "", places_of(row.places)).openclaw_id
        for row in rows
        if row.gateway_id == gateway.gateway_id or _same_server(row, gateway)
    )


def claim_found_place(connection: Connection, agent_id: UUID, place: Place) -> None:
    """Record that the agent lives where it was found, before anything is written there. Raises PermanentError
    if the id is another agent's, or is being adopted as one."""
    where = {"gateway_id": place.gateway_id, "openclaw_id": place.openclaw_id}
    holder = connection.execute(_HOLDER, where).one_or_none()
    if holder is not None and holder.agent_id != agent_id:
        if keeps(holder, place.gateway_id, place.openclaw_id, adopted=holder.adopted) or holder.at_work:
            raise PermanentError(
                f"The id {place.openclaw_id} belongs to agent {holder.agent_id} on this gateway, or is just"
                " being adopted as that: see `provisioner jobs`."
            )
        connection.execute(_CLOSE, {"id": holder.place_id})
    values = {
        **where,
        "agent_id": agent_id,
        "session_key": place.session_key,
        "workspace": place.workspace,
        "resolved": place.resolved_workspace,
    }
    if not connection.execute(_CLAIM, values).rowcount:
        raise PermanentError(
            f"The id {place.openclaw_id} was given to another agent at this moment: ask again."
        )


def had_no_row(connection: Connection, job_id: UUID, agent_id: UUID) -> bool:
    """Whether the agent had no row when its row of the job was begun."""
    return bool(connection.execute(_HAD_NONE, {"job_id": job_id, "agent_id": agent_id}).scalar_one())


def leave_found_place(connection: Connection, job_id: UUID, agent_id: UUID) -> None:
    """Close the place that the agent's row of the job has put on record, unless its token was committed: an
    agent that was not adopted does not live there."""
    connection.execute(_LEAVE, {"job_id": job_id, "agent_id": agent_id})


_GATEWAY = text("SELECT name FROM gateways WHERE id = :id")
_BOARD = text("SELECT name, gateway_id FROM boards WHERE id = :id")
_AGENT = text("SELECT name, gateway_id, board_id FROM agents WHERE id = :id")
_COLUMNS = f"""
    SELECT a.id, a.name, a.status, a.board_id, a.is_board_lead, a.gateway_id, {LIVE_PLACES} AS places,
        coalesce(g.url, '') AS url, g.token,
        coalesce((to_jsonb(g) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls
    FROM agents a LEFT JOIN gateways g ON g.id = a.gateway_id
"""
_CANDIDATES = text(f"""
    {_COLUMNS}
    WHERE a.id = :agent_id
       OR :openclaw_id IN ('mc-' || a.id, 'lead-' || a.board_id, 'mc-gateway-' || a.gateway_id)
       OR EXISTS (SELECT FROM provisioner.agent_places h
                  WHERE h.agent_id = a.id AND h.openclaw_id = :openclaw_id AND h.until IS NULL)
    ORDER BY a.created_at, a.id
""")
_ALL = text(_COLUMNS)
_HOLDER = text("""
    SELECT h.id AS place_id, h.agent_id, h.adopted, a.id, a.status, a.board_id, a.is_board_lead, a.gateway_id,
        h.adopted AND EXISTS (SELECT FROM provisioner.job_agents r
                              WHERE r.agent_id = h.agent_id AND r.status = 'running') AS at_work
    FROM provisioner.agent_places h LEFT JOIN agents a ON a.id = h.agent_id
    WHERE h.gateway_id = :gateway_id AND h.openclaw_id = :openclaw_id AND h.until IS NULL
    FOR UPDATE OF h
""")
_CLOSE = text("UPDATE provisioner.agent_places SET until = now() WHERE id = :id")
_CLAIM = text("""
    INSERT INTO provisioner.agent_places AS p
        (agent_id, gateway_id, openclaw_id, session_key, workspace, resolved_workspace, adopted)
    VALUES (:agent_id, :gateway_id, :openclaw_id, :session_key, :workspace, :resolved, true)
    ON CONFLICT (gateway_id, openclaw_id) WHERE until IS NULL DO UPDATE
    SET session_key = excluded.session_key, workspace = excluded.workspace,
        resolved_workspace = excluded.resolved_workspace, adopted = true
    WHERE p.agent_id = excluded.agent_id
""")
_LEFT = text("""
    SELECT agent_id FROM provisioner.agent_places
    WHERE gateway_id = :gateway_id AND openclaw_id = :openclaw_id AND until IS NOT NULL
""")
_HAD_NONE = text("""
    SELECT NOT EXISTS (
        SELECT FROM agents a JOIN provisioner.job_agents r ON r.agent_id = a.id
        WHERE r.job_id = :job_id AND a.id = :agent_id AND a.created_at < r.started_at AT TIME ZONE 'utc'
    )
""")
_LEAVE = text("""
    UPDATE provisioner.agent_places p SET until = now() FROM provisioner.job_agents r
    WHERE r.job_id = :job_id AND r.agent_id = :agent_id AND p.agent_id = r.agent_id
      AND p.openclaw_id = r.openclaw_id AND p.adopted AND p.until IS NULL AND p.since >= r.started_at
      AND NOT EXISTS (
          SELECT FROM agents a JOIN provisioner.agent_credentials c ON c.agent_id = a.id
          WHERE a.id = r.agent_id AND c.verified_hash = a.agent_token_hash AND c.pending_hash IS NULL
            AND c.updated_at >= r.started_at
      )
""")
