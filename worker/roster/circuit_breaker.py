"""Each gateway's circuit breaker: decides whether the gateway may be tried, and records what each try showed
(rules.md 44, 45).

An outage belongs to the gateway, not to a job: one row of gateway_states counts its duration for all jobs,
which give up after RETRY_TIMEOUT_S, and one probe at a time finds out whether it is over (decisions.md D7). A
refused token is not tried again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, bindparam, text

from worker.errors import ProvisionerError, TransientError
from worker.gateway.address import GatewayAddress
from worker.gateway.client import GatewayClient
from worker.gateway.errors import OUTAGES, WrongToken
from worker.gateway.idle_timeout import failing_for_s, has_been_answered, note_failing_for
from worker.gateway.owner_settings import has_one_session
from worker.gateway.protocol import Hello
from worker.jobs.retry_policy import GatewayGivenUpError, RetryPolicy, Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.releasing import make_gateway_rows_due
from worker.masking.columns import MaskedText
from worker.records.agent_repository import GatewayCondition
from worker.runtime.services import Services
from worker.shutdown_flag import shutting_down
from worker.workspace.context import GatewayFacts

_PROBE_TAKES_S = 25.0


@dataclass(frozen=True)
class Outage:
    """A gateway's current outage. ``down_for_s``: seconds since the first failure; ``wait_s``: seconds until
    the gateway may be tried again."""

    down_for_s: float
    wait_s: float


_NEW = """(s.down_since IS NULL OR s.down_at <> excluded.down_at
             OR s.last_failure_at < excluded.down_since - make_interval(secs => :budget_s))"""
_NOTE_FAILURE = text(f"""
    INSERT INTO provisioner.gateway_states AS s
        (gateway_id, down_since, last_failure_at, last_error, probe_until, down_at)
    VALUES (:gateway_id, now() - make_interval(secs => :took_s), now(), :error,
            now() + make_interval(secs => :first_s), :down_at)
    ON CONFLICT (gateway_id) DO UPDATE
    SET down_since = CASE
            WHEN {_NEW} THEN excluded.down_since ELSE s.down_since END,
        last_failure_at = now(), last_error = excluded.last_error, down_at = excluded.down_at,
        probe_until = now() + make_interval(secs => CASE
            WHEN {_NEW} THEN :first_s
            ELSE least(:longest_s, greatest(:first_s, least(
                extract(epoch FROM now() - s.down_since) / 2,
                :budget_s - extract(epoch FROM now() - s.down_since)))) END)
    RETURNING extract(epoch FROM now() - down_since)::float AS down_for_s,
        extract(epoch FROM probe_until - now())::float AS wait_s
""").bindparams(bindparam("error", type_=MaskedText))


def note_failure(
    connection: Connection,
    gateway_id: UUID,
    error: ProvisionerError,
    budget_s: float,
    *,
    took_s: float = 0.0,
    address: GatewayAddress | None = None,
) -> Outage:
    """Record that a try to reach the gateway at ``address``, which took ``took_s`` seconds, failed.

    An outage begins with the first failed try and belongs to the address that was tried. A failure begins a
    new outage if the one before it is more than ``budget_s`` seconds old, or was at another address.
    """
    row = connection.execute(
        _NOTE_FAILURE,
        {
            "gateway_id": gateway_id,
            "error": str(error),
            "budget_s": budget_s,
            "took_s": min(took_s, budget_s),
            "down_at": None if address is None else fingerprint(address),
            "first_s": RetryPolicy.shortest_wait_s,
            "longest_s": RetryPolicy.longest_wait_s,
        },
    ).one()
    return Outage(row.down_for_s, row.wait_s)


_MAY_PROBE = text("""
    UPDATE provisioner.gateway_states SET probe_until = now() + make_interval(secs => :takes_s)
    WHERE gateway_id = :gateway_id AND down_since IS NOT NULL
      AND (probe_until IS NULL OR probe_until <= now())
""")
_PROBE_WAIT = text("""
    SELECT CASE WHEN last_failure_at < now() - make_interval(secs => :budget_s) THEN 0
                ELSE extract(epoch FROM now() - down_since) END::float AS down_for_s,
        extract(epoch FROM probe_until - now())::float AS wait_s
    FROM provisioner.gateway_states WHERE gateway_id = :gateway_id AND down_since IS NOT NULL
