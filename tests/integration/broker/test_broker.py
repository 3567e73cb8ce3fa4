"""The check of the broker tells lasting faults from errors that may pass, and TLS is verified."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError

from tests.certificates import self_signed
from tests.tls_front import tls_front
from worker.broker import BrokerCheck, broker_settings, check_broker
from worker.lab.servers.ports import free_port
from worker.messages.transport import SafeTransport
from worker.redis_url import Broker, read_redis_url


def test_a_broker_that_serves_us_has_no_fault(broker: Broker, admin: redis.Redis) -> None:
    before = admin.dbsize()
    assert check_broker(broker) == BrokerCheck(policy="noeviction")
    assert admin.dbsize() == before, "a look leaves nothing behind"


def test_a_policy_that_drops_messages_is_a_warning(broker: Broker, admin: redis.Redis) -> None:
    admin.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "its maxmemory-policy is allkeys-lru, set it to noeviction" in (
            check_broker(broker).warning or ""
        )
    finally:
        admin.config_set("maxmemory-policy", "noeviction")
    assert check_broker(broker).warning is None


def test_what_a_server_refuses_is_a_fault_and_one_that_is_away_is_not(broker: Broker) -> None:
    assert check_broker(replace(broker, password="wr0ng")).fault == "the server refuses its user or password"
    assert check_broker(replace(broker, password=None)).fault == "the server refuses its user or password"
    assert "no database 99" in (check_broker(replace(broker, database=99)).fault or "")
    away = check_broker(replace(broker, port=free_port()))
    assert (away.fault, away.away is not None) == (None, True)


def test_the_documented_rights_are_enough(user: Callable[..., Broker]) -> None:
    assert check_broker(user()).fault is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["-brpop"], "BRPOP provisioning"),
        (["-hset"], "HSET unacked"),
        (["-eval"], "EVAL"),
        (["-psubscribe"], "PSUBSCRIBE /0.celeryev/*"),
        (["-publish"], "PUBLISH /0.celeryev/"),
        (["-multi"], "MULTI"),
        (["resetchannels"], "PSUBSCRIBE /0.celery.pidbox"),
        (["resetkeys", "~sync*"], "LLEN provisioning"),
    ],
)
def test_a_right_that_is_missing_is_named(user: Callable[..., Broker], change: list[str], named: str) -> None:
    fault = check_broker(user(*change)).fault or ""
    assert fault.startswith("its user may not use ")
    assert named in fault


def test_a_policy_that_may_not_be_asked_is_no_fault(user: Callable[..., Broker]) -> None:
    assert check_broker(user("-info")) == BrokerCheck()


def test_the_brokers_certificate_is_verified(broker: Broker, tmp_path: Path) -> None:
    context = self_signed(tmp_path)
    password = broker.password
    with tls_front(context, broker.port) as port:

        def seen(host: str, options: str = "") -> BrokerCheck:
            return check_broker(read_redis_url(f"rediss://:{password}@{host}:{port}/0{options}"))

        ca = f"?ssl_ca_certs={tmp_path / 'gateway.pem'}"
        assert "certificate is not trusted" in (seen("127.0.0.1").fault or "")
        assert "ssl_ca_certs" in (seen("127.0.0.1").fault or "")
        assert "certificate is for another host" in (seen("localhost", ca).fault or ""), "it is for 127.0.0.1"
        assert seen("127.0.0.1", ca).fault is None
        assert seen("localhost", f"{ca}&ssl_check_hostname=false").fault is None
        assert seen("127.0.0.1", "?ssl_cert_reqs=none").fault is None
    plain = read_redis_url(f"rediss://:{password}@127.0.0.1:{broker.port}/0")
    assert check_broker(plain).policy is None


def test_a_certificate_that_has_expired_and_one_that_we_lack_are_named(
    broker: Broker, tmp_path: Path
) -> None:
    options = f"?ssl_ca_certs={tmp_path / 'gateway.pem'}"
    with tls_front(self_signed(tmp_path, expired=True), broker.port) as port:
        told = check_broker(read_redis_url(f"rediss://:{broker.password}@127.0.0.1:{port}/0{options}"))
    assert told.fault == "the server's certificate has expired: renew it"
    context = self_signed(tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED
    with tls_front(context, broker.port) as port:
        told = check_broker(read_redis_url(f"rediss://:{broker.password}@127.0.0.1:{port}/0{options}"))
    assert "ssl_certfile" in (told.fault or ""), told


def test_celery_verifies_it_too(broker: Broker, tmp_path: Path) -> None:
    context = self_signed(tmp_path)
    with tls_front(context, broker.port) as port:
        for options, trusted in (("", False), (f"?ssl_ca_certs={tmp_path / 'gateway.pem'}", True)):
            url = f"rediss://:{broker.password}@127.0.0.1:{port}/0{options}"
            with Celery() as app:
                app.config_from_object(broker_settings(read_redis_url(url), 4))
                connection = app.connection_for_write()
                if trusted:
                    connection.ensure_connection(max_retries=1)
                    assert urlsplit(connection.as_uri()).scheme == "rediss"
                else:
                    with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
                        connection.ensure_connection(max_retries=1, timeout=2)
                connection.release()


def test_a_channel_makes_one_client_and_another_once_its_pool_is_gone(redis_url: str) -> None:
    with Connection(redis_url, transport=SafeTransport) as connection:
        channel: Any = connection.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
            assert first.ping()
            assert second.ping()
        channel._disconnect_pools()  # as kombu does when the connection is lost
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()
            assert third.connection_pool is channel.pool
        assert channel._create_client(asynchronous=True) is not channel._create_client(asynchronous=True)


def test_the_lock_of_redelivery_expires_soon_after_a_worker_that_held_it_has_died(broker: Broker) -> None:
    options = broker_settings(broker, 4)["broker_transport_options"]
    url = f"redis://:{broker.password}@127.0.0.1:{broker.port}/{broker.database}"
    with Connection(url, transport=SafeTransport, transport_options=options) as connection:
        channel: Any = connection.default_channel
        assert channel.qos.unacked_mutex_expire <= 30  # kombu's 300 s come on top of the visibility timeout
