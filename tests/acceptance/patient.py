"""A client of the tests' own that waits for a gateway which restarts by itself, as 2026.9.6 does some time
after edits of an outsider: jobs have to wait for that, and so has a test that looks past them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.gateway.client import GatewayClient
from worker.gateway.connection import DEFAULT_DEADLINE_S
from worker.gateway.errors import AgentExists, RateLimited, StaleConfig, UnknownAgent
from worker.gateway.protocol import Hello
from worker.jobs.retry_policy import inline_retrying

PATIENCE_S = 120.0
_OF_THE_CALL = (RateLimited, StaleConfig)


class PatientClient(GatewayClient):
    """Asks again what a gateway could not answer. An agent that is there, or gone, at the second try was
    made, or deleted, by the first."""

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = DEFAULT_DEADLINE_S,
        send_by: float | None = None,
    ) -> dict[str, Any]:
        tries = 0

        def attempt() -> dict[str, Any]:
            nonlocal tries
            tries += 1
            try:
                return super(PatientClient, self).call(method, params, deadline_s=deadline_s, send_by=send_by)
            except (AgentExists, UnknownAgent):
                if tries == 1 or method not in ("agents.create", "agents.delete"):
                    raise
                return {"ok": True, "agentId": (params or {}).get("agentId") or (params or {})["name"]}

        return inline_retrying(PATIENCE_S, never=_OF_THE_CALL)(attempt)

    def hello(self, *, deadline_s: float = DEFAULT_DEADLINE_S) -> Hello:
        return inline_retrying(PATIENCE_S)(super().hello, deadline_s=deadline_s)