""")


def try_probe(connection: Connection, gateway_id: UUID, budget_s: float) -> Outage | None:
    """Decide whether the caller may probe a gateway that is known to be down.

    Returns None if it may, else the outage with the seconds until the caller may ask again. If the last
    failure was more than ``budget_s`` seconds ago, its ``down_for_s`` is 0, so that the caller waits for the
    result of the present probe instead of giving up.
    """
    parameters = {"gateway_id": gateway_id}
    if connection.execute(_MAY_PROBE, {**parameters, "takes_s": _PROBE_TAKES_S}).rowcount:
        return None
    row = connection.execute(_PROBE_WAIT, {**parameters, "budget_s": budget_s}).one_or_none()
    if row is None:
        return None
    # How long the current probe will take is unknown: ask again no later than it would be repeated.
    longest_s = min(RetryPolicy.longest_wait_s, max(RetryPolicy.shortest_wait_s, row.down_for_s / 2))
    return Outage(row.down_for_s, min(max(row.wait_s or 0.0, 0.1), longest_s))


_NOTE_UP = text("""
    UPDATE provisioner.gateway_states
    SET down_since = NULL, probe_until = NULL, last_failure_at = NULL, last_error = NULL, down_at = NULL,
        writer_not_before = NULL
    WHERE gateway_id = :gateway_id AND down_since IS NOT NULL
""")


def note_up(connection: Connection, gateway_id: UUID) -> None:
    """Record that the gateway answered. If it was down, its outage is over, and its parked rows and syncs are
    due now."""
    if connection.execute(_NOTE_UP, {"gateway_id": gateway_id}).rowcount:
        make_gateway_rows_due(connection, gateway_id)


_REFUSED_TOKEN = text("""
    INSERT INTO provisioner.gateway_states AS s (gateway_id, refused_token_fingerprint, last_error)
    VALUES (:gateway_id, :fingerprint, :error)
    ON CONFLICT (gateway_id) DO UPDATE
    SET refused_token_fingerprint = excluded.refused_token_fingerprint, last_error = excluded.last_error
    WHERE s.refused_token_fingerprint IS DISTINCT FROM excluded.refused_token_fingerprint
""").bindparams(bindparam("error", type_=MaskedText))


def note_refused_token(connection: Connection, gateway_id: UUID, address: GatewayAddress, error: str) -> None:
    """Record that the token of this address was refused and why, so that no job tries it again.

    After ten failures a gateway may lock us out (gateways.md 4). Does nothing if this is already recorded.
    """
    connection.execute(
        _REFUSED_TOKEN, {"gateway_id": gateway_id, "fingerprint": fingerprint(address), "error": error}
    )


_FORGET_REFUSED = text("""
    UPDATE provisioner.gateway_states SET refused_token_fingerprint = NULL, last_error = NULL
    WHERE gateway_id = :gateway_id AND refused_token_fingerprint = :fingerprint
""")


def forget_refused_token(connection: Connection, gateway_id: UUID, refused: str) -> bool:
    """Record that the gateway lets us in, though it refused the token with the fingerprint ``refused``.
    Returns whether that was still on record."""
    parameters = {"gateway_id": gateway_id, "fingerprint": refused}
    return connection.execute(_FORGET_REFUSED, parameters).rowcount > 0


def require_token_not_refused(
    gateway_name: str, address: GatewayAddress, condition: GatewayCondition
) -> None:
    """Raise WrongToken, with the gateway's own words, if it has already refused the token of this address."""
    if condition.refused_token_fingerprint != fingerprint(address):
        return
    last_error = condition.last_error if condition.down_at is None else None
    cure = last_error or "set the token to gateway.auth.token of its openclaw.json"
    raise WrongToken(
        f"Gateway {gateway_name!r} refused this token before, and neither gateways.url nor gateways.token of"
        f" its row has changed since: {cure.rstrip('.')}. Where that was put right on its machine instead,"
        " run `provisioner doctor` once."
    )


