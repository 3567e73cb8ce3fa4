"""Agents that stand on a gateway already, as another program left them: in the roster, with a token."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from uuid import UUID

from tests.integration.worker.workshop import CARRIER, Place
from worker.gateway.address import GatewayAddress
from worker.gateway.connection import Call, GatewayConnection
from worker.gateway.device import DeviceKey
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError
from worker.gateway.roster_plan import plan_roster
from worker.jobs.retry_policy import inline_retrying
from worker.records.gateway_repository import load_gateway, wanted_entries


def plant(place: Place, agents: Sequence[UUID]) -> None:
    """Register the agents in one patch, and give each a file with a token in it. Their rows hold no hash, so
    that nothing is to be checked (rules.md 25)."""
    with place.engine.connect() as connection:
        gateway = load_gateway(connection, place.fleet.gateway_id)
        assert gateway is not None
        entries = wanted_entries(connection, gateway, agents)
    address = GatewayAddress(place.simulator.url, place.simulator.token)
    client = GatewayConnection.open(address, DeviceKey.generate())
    dialect = Dialect.from_hello(client.hello.server_version, client.hello.methods)
    config = client.call("config.get")
    document = plan_roster(dialect, config["parsed"], list(entries.values())).document
    patch = {"raw": json.dumps(document), "baseHash": config["hash"], "restartDelayMs": 0}
    if client.call("config.patch", patch).get("restart"):
        client.wait_closed(20)
        client = inline_retrying(20)(GatewayConnection.open, address, DeviceKey.generate())
    carrier = CARRIER[place.release]
    calls = [
        Call(
            "agents.files.set",
            {
                "agentId": entry.openclaw_id,
                "name": carrier,
                "content": f"# Tools\n\n## Tools\n\nAUTH_TOKEN={secrets.token_urlsafe(32)}\n",
            },
        )
        for entry in entries.values()
    ]
    answers = client.call_many(calls, deadline_s=60)
    assert not [answer for answer in answers if isinstance(answer, GatewayError)]
    client.close()
