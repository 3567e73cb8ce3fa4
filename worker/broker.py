"""Celery's settings for the broker, and a check of the broker before a process starts.

The check reports faults, which an operator must correct: a password, a database, a certificate, a right.
Conditions that may pass (a server that is unreachable, loads its data or is a replica) are left to Celery,
which waits.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from worker.broker_rights import forbidden
from worker.redis_url import Broker

VISIBILITY_TIMEOUT_S = 600
"""Seconds until an unacknowledged message is delivered again: far above any task's run time, because task
bodies end within 30 s, and waits are rows, not messages."""

_CONNECT_S = 5.0
_SPARE_CONNECTIONS = 50
_KEEPS_ALL = "noeviction"
_OTHER_HOST = (62, 64)
_EXPIRED = 10
"""OpenSSL's codes for a certificate of another host name or IP address, and for an expired certificate."""
_OURS_REFUSED = ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN")
_TLS_ATTEMPTS = 12
"""Attempts with TLS: a server that requires a client certificate sends an alert and closes the connection,
and the alert may be lost."""
_SHOWN = 8
_RIGHTS = "docs/operations.md lists those it needs"


def broker_settings(broker: Broker, slots: int) -> dict[str, Any]:
    """Celery's settings for the broker, for a process with this many slots."""
    return {
        "broker_url": broker.url,
        "broker_use_ssl": broker.tls,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 5,
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 15,  # a worker that dies with it would hold up redelivery for 5 minutes
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "connect_retries_timeout": 2,  # for an event: the default, 30 s, would block its slot
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_connections": most_connections(slots),
        },
    }


def most_connections(slots: int) -> int:
    """Limit on the broker connections of a process, given its number of slots."""
    return slots + _SPARE_CONNECTIONS


@dataclass(frozen=True)
class BrokerCheck:
    """The result of checking the broker.

    ``fault``: what an operator must correct, if anything. ``away``: the type name of the error that prevented
    the check, if that may pass. ``policy``: the server's maxmemory-policy, if it reports one.
    """

    fault: str | None = None
    away: str | None = None
    policy: str | None = None

    @property
    def warning(self) -> str | None:
        """A warning that the broker may drop messages, or None."""
        if self.policy in (None, _KEEPS_ALL):
            return None
        return (
            f"the Redis of REDIS_URL drops messages when its memory is full: its maxmemory-policy is"
            f" {self.policy}, set it to {_KEEPS_ALL}"
        )


def check_broker(broker: Broker) -> BrokerCheck:
    """Connect to the broker and check it, within 10 seconds. Changes nothing there."""
    return _check(broker, _TLS_ATTEMPTS if broker.tls else 1)


def _check(broker: Broker, attempts: int) -> BrokerCheck:
    try:
        return _inspect(broker)
    except (RedisError, OSError) as error:
        if attempts > 1 and _hung_up(error):
            return _check(broker, attempts - 1)
        fault = permanent_fault(error, broker)
        return BrokerCheck(fault=fault, away=None if fault else type(error).__name__)


def _inspect(broker: Broker) -> BrokerCheck:
    with connect(broker) as client:
        client.ping()
        lacking = forbidden(client.connection_pool, broker.database)
        if lacking:
            shown = ", ".join(lacking[:_SHOWN]) + (
                f" and {len(lacking) - _SHOWN} more" if lacking[_SHOWN:] else ""
            )
            return BrokerCheck(fault=f"its user may not use {shown}: {_RIGHTS}")
        return BrokerCheck(policy=_policy(client))


def _hung_up(error: BaseException) -> bool:
    """Whether the server was reached and closed the connection, so that another attempt takes no time."""
    ended = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)
    return any(isinstance(cause, ended) or "closed by server" in str(cause) for cause in _causes(error))


def connect(broker: Broker) -> redis.Redis:
    """A Redis client that does not retry."""
    return redis.Redis(
        host=broker.host,
        port=broker.port,
        db=broker.database,
        username=broker.user,
        password=broker.password,
        ssl=broker.tls is not None,
        socket_connect_timeout=_CONNECT_S,
        socket_timeout=_CONNECT_S,
        retry=Retry(NoBackoff(), 0),
        **(broker.tls or {}),
    )


def permanent_fault(error: BaseException, broker: Broker) -> str | None:
    """Why connecting will fail until an operator changes something, or None if the error may pass."""
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ssl.SSLCertVerificationError):
            if cause.verify_code in _OTHER_HOST:
                return (
                    "the server's certificate is for another host: take the host's name that is in it, or do"
                    " without that check with ssl_check_hostname=false"
                )
            if cause.verify_code == _EXPIRED:
                return "the server's certificate has expired: renew it"
            return (
                f"the server's certificate is not trusted ({cause.verify_message}): name its CA with the"
                " option ssl_ca_certs, or do without verifying with ssl_cert_reqs=none"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            return "the server does not speak TLS: begin it with redis://"
        if isinstance(cause, ssl.SSLError) and "CERTIFICATE_REQUIRED" in str(cause.reason):
            return "the server wants a certificate of ours: name it with ssl_certfile and ssl_keyfile"
        if isinstance(cause, ssl.SSLError) and str(cause.reason).endswith(_OURS_REFUSED):
            return "the server does not accept the certificate that ssl_certfile names"
    message = str(error).lower()
    if isinstance(error, AuthenticationError) or "wrongpass" in message or "noauth" in message:
        return "the server refuses its user or password"
    if isinstance(error, NoPermissionError):
        return f"its user lacks rights: {_RIGHTS}"
    if "db index is out of range" in message:
        return f"the server has no database {broker.database}: take a smaller number"
    if "select is not allowed" in message:
        return "the server is a cluster, which Celery cannot use as a broker"
    if isinstance(error, InvalidResponse):
        return "what answers there is no Redis: check host and port"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _policy(client: redis.Redis) -> str | None:
    try:
        return str(client.info("memory").get("maxmemory_policy") or "") or None
    except (ResponseError, NoPermissionError, BusyLoadingError):
        return None
