"""Whether to try a gateway at all, and what the first connection says of it (behaviour 44, 45)."""

from __future__ import annotations

from worker.errors import PermanentError
from worker.gateway.errors import WrongToken
from worker.gateway.protocol import Hello
from worker.provisioning.facts import AgentRecord
from worker.provisioning.outage import Outage, admit, fingerprint, note_refused_token, note_up, unreachable
from worker.provisioning.services import Services
from worker.provisioning.work import Parked


def greet(services: Services, record: AgentRecord) -> Hello:
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


def turned_away(services: Services, record: AgentRecord) -> Parked | None:
    """A token known to be refused is not tried again; a gateway known to be down is probed by one."""
    if record.condition.refused_token_fingerprint == fingerprint(record.address):
        raise WrongToken(
            f"Gateway {record.gateway.name!r} refused this token before, and it has not changed since:"
            " set gateways.token to the gateway's own token.",
        )
    if record.condition.down_for_s is None:
        return None
    with services.engine.begin() as connection:
        outage = admit(connection, record.gateway_id, services.settings.retry_budget_s)
    if outage is None:
        return None
    _give_up(services, record, outage)
    return Parked(f"gateway {record.gateway.name!r} is down: {record.condition.last_error}", outage.wait_s)


def _give_up(services: Services, record: AgentRecord, outage: Outage) -> None:
    budget_s = services.settings.retry_budget_s
    if outage.outlasts(budget_s):
        raise PermanentError(unreachable(budget_s, record.condition.last_error or "no answer"))
