"""Looks at the workspaces of many agents of one gateway: one call for each, pipelined, and another one where
the heartbeat text is the scratch of an automation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.gateway.agent_files import AgentFiles
from worker.gateway.client import Call, GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError
from worker.workspace.plan import LiveFile

LOOK_DEADLINE_S = 8.0
"""Limit on looking at some agents, in seconds; what was not answered by then is looked at again."""


class NeedsMoreError(Exception):
    """A look does not tell enough about an agent: it has to be read on its own."""


@dataclass(frozen=True)
class SeenFiles(AgentFiles):
    """The files of an agent as a look has shown them. Whatever needs another call raises NeedsMoreError.

    ``listing``: the existing files, by name; ``scratch``: the heartbeat text in the automation's scratch.
    """

    listing: Mapping[str, LiveFile] = field(default_factory=dict)
    scratch: LiveFile | None = None

    def live(self, *, may_be_empty: bool = False) -> Mapping[str, LiveFile]:
        """The files that the look has shown."""
        return self.listing

    def read(self, names: Sequence[str]) -> dict[str, LiveFile]:
        """Raises NeedsMoreError."""
        raise NeedsMoreError

    def scratch_id(self) -> str:
        """Raises NeedsMoreError."""
        raise NeedsMoreError

    def read_scratch(self, scratch_id: str) -> LiveFile | None:
        """The heartbeat text that the look has shown."""
        return self.scratch


@dataclass(frozen=True)
class ToLookAt:
    """An agent to look at. ``scratch_id``: its heartbeat automation, if it has one and that is on record."""

    openclaw_id: str
    scratch_id: str | None = None


def look_at(
    client: GatewayClient, dialect: Dialect, agents: Sequence[ToLookAt]
) -> list[SeenFiles | NeedsMoreError | GatewayError]:
    """Look at the agents; for each, in this order, what was seen or the error because of which nothing was.

    NeedsMoreError: one call does not tell; any other error is the gateway's, a TransientError if the agent
    can be looked at again. Raises a GatewayError if there is no connection.
    """
    calls = []
    for agent in agents:
        params = {"agentId": agent.openclaw_id}
        listed = dialect.lists_workspace
        calls.append(Call("agents.workspace.list", params) if listed else Call("agents.files.list", params))
        if agent.scratch_id is not None:
            calls.append(Call("cron.scratch.get", {"jobId": agent.scratch_id}))
    answers = iter(client.call_many(calls, deadline_s=LOOK_DEADLINE_S) if calls else ())
    seen: list[SeenFiles | NeedsMoreError | GatewayError] = []
    for agent in agents:
        listing = next(answers)
        scratch = next(answers) if agent.scratch_id is not None else None
        seen.append(_seen(AgentFiles(client, dialect, agent.openclaw_id), listing, scratch))
    return seen


def _seen(
    files: AgentFiles,
    listing: Mapping[str, Any] | GatewayError,
    scratch: Mapping[str, Any] | GatewayError | None,
) -> SeenFiles | NeedsMoreError | GatewayError:
    for answer in (listing, scratch):
        if isinstance(answer, GatewayError):
            return answer
    assert not isinstance(listing, GatewayError)
    assert not isinstance(scratch, GatewayError)
    try:
        found, text = files.in_listing(listing), None if scratch is None else files.in_scratch(scratch)
    except GatewayError as error:
        return error
    if found is None:
        return NeedsMoreError()
    return SeenFiles(
        files.client, files.dialect, files.openclaw_id, shown=files.shown, listing=found, scratch=text
    )
