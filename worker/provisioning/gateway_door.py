"""Whether to try a gateway at all, and what the first connection says of it (rules.md 44, 45)."""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from worker.gateway.address import GatewayAddress
from worker.gateway.client import GatewayClient
from worker.gateway.errors import WrongToken
from worker.gateway.idle_timeout import note_failing_for
from worker.gateway.owner_settings import has_one_session
from worker.gateway.protocol import Hello
from worker.jobs.retry_policy import GatewayGivenUpError, Snooze
from worker.provisioning.facts import GatewayCondition
from worker.provisioning.outage import (
    admit,
    fingerprint,
    note_refused_token,
    note_up,
    require_untried,
)
from worker.provisioning.services import Services
from worker.workspace.context import GatewayFacts


class Reachable(Protocol):
    """What is known of a gateway before it is tried: a gateway's record, or that of an agent on it."""

    @property
    def gateway(self) -> GatewayFacts: ...
    @property
    def gateway_id(self) -> UUID: ...
    @property
    def address(self) -> GatewayAddress: ...
    @property
    def condition(self) -> GatewayCondition: ...


def greet(services: Services, record: Reachable) -> Hello:
    """Connect, and keep what that says of the gateway: up again, or a token that is not to be tried again."""
    try:
        hello = services.patiently(services.clients.client(record.address).hello)
    except WrongToken as error:
        with services.engine.begin() as connection:
            note_refused_token(connection, record.gateway_id, record.address, str(error))
        raise
    if record.condition.down_for_s is not None:
        with services.engine.begin() as connection:
            note_up(connection, record.gateway_id)
    return hello


def heed_one_session(client: GatewayClient, config: Any) -> None:
    """Connect anew where ``config`` (config.get's) has one session for all by now, and the hello that
    everybody goes by was said before."""
    if has_one_session(config) and not client.hello().one_session:
        client.disconnect()


def turned_away(services: Services, record: Reachable) -> Snooze | None:
    """A token known to be refused is not tried again; a gateway known to be down is probed by one."""
    require_untried(record.gateway.name, record.address, record.condition.refused_token_fingerprint)
    condition = record.condition
    if condition.down_for_s is None or condition.down_at not in (None, fingerprint(record.address)):
        return None  # it is up, or was found down where it is not any more
    note_failing_for(condition.down_for_s)
    with services.engine.begin() as connection:
        outage = admit(connection, record.gateway_id, services.settings.retry_budget_s)
    if outage is None:
        return None
    policy = services.retry_policy
    if outage.down_for_s >= policy.timeout_s:
        raise GatewayGivenUpError(policy.unreachable(record.condition.last_error or "no answer"))
    return Snooze(f"gateway {record.gateway.name!r} is down: {record.condition.last_error}", outage.wait_s)