def fingerprint(address: GatewayAddress) -> str:
    """A one-way hash of the address's URL, token and TLS setting; 16 hex digits."""
    insecure = "\ninsecure" if address.allow_insecure_tls else ""
    return sha256(f"{address.url}\n{address.token_fingerprint}{insecure}".encode()).hexdigest()[:16]


class Reachable(Protocol):
    """A record with all that is needed to try a gateway: a `GatewayRecord`, or the `AgentRecord` of an agent
    on it."""

    @property
    def gateway(self) -> GatewayFacts: ...
    @property
    def gateway_id(self) -> UUID: ...
    @property
    def address(self) -> GatewayAddress: ...
    @property
    def condition(self) -> GatewayCondition: ...


def connect_and_record(services: Services, record: Reachable) -> Hello:
    """Connect to the gateway; record that its outage is over, and that it takes the token or refused it.

    Raises WrongToken, and what connecting raises.
    """
    try:
        hello = services.retry_inline(services.clients.client(record.address).hello)
    except WrongToken as error:
        with services.engine.begin() as connection:
            note_refused_token(connection, record.gateway_id, record.address, str(error))
        raise
    condition = record.condition
    if condition.down_for_s is not None:
        with services.engine.begin() as connection:
            note_up(connection, record.gateway_id)
    if condition.refused_token_fingerprint is not None:  # of a token or URL that its row no longer has
        with services.engine.begin() as connection:
            forget_refused_token(connection, record.gateway_id, condition.refused_token_fingerprint)
    return hello


def refresh_one_session(client: GatewayClient, config: Any) -> None:
    """Disconnect if ``config``, from config.get, sets one session for all agents, but the hello does not say
    so.

    The hello is then older than the setting; the next call connects again and gets a new hello.
    """
    if has_one_session(config) and not client.hello().one_session:
        client.disconnect()


def check_circuit(services: Services, record: Reachable) -> Snooze | None:
    """Decide whether the caller may try the gateway.

    Returns None if it may. While the gateway is known to be down, one caller at a time may probe it, and the
    others get a Snooze. Raises WrongToken for a token that was refused before, and GatewayGivenUpError once
    the outage has lasted for the whole retry timeout.
    """
    require_token_not_refused(record.gateway.name, record.address, record.condition)
    condition = record.condition
    if condition.down_for_s is None or condition.down_at not in (None, fingerprint(record.address)):
        return None  # it is up, or it was down at an address that it no longer has
    note_failing_for(condition.down_for_s)
    with services.engine.begin() as connection:
        outage = try_probe(connection, record.gateway_id, services.settings.retry_timeout_s)
    if outage is None:
        return None
    policy = services.retry_policy
    if outage.down_for_s >= policy.timeout_s:
        raise GatewayGivenUpError(policy.unreachable(record.condition.last_error or "no answer"))
    return Snooze(
        f"gateway {record.gateway.name!r} is down: {record.condition.last_error}",
        outage.wait_s,
        code=ReasonCode.WAITING_FOR_GATEWAY,
    )


def snooze_after(
    services: Services,
    gateway_id: UUID | None,
    failing_s: Callable[[Connection], float],
    error: TransientError,
) -> Snooze:
    """Decide on the snooze after a transient error that the retries in the slot did not overcome.

    If the error shows an outage, also records the failure of the gateway. ``failing_s`` reads from the row
    for how many seconds its step has been failing; the tries just made count as well. If the worker is
    stopping, the row is due at once. Raises GatewayGivenUpError and PermanentError as `RetryPolicy` does.
    """
    policy = services.retry_policy
    if shutting_down.is_set():
        return Snooze(f"this worker is stopping: {error}", 0.0, code=ReasonCode.WORKER_STOPPING)
    if not isinstance(error, OUTAGES) or gateway_id is None:
        with services.engine.connect() as connection:
            return policy.after_failure(error, max(failing_s(connection), failing_for_s()))
    with services.engine.begin() as connection:
        outage = note_failure(
            connection,
            gateway_id,
            error,
            policy.timeout_s,
            took_s=failing_for_s(),
            address=error.address,
        )
        # A gateway that accepts each connection and then drops it is never down for long.
        since_s = max(failing_s(connection), failing_for_s()) if has_been_answered() else None
    return policy.after_outage(error, outage.down_for_s, outage.wait_s, since_s)
