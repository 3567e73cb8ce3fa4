"""Real servers for every test that asks: one Postgres and one Valkey a session, clean for each test.

Always our own: DATABASE_URL and REDIS_URL of the caller are never touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from worker.local import LocalServices
from worker.openclaw import Installed, OpenClaw, RunningGateway

# A loaded machine is slow and a fresh clone builds hypothesis's tables first: neither is a fault of ours.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

_numbers = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--openclaw", default="2026.9.6", help="the OpenClaw release for tests/gateways")
    parser.addoption(
        "--target", action="append", metavar="KIND:RELEASE", help="sim:2026.9.6, openclaw:2026.2.12, ..."
    )


@pytest.fixture(scope="session")
def installed_openclaw(pytestconfig: pytest.Config) -> Installed:
    """The real OpenClaw of ``--openclaw``, installed at need."""
    return OpenClaw.install(pytestconfig.getoption("--openclaw"))


@pytest.fixture
def openclaw(installed_openclaw: Installed, tmp_path: Path) -> Iterator[RunningGateway]:
    """A real gateway for one test, not started yet."""
    gateway = RunningGateway(installed_openclaw, tmp_path / "openclaw")
    yield gateway
    gateway.stop()


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    """The session's stack. A test that stops a server of it starts it again."""
    with LocalServices(tmp_path_factory.mktemp("services"), durable=False) as stack:
        yield stack


@pytest.fixture
def redis_url(services: LocalServices) -> str:
    """An empty Valkey."""
    with redis.Redis.from_url(services.redis_url) as client:
        client.flushall()
    return services.redis_url


@pytest.fixture
def empty_database_url(services: LocalServices) -> Iterator[str]:
    """A database of the test's own with nothing in it; dropped at the end, whoever is connected."""
    name = f"empty_{next(_numbers)}"
    yield services.create_database(name)
    services.postgres.drop_database(name)
