"""Finds namesakes: agents with the same OpenClaw id under other rows of ``gateways``.

Two rows may be one machine, or even one gateway. So an entry or folder that an agent has left may be the very
one that it, or its successor, uses under the other row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import PermanentError, TransientError
from worker.gateway.address import GatewayAddress
from worker.gateway.agent_files import AgentFiles
from worker.gateway.client import GatewayClient
from worker.gateway.errors import BadAddress, GatewayError
from worker.gateway.folders import same_folder
from worker.gateway.roster_reading import LiveRoster
from worker.records.places import keeps
from worker.runtime.services import Services
from worker.workspace.display_text import one_line


@dataclass(frozen=True)
class Namesake:
    """An agent with the same OpenClaw id on the gateway of another row.

    ``agent``: its name and id, for people; ``gateway``: the name of its gateway; ``folders``: its workspace,
    as we assigned it and as that gateway shows it; ``written``: by name, the size in bytes and the time in
    milliseconds of each file that we wrote there.
    """

    agent: str
    gateway: str
    address: GatewayAddress
    folders: tuple[str, ...]
    written: Mapping[str, tuple[int, int]]


_NAMESAKES = text("""
    SELECT a.id, a.name, a.status, a.board_id, a.is_board_lead, a.gateway_id, p.gateway_id AS there,
        p.workspace, p.resolved_workspace, p.adopted, g.name AS gateway, g.url, g.token,
        coalesce((to_jsonb(g) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls,
        (SELECT jsonb_object_agg(f.name, jsonb_build_array(f.size, f.updated_at_ms))
         FROM provisioner.agent_files f WHERE f.agent_id = a.id AND f.gateway_id = p.gateway_id
           AND f.kind = 'file' AND f.updated_at_ms IS NOT NULL) AS written
    FROM provisioner.agent_places p JOIN agents a ON a.id = p.agent_id JOIN gateways g ON g.id = p.gateway_id
    WHERE p.openclaw_id = :openclaw_id AND p.gateway_id <> :gateway_id AND p.until IS NULL
    ORDER BY p.id
""")


def namesakes_of(connection: Connection, gateway_id: UUID, openclaw_id: str) -> list[Namesake]:
    """The agents that have a live place with this id under another row of ``gateways``, and whose own rows
    still call for it."""
    found = []
    rows = connection.execute(_NAMESAKES, {"gateway_id": gateway_id, "openclaw_id": openclaw_id})
    for row in rows:
        try:
            address = GatewayAddress(row.url, row.token, row.allow_insecure_tls)
        except BadAddress:
            continue  # no agent can have been provisioned there
        if not keeps(row, row.there, openclaw_id, adopted=row.adopted):
            continue
        written = {name: (size, at) for name, (size, at) in (row.written or {}).items()}
        folders = tuple(folder for folder in (row.workspace, row.resolved_workspace) if folder)
        agent = f"agent {one_line(row.name)!r} ({row.id})"
        found.append(Namesake(agent, row.gateway, address, folders, written))
    return found


def reason_to_keep_entry(
    services: Services,
    address: GatewayAddress,
    live: LiveRoster,
    openclaw_id: str,
    namesakes: Sequence[Namesake],
) -> str | None:
    """Why an entry that should be removed must stay: a namesake lives on the same gateway under another row.
    None if there is no such namesake."""
    for namesake in namesakes:
        if namesake.address.server == address.server or _has_config_of(services, namesake, live):
            return (
                f"{openclaw_id} was left on the gateway: gateway {namesake.gateway!r} is the same one under"
                f" another row, and {namesake.agent} lives there. Keep one row for each gateway."
            )
    return None


def reason_to_keep_folder(
    client: GatewayClient, live: LiveRoster, openclaw_id: str, workspace: str, namesakes: Sequence[Namesake]
) -> str | None:
    """Why an entry's folder must stay: a namesake on the same machine uses it, or may use it. None if no
    namesake does.

    Equal paths may be on two machines. They count as one folder if a file has the same size and the same time
    in milliseconds in both.
    """
    for namesake in namesakes:
        if not any(same_folder(folder, workspace) or folder.startswith("~") for folder in namesake.folders):
            continue
        try:
            files = AgentFiles(client, live.dialect, openclaw_id).live()
        except (GatewayError, TransientError, PermanentError):
            files = None
        if not files or not namesake.written:
            return (
                f"Whether {namesake.agent} uses the workspace of {openclaw_id}, {workspace}, on gateway"
                f" {namesake.gateway!r} cannot be seen, so the entry was removed and the folder was left:"
                " delete it by hand where that gateway is on another machine; it may hold a token."
            )
        here = {name: (file.size, file.updated_at_ms) for name, file in files.items()}
        if any(here.get(name) == written for name, written in namesake.written.items()):
            return (
                f"The workspace of {openclaw_id}, {workspace}, is also that of {namesake.agent} on gateway"
                f" {namesake.gateway!r}, which is on the same machine: the entry was removed and the folder"
                " was left."
            )
    return None


def _has_config_of(services: Services, namesake: Namesake, live: LiveRoster) -> bool:
    """Whether the namesake's gateway has the same openclaw.json; False if it does not answer."""
    own = live.answer.get("hash")
    try:
        theirs = services.clients.client(namesake.address).call("config.get")
    except (GatewayError, TransientError, PermanentError):
        return False
    return isinstance(own, str) and bool(own) and theirs.get("hash") == own
