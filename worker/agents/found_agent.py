"""Reads what a gateway has of an agent that is to be adopted: its entry, name, folder and session key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from worker.errors import PermanentError
from worker.gateway.client import GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.documents import mapping
from worker.gateway.folders import AgentFolders, folders_of, same_folder
from worker.gateway.roster_reading import LiveRoster, read_roster
from worker.gateway.variables import REDACTED, strings_of
from worker.jobs.states import ReasonCode
from worker.records.places import Place
from worker.runtime.services import Services
from worker.workspace.display_text import one_line

_MOST_NAMED = 10


@dataclass(frozen=True)
class FoundAgent:
    """An agent of a gateway. ``name``: what its owner calls it; ``heartbeat``: its own block, None if it has
    none; ``place``: where it lives, as found."""

    name: str
    heartbeat: Mapping[str, Any] | None
    place: Place


@dataclass(frozen=True)
class GatewayRoster:
    """A gateway's roster, and its answer to agents.list."""

    live: LiveRoster
    listed: Mapping[str, Any]

    def found(
        self, client: GatewayClient, gateway_id: UUID, openclaw_id: str, gateway_name: str
    ) -> FoundAgent:
        """What the gateway has of the agent. Raises PermanentError if it has none of that id, and
        GatewayError."""
        if openclaw_id not in self.live.known:
            some = sorted(self.live.known)
            more = " and others" if len(some) > _MOST_NAMED else ""
            raise PermanentError(
                f"Gateway {gateway_name!r} has no agent {openclaw_id}: it has {', '.join(some[:_MOST_NAMED])}"
                f"{more}.",
                reason_code=ReasonCode.NOT_REGISTERED,
            )
        entry = self.live.entries.get(openclaw_id, {})
        others = folders_of(self.live)
        folders = others.pop(openclaw_id, None)
        answer = client.query("agents.files.list", {"agentId": openclaw_id}).value.get("workspace")
        place = Place(
            gateway_id,
            openclaw_id,
            f"agent:{openclaw_id}:{self._main_key}",
            folders.written if folders is not None else None,
            answer if isinstance(answer, str) and answer and "\x00" not in answer else None,
            adopted=True,
        )
        _require_own_folder(place, others)
        return FoundAgent(_name_of(entry) or openclaw_id, _heartbeat_of(entry), place)

    @property
    def _main_key(self) -> str:
        key = self.listed.get("mainKey")
        return key if isinstance(key, str) and key and not (set(key) & set(" :\x00")) else "main"


def look_at_roster(services: Services, client: GatewayClient, dialect: Dialect) -> GatewayRoster:
    """Read the gateway's roster. Raises RosterUnknownError, GatewayError."""
    listed = services.retry_inline(lambda: client.call("agents.list"))
    live = read_roster(
        dialect,
        lambda: services.retry_inline(lambda: client.call("config.get")),
        lambda: services.retry_inline(lambda: client.call("agents.list")),
    )
    return GatewayRoster(live, listed)


def _require_own_folder(place: Place, others: Mapping[str, AgentFolders]) -> None:
    """Raise PermanentError if another agent works in the same folder: it would get the token of this one."""
    folder = place.resolved_workspace or place.workspace
    for key, other in others.items():
        if folder is not None and other.workspace is not None and same_folder(folder, other.workspace):
            raise PermanentError(
                f"Agent {place.openclaw_id} has its workspace, {folder}, in common with {key}, and a file"
                " there can hold the token of one agent only: give one of them a folder of its own."
            )


def _heartbeat_of(entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry's heartbeat block, unless it holds what the gateway does not show."""
    block = entry.get("heartbeat")
    shown = isinstance(block, Mapping) and all(value != REDACTED for _, value in strings_of(block))
    return block if shown else None


def _name_of(entry: Mapping[str, Any]) -> str | None:
    for name in (entry.get("name"), mapping(entry.get("identity")).get("name")):
        if isinstance(name, str) and (shown := one_line(name).strip()):
            return shown
    return None
